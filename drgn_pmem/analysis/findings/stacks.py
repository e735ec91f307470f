# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Stacks and pages
----------------

Tasks whose kernel stacks have to do with pages of persistent memory: they wait for a DAX page to
become idle (layout break), or they hold user pages in the middle of an operation (direct I/O and
the like). The page is found exactly: its struct page (or the address that is waited on) is on the
stack, a bio on the stack has it, or the user buffer on the stack is mapped to it.

All stacks are searched raw with numpy first; only those with a hit are unwound.
"""

from collections.abc import Callable, Iterator
import enum

from drgn import Program, StackTrace
import numpy as np
import numpy.typing as npt

from drgn_pmem.analysis.findings.backtraces import unwind
from drgn_pmem.analysis.findings.functions import LAYOUT_BREAK, classify
from drgn_pmem.analysis.findings.waits import wait_entry_of
from drgn_pmem.analysis.owners.daxfiles import dax_chars_of, dax_files_of
from drgn_pmem.kernel.daxfs import disk_name
from drgn_pmem.kernel.holders import Hold
from drgn_pmem.kernel.memory import BadAddress, Layout, memory_of
from drgn_pmem.kernel.mmu import physical_end
from drgn_pmem.kernel.page import page_layout
from drgn_pmem.kernel.pgmap import for_each_pmem_pgmap
from drgn_pmem.kernel.rmap import Vma, mapped_pfn, vmas_of_mapping
from drgn_pmem.kernel.tasks import Task, stack_size, tasks_of
from drgn_pmem.partial import NotSaved, Partial, Problems, State, WalkError
from drgn_pmem.ranges import distinct
from drgn_pmem.record import Record, Show, shown

__all__ = ("Lead", "StackFinding", "StackPage", "pages_of_pmem", "search_stacks")

_MAX_STACK = 1 << 18
_MAX_VECS = 256

# Functions that sleep while they wait for or hold user pages: their callers' return addresses bring
# a stack into the search although no page is on it.
_FUNCTIONS = (
    "ext4_break_layouts",
    "xfs_break_dax_layouts",
    "xfs_break_layouts",
    "fuse_dax_break_layouts",
    "dax_break_layout",
    "dax_break_layout_final",
    "__iomap_dio_rw",
    "blkdev_direct_IO",
    "__blkdev_direct_IO",
    "__blkdev_direct_IO_simple",
    "__blkdev_direct_IO_async",
    "do_blockdev_direct_IO",
    "__blockdev_direct_IO",
)


class Lead(enum.Enum):
    """How a stack leads to a page."""

    STRUCT_PAGE = "struct page on its stack"
    WAIT = "wait address on its stack"
    BIO = "bio on its stack"
    BUFFER = "user buffer"


class StackPage(Record):
    """A page of persistent memory that a stack leads to."""

    pfn: int
    how: Lead


class StackFinding(Record):
    """A task whose stack has to do with pages of persistent memory."""

    task: Task
    layout_break: bool
    """Whether it waits in a DAX layout break."""
    hold: Hold | None
    """How it holds pages; None if its functions do not show that."""
    function: str | None
    """The function that shows it; None also where frames have no names."""
    functions: tuple[str, ...]
    """Innermost first."""
    pages: tuple[StackPage, ...]
    disks: tuple[str, ...]
    """Block devices that the bios on its stack with these pages go to: ``"dm-1"``."""
    inode: int | None = shown(Show.ADDRESS)
    """Address of the ``struct inode`` that a layout break works on, from the frames' variables."""


def pages_of_pmem(prog: Program, problems: Problems) -> list[tuple[int, int]]:
    """First PFN, and PFN after the last, of each range of persistent memory with struct pages."""
    return [
        (r.start >> pgmap.page_shift, r.end >> pgmap.page_shift)
        for pgmap in problems.collect(for_each_pmem_pgmap(prog))
        for r in pgmap.ranges
    ]


class _Searcher:
    def __init__(self, prog: Program, problems: Problems) -> None:
        self.prog = prog
        self.problems = problems
        self.memory = memory_of(prog)
        self.layout = page_layout(prog)
        self.task = Layout(self.memory, "struct task_struct", stack="stack")
        self.area: Layout | None = None
        if self.task.has("stack_vm_area"):
            # CONFIG_VMAP_STACK
            self.task = Layout(
                self.memory, "struct task_struct", stack="stack", area="stack_vm_area"
            )
            self.area = Layout(self.memory, "struct vm_struct", pages="nr_pages")
        self.stack_size = stack_size(prog)
        self.pointer: Layout | None = None
        with problems.trying("stack pointers"):
            self.pointer = Layout(
                self.memory,
                "struct task_struct",
                # x86_64, arm64, ppc64
                sp=("thread.sp", "thread.cpu_context.sp", "thread.ksp"),
                running="on_cpu",
            )
        self.ranges = pages_of_pmem(prog, problems)
        self.code = self._function_ranges()
        self.vmas = self._dax_vmas()
        self.bio = Layout(
            self.memory, "struct bio", count="bi_vcnt", most="bi_max_vecs", vecs="bi_io_vec"
        )
        self.bio_vecs = self.bio.offset("bi_io_vec")
        self.disk_of: Callable[[int], str] | None = None
        with problems.trying("devices of bios"):
            self.disk_of = _disk_reader(prog)
        self.wait = wait_entry_of(prog)
        self.vec = Layout(self.memory, "struct bio_vec", page="bv_page")
        self.vec_size = self.vec.type.size or 0

    def _function_ranges(self) -> list[tuple[int, int]]:
        ranges = []
        for name in _FUNCTIONS:
            try:
                symbol = self.prog.symbol(name)
            except LookupError:
                # not a problem: this kernel has no such function
                continue
            ranges.append((symbol.address, symbol.address + symbol.size))
        return ranges

    def _dax_vmas(self) -> dict[int, list[Vma]]:
        """mm -> its VMAs of DAX files and devices."""
        take = self.problems.take
        mappings = [f.inode.mapping for f in take(dax_files_of(self.prog)).files]
        mappings += [c.inode.mapping for c in take(dax_chars_of(self.prog))]
        by_mm: dict[int, list[Vma]] = {}
        for mapping in mappings:
            for vma in take(vmas_of_mapping(self.prog, mapping)):
                by_mm.setdefault(vma.mm, []).append(vma)
        return by_mm

    def search(self) -> Iterator[StackFinding]:
        for task in self.problems.take(tasks_of(self.prog)).tasks:
            with self.problems.trying(f"stack of {task.pid}"):
                base, words = self._words(task)
                if len(self._pages(words)) or self._has_code(words):
                    finding = self._finding(task, base, words)
                    if finding is not None:
                        yield finding

    def _stack_pointer(self, task: Task) -> int | None:
        """Where the used part of a task's stack begins; None if that is not known."""
        if self.pointer is None:
            return None
        values = self.pointer.read(task.address)
        if not values["running"]:
            return values["sp"]
        try:
            trace = unwind(self.prog, task.object)
        except WalkError:
            # not a problem: the whole stack is looked at then
            return None
        return trace[0].sp if trace else None

    def _words(self, task: Task) -> "tuple[int, npt.NDArray[np.uint64]]":
        """
        Address and words of a task's kernel stack, without the pages at its far end that it does
        not use: makedumpfile leaves out pages of zeroes.
        """
        values = self.task.read(task.address)
        if not values["stack"]:
            # A dead task that its parent has not waited for: release_task_stack() gave it back.
            return 0, np.zeros(0, np.uint64)
        size = self.stack_size
        if self.area is not None and values["area"]:
            size = self.area.read(values["area"])["pages"] << self.layout.page_shift
            size = min(size, _MAX_STACK)
        page = min(size, 1 << self.layout.page_shift)
        parts: list[bytes] = []
        at = values["stack"] + size
        while at > values["stack"]:
            try:
                parts.append(self.memory.read(at - page, page))
            except NotSaved as error:
                pointer = self._stack_pointer(task)
                if not parts or (pointer is not None and values["stack"] <= pointer < at):
                    self.problems.add(error, f"stack of {task.pid}")
                break
            at -= page
        data = b"".join(reversed(parts))
        return at, np.frombuffer(data, f"{self.memory.order}u8").astype(np.uint64)

    def _has_code(self, words: "npt.NDArray[np.uint64]") -> bool:
        return any(
            bool(((words > np.uint64(start)) & (words < np.uint64(end))).any())
            for start, end in self.code
        )

    def _pages(self, words: "npt.NDArray[np.uint64]") -> list[StackPage]:
        """Pages whose struct page, or its ``_refcount``, the words point to."""
        found: dict[int, StackPage] = {}
        # wait_var_event() waits on &page->_refcount before v6.15, on the page since.
        for offset, how in ((self.layout.refcount, Lead.WAIT), (0, Lead.STRUCT_PAGE)):
            for pfn in self._pfns(words, offset):
                found.setdefault(pfn, StackPage(pfn=pfn, how=how))
        return list(found.values())

    def _pfns(self, words: "npt.NDArray[np.uint64]", offset: int) -> Iterator[int]:
        """Pages of persistent memory at whose struct page, or at *offset* in it, words point."""
        layout = self.layout
        inside = words[words >= np.uint64(layout.vmemmap)] - np.uint64(layout.vmemmap)
        numbers = inside // np.uint64(layout.size)
        there = inside % np.uint64(layout.size) == np.uint64(offset)
        for start, end in self.ranges:
            hit = there & (numbers >= np.uint64(start)) & (numbers < np.uint64(end))
            yield from numbers[hit].tolist()

    def _waited(self, words: "npt.NDArray[np.uint64]", at: int, task: Task) -> list[StackPage]:
        """Pages that a task sleeps for in wait_var_event(), by what that puts on its stack: nothing
        but a layout break waits for a page so, and its functions may have no names."""
        if self.wait is None:
            return []
        keys = self.wait.waited_on(words, at, task.address)
        waited = {pfn for o in (self.layout.refcount, 0) for pfn in self._pfns(keys, o)}
        return [StackPage(pfn=pfn, how=Lead.WAIT) for pfn in sorted(waited)]

    def _finding(
        self, task: Task, base: int, words: "npt.NDArray[np.uint64]"
    ) -> StackFinding | None:
        functions: tuple[str, ...] = ()
        inode = None
        live, at = words, base
        with self.problems.trying(f"stack of {task.pid}"):
            trace = unwind(self.prog, task.object)
            if trace is None:
                return None
            functions = tuple(f.name for f in trace if f.name)
            if len(trace) and base <= trace[0].sp < base + 8 * len(words):
                # Below the stack pointer is what earlier calls left.
                skipped = (trace[0].sp - base) // 8
                live, at = words[skipped:], base + 8 * skipped
            inode = self._inode_of_frames(task, trace)
        layout_break, hold, function = classify(functions)
        waited = self._waited(live, at, task)
        if waited and not layout_break:
            layout_break, hold, function = True, None, None
        pages = self._pages(live) + waited
        disks: dict[str, None] = {}
        if hold is not None:
            pages += self._of_bios(live, at, disks) + self._of_buffers(task, live)
        if not layout_break and hold is None and not pages:
            return None
        unique = {page.pfn: page for page in reversed(pages)}
        return StackFinding(
            task=task,
            layout_break=layout_break,
            hold=hold,
            function=function,
            functions=functions,
            pages=tuple(unique[pfn] for pfn in sorted(unique)),
            disks=tuple(disks),
            inode=inode if layout_break else None,
        )

    def _is_pmem(self, pfn: int | None) -> bool:
        return pfn is not None and any(start <= pfn < end for start, end in self.ranges)

    def _of_bios(
        self, words: "npt.NDArray[np.uint64]", at: int, disks: dict[str, None]
    ) -> list[StackPage]:
        """
        Pages of the bios that the words point to, and of those that lie among the words:
        __blkdev_direct_IO_simple() has its bio on the stack, and no pointer to it need be there
        (Linux 5.4). A word may be anything: what is taken for a bio counts only if it leads to the
        struct page of a page of persistent memory.

        :param at: Address of the first word.
        :param disks: Get the block devices that these bios go to.
        """
        found = []
        start = self.layout.vmemmap
        end = start + self.layout.size * (physical_end(self.prog) >> self.layout.page_shift)
        kernel = words >> np.uint64(63) == 1
        begins = at + 8 * np.flatnonzero(kernel).astype(np.uint64) - np.uint64(self.bio_vecs)
        inside = begins[begins >= np.uint64(at)]
        for pointer in distinct(np.concatenate((words[kernel], inside))).tolist():
            if start <= pointer < end:
                continue  # a struct page
            try:
                bio = self.bio.read(pointer)
                if not 0 < bio["count"] <= bio["most"] <= _MAX_VECS or bio["vecs"] & 7:
                    continue
                for index in range(bio["count"]):
                    page = self.vec.read(bio["vecs"] + index * self.vec_size)["page"]
                    pfn = self.layout.pfn(page)
                    if pfn is not None and self._is_pmem(pfn):
                        found.append(StackPage(pfn=pfn, how=Lead.BIO))
                        self._add_disk(pointer, disks)
            except BadAddress:
                # not a problem: most words of a stack are not pointers
                continue
            except NotSaved as error:
                # Memory that the kernel had may have held a bio.
                if error.state not in (None, State.UNMAPPED):
                    self.problems.add(error, f"what a stack points to at {pointer:#x}")
        return found

    def _add_disk(self, bio: int, disks: dict[str, None]) -> None:
        if self.disk_of is not None:
            with self.problems.trying(f"device of bio {bio:#x}"):
                disks.setdefault(self.disk_of(bio))

    def _of_buffers(self, task: Task, words: "npt.NDArray[np.uint64]") -> list[StackPage]:
        """Pages that the user addresses among the words are mapped to."""
        found = []
        for vma in self.vmas.get(task.mm, ()):
            inside = words[(words >= np.uint64(vma.start)) & (words < np.uint64(vma.end))]
            for address in distinct(inside).tolist():
                with self.problems.trying(f"user buffer of {task.pid}"):
                    pfn = self.problems.take(mapped_pfn(self.prog, task.mm, address))
                    if pfn is not None and self._is_pmem(pfn):
                        found.append(StackPage(pfn=pfn, how=Lead.BUFFER))
        return found

    def _inode_of_frames(self, task: Task, trace: StackTrace) -> int | None:
        """The inode that a layout break is about: a variable of its frames, where the debug info
        knows where it is."""
        for frame in trace:
            if not LAYOUT_BREAK.search(frame.name or "") or "inode" not in frame:
                continue
            with self.problems.trying(f"stack of {task.pid}"):
                inode = frame["inode"]
                if not inode.absent_:
                    return int(inode.value_())
        return None


def _disk_reader(prog: Program) -> Callable[[int], str]:
    """Reads the name of the disk that a bio goes to, by the bio's address."""
    memory = memory_of(prog)
    if prog.type("struct bio").has_member("bi_bdev"):
        # Since Linux kernel commit 309dca309fc3 ("block: store a block_device pointer in struct
        # bio") (in v5.12).
        bio = Layout(memory, "struct bio", bdev="bi_bdev")
        bdev = Layout(memory, "struct block_device", disk="bd_disk")
        return lambda address: disk_name(prog, bdev.read(bio.read(address)["bdev"])["disk"])
    bio = Layout(memory, "struct bio", disk="bi_disk")
    return lambda address: disk_name(prog, bio.read(address)["disk"])


def search_stacks(prog: Program) -> Partial[tuple[StackFinding, ...]]:
    """
    Tasks whose kernel stacks have to do with pages of persistent memory.

    :raises MissingDebugInfo: without debug info of vmlinux
    """
    problems = Problems()
    found = tuple(_Searcher(prog, problems).search())
    return problems.partial(found)

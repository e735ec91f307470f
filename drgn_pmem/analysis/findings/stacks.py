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

from collections.abc import Iterator
from dataclasses import dataclass
import re

from drgn import FaultError, Program, StackTrace
import numpy as np
import numpy.typing as npt

from drgn_pmem.analysis.owners.daxfiles import dax_files_of
from drgn_pmem.kernel.daxfs import inodes_of
from drgn_pmem.kernel.memory import Layout, memory_of
from drgn_pmem.kernel.page import page_layout, pages_pgmap
from drgn_pmem.kernel.rmap import Vma, mapped_pfn, vmas_of_mapping
from drgn_pmem.kernel.tasks import Task, tasks_of
from drgn_pmem.kernel.walk import collect
from drgn_pmem.partial import NotSaved, WalkError

__all__ = ("StackFinding", "StackPage", "search_stacks")

_DEFAULT_STACK = 16384
_MAX_STACK = 1 << 18
_MAX_VECS = 256

_KINDS: tuple[tuple[str, "re.Pattern[str]"], ...] = (
    (
        "layout break",
        re.compile(r"break_layout|break_dax_layouts|dax_break|wait_page_idle|dax_layout_busy"),
    ),
    (
        "direct I/O",
        re.compile(r"direct_IO|iomap_dio|_dio_|dio_await|direct_(read|write)|blk_io_schedule"),
    ),
    ("vmsplice", re.compile(r"vmsplice")),
    ("RDMA", re.compile(r"ib_umem|uverbs")),
    ("vfio", re.compile(r"vfio_|iopt_pin")),
    ("io_uring", re.compile(r"io_sqe_buffer|io_rsrc|io_uring_register")),
    (
        "user pages",
        re.compile(r"(pin|get)_user_pages|iov_iter_(get|extract)_pages|process_vm_rw"),
    ),
)

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


@dataclass(frozen=True)
class StackPage:
    """A page of persistent memory that a stack leads to."""

    pfn: int
    how: str
    """``"struct page on its stack"``, ``"wait address on its stack"``, ``"bio on its stack"``,
    ``"user buffer"``"""


@dataclass(frozen=True)
class StackFinding:
    """A task whose stack has to do with pages of persistent memory."""

    task: Task
    kind: str | None
    """``"layout break"``, ``"direct I/O"``, ...; None if its functions do not tell."""
    function: str | None
    """The function that told."""
    functions: tuple[str, ...]
    """Innermost first."""
    pages: tuple[StackPage, ...]
    inode: int | None
    """Address of the ``struct inode`` that a layout break works on, from the frames' variables."""


class _Searcher:
    def __init__(self, prog: Program, problems: list[str]) -> None:
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
        self.ranges = [
            (r.start >> self.layout.page_shift, r.end >> self.layout.page_shift)
            for pgmap in collect(pages_pgmap(prog))[0]
            for r in pgmap.ranges
        ]
        self.code = self._function_ranges()
        self.vmas = self._dax_vmas()
        self.bio = Layout(
            self.memory, "struct bio", count="bi_vcnt", most="bi_max_vecs", vecs="bi_io_vec"
        )
        self.vec = Layout(self.memory, "struct bio_vec", page="bv_page")
        self.vec_size = self.vec.type.size or 0

    def _function_ranges(self) -> list[tuple[int, int]]:
        ranges = []
        for name in _FUNCTIONS:
            try:
                symbol = self.prog.symbol(name)
            except LookupError:
                continue
            ranges.append((symbol.address, symbol.address + symbol.size))
        return ranges

    def _dax_vmas(self) -> dict[int, list[Vma]]:
        """mm -> its VMAs of DAX files and devices."""
        files = dax_files_of(self.prog)
        mappings = [f.inode.mapping for f in files.files] + [c.inode.mapping for c in files.chars]
        by_mm: dict[int, list[Vma]] = {}
        for mapping in mappings:
            for vma in vmas_of_mapping(self.prog, mapping).vmas:
                by_mm.setdefault(vma.mm, []).append(vma)
        return by_mm

    def search(self) -> Iterator[StackFinding]:
        for task in tasks_of(self.prog).tasks:
            try:
                base, words = self._words(task)
            except WalkError as error:
                self.problems.append(f"stack of {task.pid}: {error}")
                continue
            if len(self._pages(words)) or self._has_code(words):
                finding = self._finding(task, base, words)
                if finding is not None:
                    yield finding

    def _words(self, task: Task) -> "tuple[int, npt.NDArray[np.uint64]]":
        """
        Address and words of a task's kernel stack, without the pages at its far end that it never
        grew into: makedumpfile leaves out pages of zeroes.
        """
        values = self.task.read(task.address)
        size = _DEFAULT_STACK
        if self.area is not None and values["area"]:
            size = self.area.read(values["area"])["pages"] << self.layout.page_shift
            size = min(size, _MAX_STACK)
        page = min(size, 1 << self.layout.page_shift)
        parts: list[bytes] = []
        at = values["stack"] + size
        while at > values["stack"]:
            try:
                parts.append(self.memory.read(at - page, page))
            except NotSaved:
                if not parts:
                    raise
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
        layout = self.layout
        inside = words[words >= np.uint64(layout.vmemmap)] - np.uint64(layout.vmemmap)
        numbers = inside // np.uint64(layout.size)
        rest = inside % np.uint64(layout.size)
        found: dict[int, StackPage] = {}
        for start, end in self.ranges:
            hit = (numbers >= np.uint64(start)) & (numbers < np.uint64(end))
            # wait_var_event() waits on &page->_refcount before v6.15, on the page since.
            for offset, how in (
                (layout.refcount, "wait address on its stack"),
                (0, "struct page on its stack"),
            ):
                for pfn in numbers[hit & (rest == np.uint64(offset))].tolist():
                    found.setdefault(pfn, StackPage(pfn, how))
        return list(found.values())

    def _finding(
        self, task: Task, base: int, words: "npt.NDArray[np.uint64]"
    ) -> StackFinding | None:
        functions: tuple[str, ...] = ()
        inode = None
        live = words
        try:
            trace = self.prog.stack_trace(task.object)
            functions = tuple(f.name for f in trace if f.name)
            if len(trace) and base <= trace[0].sp < base + 8 * len(words):
                # Below the stack pointer is what earlier calls left behind.
                live = words[(trace[0].sp - base) // 8 :]
            inode = _inode_of_frames(trace)
        except (FaultError, ValueError, LookupError) as error:
            self.problems.append(f"stack of {task.pid} cannot be unwound: {error}")
        kind, function = _classify(functions)
        pages = self._pages(live)
        if kind not in (None, "layout break"):
            pages += self._of_bios(live) + self._of_buffers(task, live)
        if kind is None and not pages:
            return None
        unique = {page.pfn: page for page in reversed(pages)}
        return StackFinding(
            task,
            kind,
            function,
            functions,
            tuple(unique[pfn] for pfn in sorted(unique)),
            inode if kind == "layout break" else None,
        )

    def _is_pmem(self, pfn: int | None) -> bool:
        return pfn is not None and any(start <= pfn < end for start, end in self.ranges)

    def _of_bios(self, words: "npt.NDArray[np.uint64]") -> list[StackPage]:
        """Pages of the bios that the words point to. A word may be anything: what is taken for a
        bio counts only if it leads to the struct page of a page of persistent memory."""
        found = []
        for pointer in np.unique(words[words >> np.uint64(63) == 1]).tolist():
            try:
                bio = self.bio.read(pointer)
                if not 0 < bio["count"] <= bio["most"] <= _MAX_VECS or bio["vecs"] & 7:
                    continue
                for index in range(bio["count"]):
                    page = self.vec.read(bio["vecs"] + index * self.vec_size)["page"]
                    pfn = self.layout.pfn(page)
                    if pfn is not None and self._is_pmem(pfn):
                        found.append(StackPage(pfn, "bio on its stack"))
            except NotSaved:
                continue
        return found

    def _of_buffers(self, task: Task, words: "npt.NDArray[np.uint64]") -> list[StackPage]:
        """Pages that the user addresses among the words are mapped to."""
        found = []
        for vma in self.vmas.get(task.mm, ()):
            inside = words[(words >= np.uint64(vma.start)) & (words < np.uint64(vma.end))]
            for address in np.unique(inside).tolist():
                try:
                    pfn = mapped_pfn(self.prog, task.mm, address)
                except NotSaved:
                    continue
                if pfn is not None and self._is_pmem(pfn):
                    found.append(StackPage(pfn, "user buffer"))
        return found


def _classify(functions: tuple[str, ...]) -> tuple[str | None, str | None]:
    for kind, pattern in _KINDS:
        matching = [function for function in functions if pattern.search(function)]
        if matching:
            # The file system's function tells more than what it waits in.
            return kind, matching[-1 if kind == "layout break" else 0]
    return None, None


def _inode_of_frames(trace: StackTrace) -> int | None:
    """The inode that a layout break is about: a variable of its frames, where the debug info
    knows where it is."""
    for frame in trace:
        if not _KINDS[0][1].search(frame.name or ""):
            continue
        try:
            inode = frame["inode"]
            if not inode.absent_:
                return int(inode)
        except (LookupError, FaultError, TypeError):
            continue
    return None


def search_stacks(prog: Program, problems: list[str]) -> list[StackFinding]:
    """
    Tasks whose kernel stacks have to do with pages of persistent memory.

    :param problems: Gets a line for each stack that cannot be read.
    :raises MissingDebugInfo: without debug info of vmlinux
    """
    inodes_of(prog)
    return list(_Searcher(prog, problems).search())

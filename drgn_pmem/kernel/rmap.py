# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Reverse map
-----------

From a page of a file to the processes that map it, each proven by the process's own page tables:
``i_mmap`` says which VMAs cover the page, the page tables whether the page is really there.
Sources: include/linux/fs.h (``address_space``), include/linux/mm_types.h (``vm_area_struct``),
mm/interval_tree.c.
"""

from collections.abc import Iterator
import enum
from typing import Any

from drgn import Object, Program

from drgn_pmem.errors import PmemError
from drgn_pmem.kernel.memory import Layout, address_of, cached, memory_of
from drgn_pmem.kernel.pagetable import Extent, translate
from drgn_pmem.kernel.root import walk_process
from drgn_pmem.kernel.tasks import Task, tasks_of
from drgn_pmem.partial import Cause, Partial, Problem, Problems, State, WalkError
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "Mapping",
    "Proof",
    "Vma",
    "mapped_pfn",
    "mappers_of",
    "mappings_of_page",
    "process_extents",
    "vmas_of_mapping",
)

_VM_SHARED = 0x8
"""A macro of include/linux/mm.h, never changed."""

_MAX_VMAS = 1 << 20


class Proof(enum.Enum):
    """What the page tables of a process say about a page that one of its VMAs covers."""

    PTE = "pte"
    """They map exactly this page."""
    VMA = "vma"
    """They map nothing there: never touched, or removed (poison, truncate, migration)."""
    COW = "cow"
    """They map another page: the process has a private copy."""
    UNREADABLE = "unreadable"
    """They are not in the dump, or cannot be walked on this architecture: the answer's problems say
    why."""


class Vma(Record):
    """``struct vm_area_struct`` of a file mapping."""

    address: int = shown(Show.ADDRESS)
    start: int = shown(Show.ADDRESS)
    """First virtual address."""
    end: int = shown(Show.ADDRESS)
    """Virtual address after the last."""
    pgoff: int
    """Page index in the file of the first page."""
    shared: bool
    mm: int = shown(Show.ADDRESS)
    """Address of its ``struct mm_struct``."""
    file: int = shown(Show.ADDRESS)
    """Address of its ``struct file``."""
    page_shift: int = shown(Show.HIDDEN)
    object: Object = shown(Show.HIDDEN)
    """``struct vm_area_struct *``"""

    def address_of(self, index: int) -> int | None:
        """
        Virtual address of a page of the file; None if the VMA does not cover it.

        :param index: Page index in the file.
        """
        address = self.start + ((index - self.pgoff) << self.page_shift)
        return address if index >= self.pgoff and address < self.end else None


class Mapping(Record):
    """One process that maps (or may map) a page."""

    task: Task | None
    """Leader of the thread group; None if no task that could be read uses the address space."""
    address: int = shown(Show.ADDRESS)
    """Virtual address of the page."""
    proof: Proof
    pfn: int | None
    """What its page tables map there."""
    vma: Vma

    def to_json(self) -> dict[str, Any]:
        return {
            "pid": self.task.tgid if self.task else None,
            "comm": self.task.comm if self.task else None,
            "address": f"{self.address:#x}",
            "proof": self.proof.value,
            "pfn": self.pfn,
            "shared": self.vma.shared,
        }


class _Layouts:
    def __init__(self, prog: Program) -> None:
        self.memory = memory = memory_of(prog)
        mapping = Layout(memory, "struct address_space")
        # Since Linux kernel commit f808c13fd373 ("lib/interval_tree: fast overlap detection") (in
        # v4.14), a cached root.
        self.root = mapping.offset("i_mmap.rb_root.rb_node", "i_mmap.rb_node")
        self.vma = Layout(
            memory,
            "struct vm_area_struct",
            parent="shared.rb.__rb_parent_color",
            left="shared.rb.rb_left",
            right="shared.rb.rb_right",
            start="vm_start",
            end="vm_end",
            pgoff="vm_pgoff",
            flags="vm_flags",
            mm="vm_mm",
            file="vm_file",
        )
        self.node = self.vma.offset("shared.rb")
        self.page_shift = int(prog["PAGE_SHIFT"])


def _layouts(prog: Program) -> _Layouts:
    layouts: _Layouts = cached(prog, "rmap.layouts", lambda: _Layouts(prog))
    return layouts


def _walk_tree(layouts: _Layouts, root: int, problems: Problems) -> Iterator[Vma]:
    # A node is accepted only below the parent that it names, so that each occurs once and a cyclic
    # tree ends.
    stack = [(root, 0)]
    count = 0
    while stack:
        node, parent = stack.pop()
        address = node - layouts.node
        with problems.trying(f"vm_area_struct {address:#x}"):
            values = layouts.vma.read(address)
            if values["parent"] & ~3 != parent:
                raise WalkError("its parent is not that of its place in i_mmap")
            if count >= _MAX_VMAS:
                why = f"i_mmap: stopped after {_MAX_VMAS} VMAs"
                problems.add(Problem(cause=Cause.LIMIT, why=why))
                return
            count += 1
            yield Vma(
                address=address,
                start=values["start"],
                end=values["end"],
                pgoff=values["pgoff"],
                shared=bool(values["flags"] & _VM_SHARED),
                mm=values["mm"],
                file=values["file"],
                page_shift=layouts.page_shift,
                object=layouts.vma.object(address),
            )
            stack += [(child, node) for child in (values["right"], values["left"]) if child]


def _read_vmas(layouts: _Layouts, mapping: int) -> Partial[tuple[Vma, ...]]:
    problems = Problems()
    vmas: list[Vma] = []
    with problems.trying(f"i_mmap of address_space {mapping:#x}"):
        root = layouts.memory.word(mapping + layouts.root)
        vmas += _walk_tree(layouts, root, problems) if root else ()
    return problems.partial(tuple(vmas))


def vmas_of_mapping(prog: Program, mapping: "Object | int") -> Partial[tuple[Vma, ...]]:
    """
    VMAs that map an address space, read once per program.

    :param mapping: ``struct address_space *``, or its address.
    """
    address = address_of(mapping)
    done: dict[int, Partial[tuple[Vma, ...]]] = cached(prog, "rmap.vmas", dict)
    if address not in done:
        done[address] = _read_vmas(_layouts(prog), address)
    return done[address]


def process_extents(
    prog: Program, mm: "Object | int", start: int, end: int
) -> Partial[tuple[Extent, ...]]:
    """
    What the page tables of a process map.

    :param mm: ``struct mm_struct *``, or its address.
    :param start: First virtual address.
    :param end: End, exclusive.
    :return: A partition of the range, in order; a problem for every part that is not known.
    """
    problems = Problems()
    address = address_of(mm)
    what = f"page tables of mm {address:#x}"
    extents: list[Extent] = []
    with problems.trying(what):
        layout: Layout = cached(
            prog, "rmap.mm", lambda: Layout(memory_of(prog), "struct mm_struct", pgd="pgd")
        )
        pgd = translate(prog, layout.read(address)["pgd"])
        try:
            extents += walk_process(prog, pgd, start, end)
        except PmemError as error:
            problems.add(Problem(cause=Cause.UNSUPPORTED, why=str(error)))
    for extent in extents:
        if extent.physical is None and extent.state is not State.UNMAPPED:
            why = f"{extent.virtual:#x}: {extent.reason}"
            problems.add(Problem(cause=Cause.NOT_SAVED, why=why, state=extent.state), what)
    return problems.partial(tuple(extents))


def mapped_pfn(prog: Program, mm: "Object | int", address: int) -> Partial[int | None]:
    """
    PFN that a process's page tables map at an address.

    :param mm: ``struct mm_struct *``, or its address.
    :param address: Virtual address.
    :return: None if they map nothing, or that is not known: then there are problems.
    """
    partial = process_extents(prog, mm, address, address + 1)
    shift = _layouts(prog).page_shift
    return partial.map(
        lambda extents: next((e.physical >> shift for e in extents if e.physical is not None), None)
    )


def _prove(
    prog: Program, vma: Vma, address: int, pfn: int | None, problems: Problems
) -> tuple[Proof, int | None]:
    partial = mapped_pfn(prog, vma.mm, address)
    found = problems.take(partial)
    if not partial.complete:
        return Proof.UNREADABLE, None
    if found is None:
        return Proof.VMA, None
    if found == pfn:
        return Proof.PTE, found
    return (Proof.VMA if vma.shared else Proof.COW), found


def mappings_of_page(
    prog: Program, mapping: "Object | int", index: int, pfn: int | None
) -> Partial[tuple[Mapping, ...]]:
    """
    Processes whose VMAs cover a page of a file.

    :param mapping: The file's ``struct address_space *``, or its address.
    :param index: Page index in the file.
    :param pfn: The page that is to be proven there; None if it is not known.
    :return: In order of pid and address.
    """
    problems = Problems()
    by_mm = problems.take(tasks_of(prog)).by_mm
    found: list[Mapping] = []
    for vma in problems.take(vmas_of_mapping(prog, mapping)):
        address = vma.address_of(index)
        if address is None:
            continue
        proof, there = _prove(prog, vma, address, pfn, problems)
        users: tuple[Task | None, ...] = by_mm.get(vma.mm, (None,))
        found += [
            Mapping(task=task, address=address, proof=proof, pfn=there, vma=vma) for task in users
        ]
    found.sort(key=lambda m: (m.task.tgid if m.task else -1, m.address))
    return problems.partial(tuple(found))


def mappers_of(prog: Program, mapping: "Object | int") -> Partial[tuple[Task, ...]]:
    """
    Processes with a VMA of an address space.

    :param mapping: ``struct address_space *``, or its address.
    :return: Leaders of thread groups, in order of pid.
    """
    problems = Problems()
    vmas = problems.take(vmas_of_mapping(prog, mapping))
    by_mm = problems.take(tasks_of(prog)).by_mm
    users = {task.tgid: task for vma in vmas for task in by_mm.get(vma.mm, ())}
    return problems.partial(tuple(users[pid] for pid in sorted(users)))

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

from dataclasses import dataclass, field
import enum
from typing import Any

from drgn import FaultError, Object, Program
from drgn.helpers.linux.mm import follow_phys

from drgn_pmem.kernel.memory import Layout, cached, memory_of
from drgn_pmem.kernel.tasks import Task, tasks_of
from drgn_pmem.partial import NotSaved

__all__ = (
    "Mapping",
    "Proof",
    "Vma",
    "Vmas",
    "mapped_pfn",
    "mappings_of_page",
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
    """They map nothing there: never touched, or taken away (poison, truncate, migration)."""
    COW = "cow"
    """They map another page: the process has a private copy."""
    UNREADABLE = "unreadable"
    """They are not in the dump, or drgn cannot walk them on this architecture."""


@dataclass(frozen=True)
class Vma:
    """``struct vm_area_struct`` of a file mapping."""

    address: int
    start: int
    """First virtual address."""
    end: int
    """Virtual address after the last."""
    pgoff: int
    """Page index in the file of the first page."""
    shared: bool
    mm: int
    file: int
    page_shift: int
    object: Object = field(repr=False, compare=False)
    """``struct vm_area_struct *``"""

    def address_of(self, index: int) -> int | None:
        """
        Virtual address of a page of the file; None if the VMA does not cover it.

        :param index: Page index in the file.
        """
        address = self.start + ((index - self.pgoff) << self.page_shift)
        return address if index >= self.pgoff and address < self.end else None


@dataclass(frozen=True)
class Vmas:
    """The VMAs of an address space."""

    vmas: tuple[Vma, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mapping:
    """One process that maps (or may map) a page."""

    task: Task | None
    """Leader of the thread group; None if no task uses the address space any more."""
    address: int
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


def _walk_tree(layouts: _Layouts, root: int) -> Vmas:
    vmas: list[Vma] = []
    problems: list[str] = []
    # A node is accepted only below the parent that it names itself: so each comes up once, and a
    # tree with cycles ends.
    stack = [(root, 0)]
    while stack:
        node, parent = stack.pop()
        address = node - layouts.node
        try:
            values = layouts.vma.read(address)
        except NotSaved as error:
            problems.append(f"vm_area_struct {address:#x}: {error}")
            continue
        if values["parent"] & ~3 != parent:
            problems.append(
                f"vm_area_struct {address:#x} is not the child that its place in i_mmap says"
            )
            continue
        if len(vmas) >= _MAX_VMAS:
            problems.append(f"i_mmap: stopped after {_MAX_VMAS} VMAs")
            break
        vmas.append(
            Vma(
                address,
                values["start"],
                values["end"],
                values["pgoff"],
                bool(values["flags"] & _VM_SHARED),
                values["mm"],
                values["file"],
                layouts.page_shift,
                layouts.vma.object(address),
            )
        )
        stack += [(child, node) for child in (values["right"], values["left"]) if child]
    return Vmas(tuple(vmas), tuple(problems))


def vmas_of_mapping(prog: Program, mapping: int) -> Vmas:
    """
    VMAs that map an address space, read once per program. Never raises for what the dump lacks: see
    :attr:`Vmas.problems`.

    :param mapping: Address of the ``struct address_space``.
    """
    layouts = _layouts(prog)
    done: dict[int, Vmas] = cached(prog, "rmap.vmas", dict)
    if mapping not in done:
        try:
            root = layouts.memory.word(mapping + layouts.root)
            done[mapping] = _walk_tree(layouts, root) if root else Vmas(())
        except NotSaved as error:
            done[mapping] = Vmas((), (f"i_mmap of {mapping:#x}: {error}",))
    return done[mapping]


def mapped_pfn(prog: Program, mm: int, address: int) -> int | None:
    """
    PFN that a process's page tables map at an address.

    :param mm: Address of its ``struct mm_struct``.
    :return: None if they map nothing.
    :raises NotSaved: if they are not in the dump or cannot be walked
    """
    # Its first use makes drgn fault on page tables that an ELF dump left out: zeroes would read as
    # "nothing is mapped".
    memory_of(prog)
    try:
        physical = follow_phys(Object(prog, "struct mm_struct *", mm), address).value_()
    except FaultError as error:
        # drgn's text for an entry that is there and maps nothing; anything else is a failed read.
        if error.message == "address is not mapped":
            return None
        raise NotSaved(f"page tables of mm {mm:#x}: {error}", address=error.address) from None
    except (NotImplementedError, ValueError) as error:
        raise NotSaved(f"page tables of mm {mm:#x}: {error}", address=address) from None
    return int(physical) >> _layouts(prog).page_shift


def _prove(prog: Program, vma: Vma, address: int, pfn: int | None) -> tuple[Proof, int | None]:
    try:
        found = mapped_pfn(prog, vma.mm, address)
    except NotSaved:
        return Proof.UNREADABLE, None
    if found is None:
        return Proof.VMA, None
    if found == pfn:
        return Proof.PTE, found
    return (Proof.VMA if vma.shared else Proof.COW), found


def mappings_of_page(prog: Program, mapping: int, index: int, pfn: int | None) -> list[Mapping]:
    """
    Processes whose VMAs cover a page of a file.

    :param mapping: Address of the file's ``struct address_space``.
    :param index: Page index in the file.
    :param pfn: The page that is to be proven there; None if it is not known.
    :return: In order of pid and address.
    """
    tasks = tasks_of(prog)
    found: list[Mapping] = []
    for vma in vmas_of_mapping(prog, mapping).vmas:
        address = vma.address_of(index)
        if address is None:
            continue
        proof, there = _prove(prog, vma, address, pfn)
        users: tuple[Task | None, ...] = tasks.by_mm.get(vma.mm, (None,))
        found += [Mapping(task, address, proof, there, vma) for task in users]
    return sorted(found, key=lambda m: (m.task.tgid if m.task else -1, m.address))

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kernels with nothing but struct pages, of each generation, as a test writes them."""

from dataclasses import dataclass, replace
import struct

from drgn import FindObjectFlags, Object, Program, Type, TypeEnumerator, TypeKind, TypeMember

from drgn_pmem.kernel.pgmap import Altmap, Pgmap
from drgn_pmem.partial import Partial
from drgn_pmem.ranges import Range

from .physical import PAGE, Machine, x86_64

VMEMMAP = 0xFFFFEA0000000000
FIRST = 0x100000
"""PFN of the first page of persistent memory."""
COUNT = 1024
PGMAP = 0xFFFF888001234500
MAPPING = 0xFFFF888004000100
STRUCT_PAGES = 0x40000000
"""Physical address of the struct page of FIRST."""

# include/linux/page-flags.h; the numbers differ from kernel to kernel, and these are no kernel's.
FLAGS = {"PG_locked": 0, "PG_referenced": 2, "PG_dirty": 4, "PG_head": 6, "PG_reserved": 14,
         "PG_hwpoison": 22, "__NR_PAGEFLAGS": 23,
         # second names of bits, each for pages of one kind
         "PG_reported": 2, "PG_anon_exclusive": 4}  # fmt: skip
RESERVED = 1 << FLAGS["PG_reserved"]
HEAD = 1 << FLAGS["PG_head"]
HWPOISON = 1 << FLAGS["PG_hwpoison"]
MASK64 = (1 << 64) - 1


@dataclass(frozen=True)
class Page:
    """The words of a struct page of 64 bytes."""

    flags: int = RESERVED
    word: int = PGMAP
    mapping: int = 0
    index: int = 0
    mapcount: int = -1
    refcount: int = 1
    byte17: int = 0
    """compound_order of the first tail, up to 6.2."""
    large_mapcount: int = 0
    """Of the first tail, at byte 16 since 6.6."""

    def encode(self) -> bytes:
        at16 = bytes([0, self.byte17]) if self.byte17 else struct.pack("<i", self.large_mapcount)
        return struct.pack(
            "<QQ8sQQQiiQ",
            self.flags, self.word, at16, self.mapping, self.index, 0,
            self.mapcount, self.refcount, 0,
        )  # fmt: skip


def tail(head_pfn: int, **changes: int) -> Page:
    """A tail page of the kernels whose tails point to the head."""
    address = VMEMMAP + 64 * head_pfn
    return replace(Page(word=address | 1, mapping=0xDEAD000000000400, refcount=0), **changes)


def masked_tail(order: int, **changes: int) -> Page:
    """A tail page since 7.1: a mask for its own address."""
    mask = MASK64 & ~((64 << order) - 1)
    return replace(Page(word=mask | 1, mapping=0xDEAD000000000400, refcount=0), **changes)


GENERATIONS = ("6.1", "6.6", "6.15", "7.1")


def _types(prog: Program, generation: str) -> dict[tuple[TypeKind, str], Type]:
    word = prog.int_type("unsigned long", 8, False)
    byte = prog.int_type("unsigned char", 1, False)
    integer = prog.int_type("int", 4, True)
    pointer = prog.pointer_type(prog.void_type())
    counter = prog.struct_type("atomic_t", 4, (TypeMember(integer, "counter", 0),))
    flags = word
    if generation == "7.1":
        flags = prog.struct_type("memdesc_flags_t", 8, (TypeMember(word, "f", 0),))

    def members(*entries: tuple[Type, str, int]) -> tuple[TypeMember, ...]:
        return tuple(TypeMember(type_, name, 8 * offset) for type_, name, offset in entries)

    late = generation in ("6.15", "7.1")
    common = [(flags, "flags", 0), (pointer, "mapping", 24), (word, "private", 40),
              (counter, "_mapcount", 48), (counter, "_refcount", 52), (word, "lru", 8)]  # fmt: skip
    page = [*common, (word, "compound_info" if generation == "7.1" else "compound_head", 8)]
    page.append((word, "__folio_index" if late else "index", 32))
    if generation != "6.1":
        page.append((word, "share", 32))
    if not late:
        page.append((pointer, "pgmap", 8))
    folio = [*common, (word, "index", 32)]
    if generation == "6.1":
        page.append((byte, "compound_order", 17))
        folio.append((byte, "_folio_order", 64 + 17))
    else:
        folio += [(word, "_flags_1", 64), (counter, "_large_mapcount", 64 + 16)]
    if late:
        folio += [(pointer, "pgmap", 8), (word, "share", 32)]
    zone = [(word, "vmemmap_tails", 0)] if generation == "7.1" else []
    enumerators = [TypeEnumerator(name, value) for name, value in FLAGS.items()]
    return {
        (TypeKind.STRUCT, "page"): prog.struct_type("page", 64, members(*page)),
        (TypeKind.STRUCT, "folio"): prog.struct_type("folio", 256, members(*folio)),
        (TypeKind.STRUCT, "zone"): prog.struct_type("zone", 64, members(*zone)),
        (TypeKind.ENUM, "pageflags"): prog.enum_type("pageflags", integer, enumerators),
        (TypeKind.INT, "unsigned long"): word,
    }


class Kernel:
    """
    A machine with one page map of COUNT pages at FIRST.

    :param generation: One of :data:`GENERATIONS`.
    :param pages: PFN -> struct page; all others are idle.
    :param aliased: Struct pages of each 2 MiB behind the second page of them share the second's
        memory, as optimised device DAX has it.
    """

    def __init__(
        self,
        generation: str,
        pages: dict[int, Page],
        *,
        type: str = "MEMORY_DEVICE_FS_DAX",
        altmap: Altmap | None = None,
        shift: int = 0,
        aliased: bool = False,
        debug_info: bool = True,
    ) -> None:
        self.machine = Machine()
        self.tables, info = x86_64(self.machine)
        idle = Page(refcount=0 if generation in ("6.15", "7.1") else 1)
        address = VMEMMAP + 64 * FIRST
        for number in range(64 * COUNT // PAGE):
            physical = STRUCT_PAGES + PAGE * number
            if aliased and number % 8 > 1:
                physical = STRUCT_PAGES + PAGE * (number - number % 8 + 1)
            self.tables.map(address + PAGE * number, physical, 12)
            if physical == STRUCT_PAGES + PAGE * number:
                first = FIRST + PAGE // 64 * number
                data = [pages.get(first + i, idle).encode() for i in range(PAGE // 64)]
                self.machine.write(physical, b"".join(data))
        offsets = (
            "SIZE(page)=64\nOFFSET(page.flags)=0\nOFFSET(page._refcount)=52\n"
            "OFFSET(page.mapping)=24\nOFFSET(page.lru)=8\nOFFSET(page._mapcount)=48\n"
            f"SYMBOL(vmemmap)={VMEMMAP:x}\nNUMBER(PG_hwpoison)={FLAGS['PG_hwpoison']}\n"
            f"NUMBER(PG_head_mask)={HEAD}\n"
        )
        if generation == "7.1":
            offsets += "OFFSET(page.compound_info)=8\n"
        self.prog = self.machine.program(info + offsets)
        self._pgmap = Pgmap(
            address=PGMAP,
            type=type,
            ranges=(Range(FIRST * PAGE, (FIRST + COUNT) * PAGE),),
            altmap=altmap,
            vmemmap_shift=shift,
            memmap_start=FIRST,
            flags=0,
            owner=0,
            page_shift=12,
            object=Object(self.prog, self.prog.int_type("int", 4, True), 0),
        )
        if debug_info:
            self._debug_info(generation)
        self.changed()

    def _debug_info(self, generation: str) -> None:
        types = _types(self.prog, generation)

        def find_type(prog, kinds, name, filename):
            return next((types[kind, name] for kind in kinds if (kind, name) in types), None)

        def find_object(prog, name, flags, filename):
            if name in FLAGS and flags & FindObjectFlags.CONSTANT:
                return Object(prog, types[TypeKind.ENUM, "pageflags"], FLAGS[name])
            if name == "vmemmap" and flags & FindObjectFlags.VARIABLE:
                return Object(prog, prog.pointer_type(types[TypeKind.STRUCT, "page"]), VMEMMAP)
            return None

        self.prog.register_type_finder("test", find_type, enable_index=0)
        self.prog.register_object_finder("test", find_object, enable_index=0)

    def changed(self) -> Program:
        """After a change of the machine."""
        self.machine.cover(self.prog)
        # What pages_pgmap() keeps: the page map without the XArray around it.
        self.prog.cache["drgn_pmem.pgmaps"] = Partial([self._pgmap])
        return self.prog

    def lose(self, pfn: int, excluded: bool = False) -> Program:
        """Leave the 4096 bytes around the struct page of a PFN out of the dump."""
        base = STRUCT_PAGES + 64 * (pfn - FIRST)
        base -= base % PAGE
        del self.machine.pages[base]
        if excluded:
            self.machine.excluded.add(base)
        return self.changed()

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Records of a dump file
----------------------

What an opened dump consists of: :class:`Segment`, :class:`Note`, :class:`KdumpHeader`, and
:class:`DumpFile`, which holds them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
import enum
import functools
from typing import TYPE_CHECKING, Any, Protocol

from drgn_pmem.dumpfile.bitmap import COMPRESSION
from drgn_pmem.dumpfile.coverage import Coverage, State
from drgn_pmem.record import Record, Show, shown

if TYPE_CHECKING:
    from drgn_pmem.dumpfile.source import ByteSource

__all__ = (
    "ERASED",
    "EXCLUDED_VMEMMAP",
    "HYPERVISOR_NOTES",
    "PF_DEV",
    "DumpFile",
    "DumpFormat",
    "KdumpHeader",
    "Note",
    "PhysicalMemory",
    "Segment",
)

ERASED = b"X"
"""What makedumpfile writes over every byte that it erases (erase_info.c)."""
PF_DEV = 1 << 4
"""``p_flags`` bit that marks device memory (pmem); proposed with RFC v1 of the pmem dump series,
never merged. A low bit that ELF leaves unassigned."""

HYPERVISOR_NOTES = (b"QEMU", b"PMEM-TRIM")
"""Names of notes that say that a hypervisor took the dump: QEMU's, which it does not write on all
machines, and that of ``pmem-trim`` in a dump made of one without."""

_INCOMPLETE = 0x8
"""Status flag: makedumpfile could not finish (``DUMP_DH_COMPRESSED_INCOMPLETE``)."""
EXCLUDED_VMEMMAP = 0x10
"""Status flag: ``makedumpfile -e`` left out parts of the struct page array
(``DUMP_DH_EXCLUDED_VMEMMAP``)."""


class PhysicalMemory(Protocol):
    """Memory of the crashed machine, read from the file without drgn."""

    def read(self, address: int, size: int) -> bytes:
        """
        :param address: Physical address (bytes).
        :raises DumpFileError: if one of the bytes is not saved, or its compression is not built in.
        """
        ...

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """All saved memory, as addresses and bytes; parts that are known to be zero may be left
        out."""
        ...


class DumpFormat(enum.Enum):
    """How the memory of a crashed machine is stored."""

    ELF = "elf"
    """An ELF core: /proc/vmcore, ``makedumpfile -E``, QEMU and libvirt dumps."""
    KDUMP = "kdump-compressed"
    """makedumpfile's compressed format."""
    FLATTENED = "flattened"
    """``makedumpfile -F``: one of the others, split into records for a pipe;
    :attr:`DumpFile.contained` says which."""
    IMAGE = "raw"
    """Memory and nothing else; the user says at which address."""
    LIVE = "live"
    """No file: a running kernel or a QEMU guest."""


class Segment(Record):
    """One ``PT_LOAD`` program header."""

    index: int
    """Number of the program header in the file, from 0."""
    type: str
    """Always ``"PT_LOAD"``."""
    physical: int | None = shown(Show.ADDRESS)
    """``p_paddr`` (physical address, bytes), ``None`` if it is -1: the header maps no physical
    memory."""
    virtual: int = shown(Show.ADDRESS)
    """``p_vaddr`` (kernel virtual address)."""
    file_offset: int
    """``p_offset`` (bytes)."""
    file_size: int
    """``p_filesz`` (bytes); less than ``memory_size`` if the rest was left out."""
    memory_size: int
    """``p_memsz`` (bytes)."""
    flags: int
    """``p_flags``, raw: unknown bits are kept."""

    @property
    def pmem(self) -> bool:
        """Whether the header carries ``PF_DEV``."""
        return bool(self.flags & PF_DEV)

    def to_json(self) -> dict[str, Any]:
        """Keys of ``pmem-segments``."""
        return {**super().to_json(), "pmem": self.pmem}


def _printable(name: bytes) -> str:
    text = name.decode("ascii", "backslashreplace")
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class Note(Record):
    """One ELF note, its descriptor left in the file."""

    name: bytes = shown(json=_printable)
    """Without the trailing NUL; untrusted bytes."""
    type: int
    """``n_type``, raw."""
    offset: int
    """File offset of the descriptor (bytes)."""
    size: int
    """Size of the descriptor (bytes), as the note says; the file may end before it."""


class KdumpHeader(Record):
    """Header and sub header; members that the header version does not have are 0 or ``None``."""

    signature: str
    version: int
    bits: int
    byteorder: str
    utsname: dict[str, str]
    """sysname, nodename, release, version, machine, domainname; escaped. All empty in QEMU's
    dumps."""
    timestamp: int
    """Seconds since 1970."""
    status: int
    """Flags, raw."""
    block_size: int
    """Page size (bytes)."""
    sub_header_blocks: int
    bitmap_blocks: int
    max_mapnr: int
    """PFN after the last one that the dump knows of."""
    cpus: int
    phys_base: int = shown(Show.ADDRESS)
    dump_level: int | None
    """makedumpfile's ``-d``."""
    offset_vmcoreinfo: int = shown(json=False)
    size_vmcoreinfo: int = shown(json=False)
    offset_note: int = shown(json=False)
    size_note: int = shown(json=False)
    offset_eraseinfo: int = shown(json=False)
    size_eraseinfo: int = shown(json=False)
    split: bool = shown(json=False, default=False)
    """Whether this is one file of a split dump, of pages :attr:`start_pfn` to :attr:`end_pfn`."""
    start_pfn: int = shown(json=False, default=0)
    end_pfn: int = shown(json=False, default=0)
    """Exclusive."""

    @property
    def compression(self) -> list[str]:
        """Compression that the header announces; a page may still be stored as it is."""
        return [name for flag, name in COMPRESSION.items() if self.status & flag]

    @property
    def incomplete(self) -> bool:
        """Whether the writer ran out of space."""
        return bool(self.status & _INCOMPLETE)

    def beyond_the_end(self, size: int) -> str | None:
        """
        What of the headers a file of ``size`` bytes does not hold, in words; ``None`` if it has
        all.

        libkdumpfile reads these when it opens a file, and crashes if they are not there.
        """
        places = {
            "bitmaps": (1 + self.sub_header_blocks + self.bitmap_blocks) * self.block_size,
            "notes": self.offset_note + self.size_note if self.size_note else 0,
            "VMCOREINFO": (
                self.offset_vmcoreinfo + self.size_vmcoreinfo if self.size_vmcoreinfo else 0
            ),
            "eraseinfo": self.offset_eraseinfo + self.size_eraseinfo if self.size_eraseinfo else 0,
        }
        return next((name for name, end in places.items() if end > size), None)

    @property
    def excluded_vmemmap(self) -> bool:
        """Whether ``makedumpfile -e`` was used: parts of the struct page array are left out."""
        return bool(self.status & EXCLUDED_VMEMMAP)

    def to_json(self) -> dict[str, Any]:
        """All members; PFNs, sizes and offsets as integers, ``phys_base`` as ``"0x..."``."""
        flags = {
            "compression": self.compression,
            "incomplete": self.incomplete,
            "excluded_vmemmap": self.excluded_vmemmap,
        }
        return super().to_json() | flags


# No Record: it is an open file, whose coverage and memory are found when they are asked for.
@dataclass(frozen=True, eq=False)
class DumpFile:
    """The contents of an open dump, uninterpreted."""

    path: str
    """Path as given; ``"(live)"`` if there is no file."""
    format: DumpFormat
    contained: DumpFormat
    """What is in a flattened dump; the same as :attr:`format` otherwise."""
    segments: Sequence[Segment]
    """All ``PT_LOAD`` headers, in file order; empty for formats that have none."""
    notes: Sequence[Note]
    vmcoreinfo: bytes | None
    """The text of the VMCOREINFO note, without trailing NULs; ``None`` if the dump has none."""
    incomplete: bool
    """Whether the headers are cut short, or say that the writer could not finish."""
    machine: str | None
    """``e_machine`` by name (``"EM_X86_64"``), or the machine of the header's utsname; ``None`` if
    not known."""
    byteorder: str
    """``"little"`` or ``"big"``."""
    bits: int
    """32 or 64."""
    summary: str
    """Format, size and byte order in words."""
    coverage_builder: Callable[[], Coverage] = field(repr=False)
    memory_builder: "Callable[[Coverage], PhysicalMemory] | None" = field(default=None, repr=False)
    has_sections: bool = field(default=False, repr=False)
    """Of a flattened ELF core: whether it has section headers. makedumpfile writes none but to
    count more than 65534 program headers; libkdumpfile crashes on damaged ones."""
    source: "ByteSource | None" = field(default=None, repr=False)
    """The bytes, reassembled if the file is flattened; ``None`` if live."""
    kdump: KdumpHeader | None = field(default=None, repr=False)
    """Header fields of a kdump-compressed dump."""
    erased: tuple[str, ...] = ()
    """What ``makedumpfile --config`` erased: its commands, as ERASEINFO has them; escaped. Erased
    bytes are :data:`ERASED`."""
    joined: bool = False
    """Whether several files are read as one, which drgn cannot open."""
    size_of_files: int | None = None
    """Bytes of all files together, where :attr:`path` names more than one or an address."""
    missing: tuple[tuple[int, int], ...] = ()
    """Page frames (end exclusive) that are in none of the given files of a split dump."""
    hypervisor: bool = False
    """Whether QEMU (or libvirt) took the dump, from outside of the guest."""
    physical_addresses: bool = True
    """Whether the headers give physical addresses (a core of a process has none)."""

    @classmethod
    def without_headers(
        cls,
        path: str,
        format: DumpFormat,
        summary: str,
        coverage_builder: Callable[[], Coverage],
        *,
        hypervisor: bool,
        **more: Any,
    ) -> "DumpFile":
        """Memory and nothing that describes it. The machine is not known, and the byte order is
        that of all who write or serve such memory."""
        return cls(
            path=path,
            format=format,
            contained=format,
            segments=(),
            notes=(),
            vmcoreinfo=None,
            incomplete=False,
            machine=None,
            byteorder="little",
            bits=64,
            summary=summary,
            coverage_builder=coverage_builder,
            hypervisor=hypervisor,
            **more,
        )

    @functools.cached_property
    def coverage(self) -> Coverage:
        """Which physical memory the dump holds; computed at first use."""
        return self.coverage_builder()

    @functools.cached_property
    def truncated(self) -> bool:
        """Whether the file ends before the data that its headers describe, or its writer marked it
        incomplete."""
        return self.incomplete or self.coverage.has(State.TRUNCATED)

    @functools.cached_property
    def lost_pages(self) -> bool:
        """Whether pages that its headers describe cannot be read: truncated or damaged. drgn's own
        reader, which maps the file, may end the process at one."""
        return self.truncated or self.coverage.has(State.DAMAGED)

    @property
    def in_place(self) -> bool:
        """Whether drgn gets the memory instead of the file: a raw image, the files of a split dump,
        or a flattened file that libkdumpfile refuses (it is cut short) or may crash on."""
        special = self.format is DumpFormat.IMAGE or self.joined
        return special or not self.source_complete or self.has_sections

    @property
    def source_complete(self) -> bool:
        """Whether the container of a flattened dump has its end mark; true of other formats."""
        return self.source is None or self.source.complete

    @property
    def description(self) -> str:
        """One line for a user."""
        return self.summary + (", incomplete" if self.truncated else "")

    @functools.cached_property
    def memory(self) -> "PhysicalMemory | None":
        """The saved memory; ``None`` for a live target."""
        return None if self.memory_builder is None else self.memory_builder(self.coverage)

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the file at an offset; short at its end, empty for a live target."""
        return self.source.read(offset, size) if self.source is not None else b""

    @property
    def size(self) -> int:
        """Bytes of the file, reassembled if it is flattened; 0 for a live target."""
        return self.source.size if self.source is not None else 0

    def is_erased(self, data: bytes) -> bool:
        """Whether bytes of memory are all those that makedumpfile writes where it erases."""
        return bool(self.erased) and len(data) > 0 and data == ERASED * len(data)

    def note_data(self, note: Note, limit: int = 1 << 20) -> bytes:
        """Descriptor of a note, at most ``limit`` bytes."""
        return self.read(note.offset, min(note.size, limit))

    def to_json(self) -> dict[str, Any]:
        """The facts of the file, without its segments and coverage."""
        return {
            "path": self.path,
            "format": self.format.value,
            "contained": self.contained.value,
            "description": self.description,
            "machine": self.machine,
            "bits": self.bits,
            "byteorder": self.byteorder,
            "segments": len(self.segments),
            "vmcoreinfo": self.vmcoreinfo is not None,
            "truncated": self.truncated,
            "kdump": self.kdump.to_json() if self.kdump is not None else None,
        }

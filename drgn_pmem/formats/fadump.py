# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Crash info header of a firmware-assisted dump
---------------------------------------------

``struct fadump_crash_info_header`` (:linux:`arch/powerpc/include/asm/fadump-internal.h`), in the
byte order of the kernel that crashed. There are three layouts: ``FADMPINF`` until Linux 6.9;
``FADMPSIG`` from 6.10 on; and that of version 7 of the patches, which never was merged but has the
magic and the version number of the merged one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any

from drgn_pmem.errors import FormatError
from drgn_pmem.formats.clayout import ByteOrder, CLayout
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "FADUMP_CPU_UNKNOWN",
    "LAYOUTS",
    "FadumpHeader",
    "build_fadump_header",
    "find_fadump_headers",
    "parse_fadump_header",
)

FADUMP_CPU_UNKNOWN = 0xFFFFFFFF

MAGIC_OLD = int.from_bytes(b"FADMPINF", "big")
MAGIC = int.from_bytes(b"FADMPSIG", "big")
_ORDERS: tuple[ByteOrder, ByteOrder] = ("little", "big")

# struct pt_regs regs; struct cpumask cpu_mask (online_mask in FADMPINF) follow each of them.
HEADER_LAYOUT = CLayout("""
struct FADMPINF {
    uint64_t magic_number;
    uint64_t elfcorehdr_addr;
    uint32_t crashing_cpu;
    uint32_t pad;               /* struct pt_regs is aligned to 8 bytes */
};

struct FADMPSIG {
    uint64_t magic_number;
    uint32_t version;
    uint32_t crashing_cpu;
    uint64_t vmcoreinfo_raddr;
    uint64_t vmcoreinfo_size;
    uint32_t pt_regs_sz;
    uint32_t cpu_mask_sz;
};

struct FADMPSIG_v7 {
    uint64_t magic_number;
    uint32_t version;
    uint32_t crashing_cpu;
    uint64_t elfcorehdr_addr;
    uint64_t elfcorehdr_size;
    uint64_t vmcoreinfo_raddr;
    uint64_t vmcoreinfo_size;
    uint32_t pt_regs_sz;
    uint32_t cpu_mask_sz;
};
""")

LAYOUTS = {"FADMPINF": "FADMPINF", "FADMPSIG": "FADMPSIG", "FADMPSIG-v7": "FADMPSIG_v7"}
"""Layout -> name of its structure."""


class FadumpHeader(Record):
    """``struct fadump_crash_info_header``; ``None`` is a field that the layout does not have."""

    layout: str
    byteorder: ByteOrder
    crashing_cpu: int
    """Logical CPU; on OPAL the PIR; :data:`FADUMP_CPU_UNKNOWN` before a crash."""
    version: int | None = None
    elfcorehdr_addr: int | None = shown(Show.ADDRESS, default=None)
    elfcorehdr_size: int | None = None
    vmcoreinfo_raddr: int | None = shown(Show.ADDRESS, default=None)
    """Physical address to which firmware moves the vmcoreinfo note."""
    vmcoreinfo_size: int | None = None
    pt_regs_sz: int | None = None
    cpu_mask_sz: int | None = None
    regs: bytes = dataclasses.field(default=b"", repr=False)
    """``struct pt_regs`` of the crashing CPU as it is; empty if its size is not known."""
    cpu_mask: bytes = dataclasses.field(default=b"", repr=False)

    @property
    def size(self) -> int:
        """Bytes of the header with its registers and mask, as far as they are known."""
        return HEADER_LAYOUT.size(LAYOUTS[self.layout]) + len(self.regs) + len(self.cpu_mask)

    @property
    def crashed(self) -> bool:
        """A CPU has registered itself as the crashing one."""
        return self.crashing_cpu != FADUMP_CPU_UNKNOWN

    @property
    def cpus(self) -> tuple[int, ...]:
        """CPUs in the mask: the online ones at a crash, before it the possible ones."""
        words = (self.cpu_mask[at : at + 8] for at in range(0, len(self.cpu_mask), 8))
        return tuple(
            64 * index + bit
            for index, word in enumerate(int.from_bytes(word, self.byteorder) for word in words)
            for bit in range(64)
            if word >> bit & 1
        )

    @property
    def fields(self) -> dict[str, int]:
        """The numbers that this layout has, under the kernel's names."""
        names = [field.name for field in dataclasses.fields(self)][2:-2]
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def to_json(self) -> dict[str, Any]:
        addresses = ("elfcorehdr_addr", "vmcoreinfo_raddr")
        fields: dict[str, Any] = {
            name: f"{value:#x}" if name in addresses else value
            for name, value in self.fields.items()
        }
        if not self.crashed:
            fields["crashing_cpu"] = None
        return {
            "layout": self.layout,
            "byteorder": self.byteorder,
            "fields": fields,
            "cpus": list(self.cpus),
            "regs": self.regs.hex(),
        }


def _sizes_match(members: dict[str, Any], pt_regs_sz: int | None, cpu_mask_sz: int | None) -> bool:
    regs, mask = members["pt_regs_sz"], members["cpu_mask_sz"]
    if pt_regs_sz is not None and cpu_mask_sz is not None:
        return (regs, mask) == (pt_regs_sz, cpu_mask_sz)
    # 44 registers at least (struct user_pt_regs); NR_CPUS is at most 8192.
    return 352 <= regs <= 1024 and 8 <= mask <= 1024 and regs % 8 == mask % 8 == 0


def parse_fadump_header(
    data: bytes,
    *,
    pt_regs_sz: int | None = None,
    cpu_mask_sz: int | None = None,
    lenient: bool = False,
) -> FadumpHeader:
    """
    Decode a header of any layout in either byte order.

    The merged layout and that of version 7 are distinguished by where the two sizes are. If they
    are in neither place, the header is damaged and decoded as the merged one, without registers.

    :param pt_regs_sz: ``sizeof(struct pt_regs)`` of the kernel in bytes, if it is known; without it
        registers and mask of a ``FADMPINF`` header stay empty, as that does not say how long they
        are.
    :param cpu_mask_sz: ``sizeof(struct cpumask)`` in bytes, likewise.
    :param lenient: Where the sizes in the header reach beyond *data*, leave registers and mask
        empty instead of refusing the header: one of the sizes is damaged.
    :raises FormatError: if the magic is none, or the bytes end too early.
    """
    magics = {int.from_bytes(data[:8], order): order for order in _ORDERS}
    if byteorder := magics.get(MAGIC_OLD):
        layout = "FADMPINF"
    elif byteorder := magics.get(MAGIC):
        layout = "FADMPSIG"
    else:
        raise FormatError(
            f"not a fadump header: the magic is {bytes(data[:8])!r}, neither FADMPINF nor FADMPSIG"
        )
    members = HEADER_LAYOUT.unpack(LAYOUTS[layout], data, 0, byteorder)
    if layout == "FADMPINF":
        regs, mask = pt_regs_sz or 0, cpu_mask_sz or 0
        del members["pad"]
    else:
        # What the merged layout takes for the sizes is vmcoreinfo_raddr in version 7.
        if not _sizes_match(members, pt_regs_sz, cpu_mask_sz) and len(data) >= HEADER_LAYOUT.size(
            "FADMPSIG_v7"
        ):
            other = HEADER_LAYOUT.unpack("FADMPSIG_v7", data, 0, byteorder)
            if _sizes_match(other, pt_regs_sz, cpu_mask_sz):
                layout, members = "FADMPSIG-v7", other
        regs, mask = members["pt_regs_sz"], members["cpu_mask_sz"]
        if not _sizes_match(members, None, None):
            regs = mask = 0
    del members["magic_number"]
    start = HEADER_LAYOUT.size(LAYOUTS[layout])
    if len(data) < start + regs + mask:
        if lenient:
            return FadumpHeader(layout=layout, byteorder=byteorder, **members)
        raise FormatError(
            f"the fadump header is cut short: {len(data)} of {start + regs + mask} bytes"
        )
    return FadumpHeader(
        layout=layout,
        byteorder=byteorder,
        **members,
        regs=bytes(data[start : start + regs]),
        cpu_mask=bytes(data[start + regs : start + regs + mask]),
    )


def build_fadump_header(header: FadumpHeader) -> bytes:
    """
    The bytes of a header.

    :raises FormatError: if the layout is unknown or a field does not fit.
    """
    if header.layout not in LAYOUTS:
        raise FormatError(f"{header.layout!r} is not a layout of a fadump header")
    magic = MAGIC_OLD if header.layout == "FADMPINF" else MAGIC
    data = HEADER_LAYOUT.pack(
        LAYOUTS[header.layout], {"magic_number": magic, **header.fields}, header.byteorder
    )
    return data + header.regs + header.cpu_mask


def find_fadump_headers(
    read: Callable[[int, int], bytes | None], start: int, end: int
) -> Iterator[tuple[int, FadumpHeader]]:
    """
    Scan physical memory for headers, with no debug info: the magics in both orders at each multiple
    of 4096, and a consistent layout (plausible sizes; for ``FADMPINF``, an ELF header right after
    it).

    :param read: ``read(address, size)`` gives the bytes, or ``None`` (or fewer) where the dump does
        not hold them.
    :param end: Exclusive.
    :return: Physical address and header.
    """
    magics = {magic.to_bytes(8, order) for magic in (MAGIC_OLD, MAGIC) for order in _ORDERS}
    chunk = 1 << 20
    address = -(-start // 4096) * 4096
    while address < end:
        size = min(chunk, end - address)
        data = read(address, size)
        for at in range(0, size, 4096):
            magic = read(address + at, 8) if data is None else data[at : at + 8]
            if magic in magics and (header := _verified(read, address + at)):
                yield address + at, header
        address += size


def _verified(read: Callable[[int, int], bytes | None], address: int) -> FadumpHeader | None:
    data = read(address, 4096)
    if data is None:
        return None
    try:
        header = parse_fadump_header(data)
    except FormatError:
        return None  # a chance hit of the magic number: the search goes on
    if header.elfcorehdr_addr is not None and header.layout == "FADMPINF":
        distance = header.elfcorehdr_addr - address
        if not 24 + 352 < distance <= 24 + 2048 or read(header.elfcorehdr_addr, 4) != b"\x7fELF":
            return None
    elif not header.regs:
        return None
    return header

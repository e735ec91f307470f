# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Naming a page
-------------

What users type for a page: a PFN out of a "Memory failure" message, a physical address out of a
machine check, a pointer out of a backtrace, an offset in a namespace, a bad sector of a block
device. A bare number could be several of those; which reading was taken is part of the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
import re
from typing import Any

from drgn import Program

from drgn_pmem.dumpfile import State, coverage_of
from drgn_pmem.errors import NotFound, PmemError, UsageError
from drgn_pmem.kernel.dm import dm_pieces, sector_below
from drgn_pmem.kernel.iomem import IORESOURCE_SYSTEM_RAM, PERSISTENT_MEMORY, for_each_iomem
from drgn_pmem.kernel.kmod import has_kernel_debug_info, how_to_get_kernel
from drgn_pmem.kernel.namespace import Namespace, find_namespace, for_each_namespace
from drgn_pmem.kernel.page_layout import page_layout
from drgn_pmem.kernel.pgmap import for_each_pgmap
from drgn_pmem.kernel.walk import collect
from drgn_pmem.ranges import Range

__all__ = ("PageAddress", "parse_page", "resolve_page")

_SECTOR = 512
_MAX_DIGITS = 40
_NUMBER = r"0[xX][0-9a-fA-F]+|[0-9]+"
_DEVICE = re.compile(rf"(?P<device>[A-Za-z][\w.\-]*)(?P<how>[+:])(?P<number>{_NUMBER})")


@dataclass(frozen=True)
class PageAddress:
    """A page that a user named, and how it was understood."""

    pfn: int
    kind: str
    """``"pfn"``, ``"physical"``, ``"page"`` (struct page), ``"offset"`` (in a namespace's data),
    ``"sector"``."""
    text: str
    """What the user typed."""
    note: str | None = None
    """Which reading was taken, where there was a choice."""

    def to_json(self) -> dict[str, Any]:
        return {"pfn": self.pfn, "kind": self.kind, "text": self.text, "note": self.note}


def parse_page(prog: Program, text: str) -> int:
    """
    PFN of the page that a user named.

    :param text: see :func:`resolve_page`
    :return: PFN
    :raises UsageError: if the text is none of the forms
    :raises NotFound: if it names a place that the machine does not have
    """
    return resolve_page(prog, text).pfn


def resolve_page(prog: Program, text: str) -> PageAddress:
    """
    Find out which page a user means.

    :param text: PFN, physical address or virtual address of a struct page (decimal or 0x);
        ``namespace0.0+0x1000``, ``pmem0+0x1000``, ``dax0.0+0x1000``: bytes into the data of a
        namespace (what the block or DAX device counts from); ``pmem0:8``, ``dm-0:8``: 512-byte
        sector (of a dm disk, through its linear targets).
    :raises UsageError: if the text is none of the forms
    :raises NotFound: if it names a place that the machine does not have
    """
    word = text.strip()
    match = _DEVICE.fullmatch(word)
    if match:
        number = _integer(match["number"])
        return _in_device(prog, word, match["device"], match["how"], number)
    if not re.fullmatch(_NUMBER, word):
        raise UsageError(
            f"{word!r} names no page: give a PFN, a physical address, the address of a struct "
            "page, NAMESPACE+OFFSET or DEVICE:SECTOR (numbers decimal or 0x)"
        )
    return _number(prog, word, _integer(word))


def _integer(digits: str) -> int:
    """Decimal or 0x; leading zeroes are decimal."""
    # Longer ones also run into the interpreter's own limit.
    if len(digits) > _MAX_DIGITS:
        raise UsageError(f"{digits[:_MAX_DIGITS]}...: more than 64 bits is no PFN and no address")
    value = int(digits, 16) if digits[:2].lower() == "0x" else int(digits, 10)
    if value >> 64:
        raise UsageError(f"{digits}: more than 64 bits is no PFN and no address")
    return value


def _number(prog: Program, text: str, value: int) -> PageAddress:
    layout = page_layout(prog)
    if value >> 63:
        pfn = layout.pfn(value - (value - layout.vmemmap) % layout.size)
        memory = [r for _, ranges in _known_memory(prog) for r in ranges]
        if pfn is None or not any(pfn << layout.page_shift in r for r in memory):
            raise UsageError(f"{text} is a kernel address, but not that of a struct page")
        inside = (value - layout.vmemmap) % layout.size
        note = f"{inside} bytes into the struct page of PFN {pfn:#x}" if inside else None
        return PageAddress(pfn, "page", text, note)
    as_pfn, as_physical = value << layout.page_shift, value
    if not _known_memory(prog):
        # Nothing tells a PFN from a physical address but the dump's own memory.
        if coverage_of(prog).state(as_pfn) is State.ABSENT:
            raise NotFound(
                f"{text}: what memory there was is not known (iomem_resource cannot be read), and"
                f" the dump has no page with this PFN{_without_kernel(prog)}"
            )
        return PageAddress(value, "pfn", text, f"{text} taken as a PFN of the dump's memory")
    for what, ranges in _known_memory(prog):
        if any(as_pfn in r for r in ranges):
            note = f"{text} taken as a PFN ({what}, physical {as_pfn:#x})"
            if any(as_physical in r for r in ranges):
                note += f"; as a physical address it would be PFN {value >> layout.page_shift:#x}"
            return PageAddress(value, "pfn", text, note)
        if any(as_physical in r for r in ranges):
            pfn = value >> layout.page_shift
            note = f"{text} taken as a physical address ({what}, PFN {pfn:#x})"
            return PageAddress(pfn, "physical", text, note)
    raise NotFound(
        f"{text}: no memory there, neither as a PFN nor as a physical address "
        "(pmem-namespaces shows the ranges of persistent memory)"
    )


def _without_kernel(prog: Program) -> str:
    if has_kernel_debug_info(prog):
        return ""
    return f": no debug info of the kernel: {how_to_get_kernel(prog)}"


def _known_memory(prog: Program) -> Sequence[tuple[str, list[Range]]]:
    """Physical ranges by what they are, persistent memory first; empty if no one tells."""
    cached = prog.cache.get("drgn_pmem.known_memory")
    if cached is None:
        page_maps = collect(for_each_pgmap(prog))[0]
        resources, problems = collect(for_each_iomem(prog))
        pmem = [r for pgmap in page_maps for r in pgmap.ranges]
        pmem += [r.range for r in resources if r.desc in PERSISTENT_MEMORY]
        ram = [
            r.range for r in resources if r.flags & IORESOURCE_SYSTEM_RAM == IORESOURCE_SYSTEM_RAM
        ]
        cached = (("persistent memory", pmem), ("RAM", ram)) if pmem or not problems else ()
        prog.cache["drgn_pmem.known_memory"] = cached
    return cached


def _in_device(prog: Program, text: str, device: str, how: str, number: int) -> PageAddress:
    offset = number * _SECTOR if how == ":" else number
    device, offset, way = _below(prog, text, device, offset)
    namespace = _find_device(prog, device)
    if namespace.data_offset is None and namespace.mode != "sector":
        raise NotFound(f"{text}: where the data of {namespace.dev} begins is not known")
    start = namespace.resource + (namespace.data_offset or 0)
    size = namespace.size if namespace.size is not None else namespace.raw_size
    if offset >= size:
        raise NotFound(
            f"{text}: {device} ends at byte {size:#x}"
            + (f" (sector {size // _SECTOR})" if how == ":" else "")
        )
    if namespace.mode == "sector":
        raise UsageError(
            f"{text}: {device} is in sector mode; its block layout (BTT) does not tell from an "
            "offset which page holds it"
        )
    pfn = (start + offset) >> page_layout(prog).page_shift
    kind = "sector" if how == ":" else "offset"
    note = f"{start:#x} (data of {namespace.dev}) + {offset:#x} = physical {start + offset:#x}"
    return PageAddress(pfn, kind, text, way + note)


def _below(prog: Program, text: str, device: str, offset: int) -> tuple[str, int, str]:
    """Device under a dm disk, offset there, and the way in words; the same for all others."""
    sector, rest = divmod(offset, _SECTOR)
    below = sector_below(prog, device, sector)
    place = below.whole() if device.startswith("dm-") else below.value
    if place is None:
        raise NotFound(
            f"{text}: sector {sector} of {device} lies on no linear target "
            "(what other targets of device mapper do with it is not known here)"
        )
    if place == (device, sector):
        return device, offset, ""
    way = f"sector {sector} of {device} is sector {place[1]} of {place[0]}; "
    return place[0], place[1] * _SECTOR + rest, way


def _find_device(prog: Program, name: str) -> Namespace:
    if name.startswith("namespace"):
        return find_namespace(prog, name)
    namespaces, problems = collect(for_each_namespace(prog))
    for namespace in namespaces:
        if name in (namespace.blockdev, namespace.chardev):
            return namespace
    known = [n.blockdev or n.chardev or n.dev for n in namespaces]
    if name.startswith("dm-"):
        problems += map(str, dm_pieces(prog).problems)
    if problems and (not known or name.startswith("dm-")):
        raise PmemError(f"no device {name} is known: {problems[0]}")
    raise NotFound(f"no device {name}; there are {', '.join(sorted(known)) or 'none'}")

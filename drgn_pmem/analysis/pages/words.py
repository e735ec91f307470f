# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Naming a page
-------------

What users type for a page: a PFN from a "Memory failure" message, a physical address from a
machine check, a pointer from a backtrace, an offset in a namespace, a bad sector of a block
device. A bare number could be several of those: the answer says which was assumed, and has a
problem where the dump lacks what would decide it.
"""

from collections.abc import Iterable
import enum
import re

from drgn import Program

from drgn_pmem.analysis.inventory.daxonly import dax_without_namespace
from drgn_pmem.analysis.inventory.names import namespace_called
from drgn_pmem.dumpfile import State, coverage_of
from drgn_pmem.errors import NotFound, UsageError
from drgn_pmem.kernel.dax import DaxDevice, for_each_dax_region
from drgn_pmem.kernel.dm import dm_pieces, sector_below, target_at
from drgn_pmem.kernel.iomem import IORESOURCE_SYSTEM_RAM, PERSISTENT_MEMORY, for_each_iomem
from drgn_pmem.kernel.namespace import Namespace, for_each_namespace
from drgn_pmem.kernel.page import pages_pgmap
from drgn_pmem.kernel.page_layout import page_layout
from drgn_pmem.kernel.partitions import partitions_of
from drgn_pmem.partial import Cause, Incomplete, Partial, Problem, Problems
from drgn_pmem.ranges import RangeSet
from drgn_pmem.record import Record

__all__ = ("PageAddress", "Reading", "parse_page", "resolve_page")

_SECTOR = 512
_FIRST = 2
"""Kinds of memory that are meant before all others: persistent memory, DAX memory."""
_MAX_DIGITS = 40
_NUMBER = r"0[xX][0-9a-fA-F]+|[0-9]+"
_FORCED = re.compile(rf"(?P<how>pfn|phys):(?P<number>{_NUMBER})")
_DEVICE = re.compile(rf"(?:/dev/)?(?P<device>[A-Za-z][\w.\-]*)(?P<how>[+:])(?P<number>{_NUMBER})")


class Reading(enum.Enum):
    """How a user named a page."""

    PFN = "pfn"
    PHYSICAL = "physical"
    PAGE = "page"
    """Address of its struct page."""
    OFFSET = "offset"
    """Bytes into the data of a namespace."""
    SECTOR = "sector"
    """512-byte sector of a block device."""


class PageAddress(Record):
    """A page that a user named, and how it was understood."""

    pfn: int
    kind: Reading
    text: str
    """What the user typed."""
    note: str | None = None
    """Which reading was taken, where there was a choice."""


def parse_page(prog: Program, text: str) -> int:
    """
    PFN of the page that a user named.

    :param text: see :func:`resolve_page`
    :return: PFN
    :raises UsageError: if the text is none of the forms
    :raises NotFound: if it names a place that the machine does not have
    :raises Incomplete: if the dump does not hold what would decide which page is meant
    """
    return resolve_page(prog, text).whole().pfn


def resolve_page(prog: Program, text: str) -> Partial[PageAddress]:
    """
    Find out which page a user means.

    :param text: PFN, physical address or virtual address of a struct page (decimal or 0x);
        ``pfn:0x1234``, ``phys:0x1234000``: the same without a choice; ``namespace0.0+0x1000``,
        ``pmem0+0x1000``, ``dax0.0+0x1000``: bytes into the data of a namespace (what the block
        device counts from) or of a DAX device; ``pmem0:8``, ``/dev/pmem0:8``, ``pmem2p1:8``,
        ``dm-0:8``: 512-byte sector of a disk, of a partition (counted from its own start), of a dm
        disk (through its linear targets).
    :return: The page; the problems say what would decide between two readings and is missing.
    :raises UsageError: if the text is none of the forms
    :raises NotFound: if it names a place that the machine does not have
    :raises Incomplete: if the dump does not hold what would say whether the machine has it
    """
    word = text.strip()
    if forced := _FORCED.fullmatch(word):
        value = _integer(forced["number"])
        shift = int(prog["PAGE_SHIFT"])
        _refuse_no_memory(prog, word, value << shift if forced["how"] == "pfn" else value)
        if forced["how"] == "pfn":
            return Partial(PageAddress(pfn=value, kind=Reading.PFN, text=word))
        pfn = value >> shift
        return Partial(PageAddress(pfn=pfn, kind=Reading.PHYSICAL, text=word))
    if match := _DEVICE.fullmatch(word):
        number = _integer(match["number"])
        return Partial(_in_device(prog, word, match["device"], match["how"], number))
    if not re.fullmatch(_NUMBER, word):
        raise UsageError(
            f"{word!r} names no page: give a PFN, a physical address, the address of a struct "
            "page, NAMESPACE+OFFSET or DEVICE:SECTOR (numbers decimal or 0x)"
        )
    value = _integer(word)
    return _struct_page(prog, word, value) if value >> 63 else _number(prog, word, value)


def _integer(digits: str) -> int:
    """Decimal or 0x; leading zeroes are decimal."""
    # Longer ones also run into the interpreter's own limit.
    if len(digits) > _MAX_DIGITS:
        raise UsageError(f"{digits[:_MAX_DIGITS]}...: more than 64 bits: not a PFN or address")
    value = int(digits, 16) if digits[:2].lower() == "0x" else int(digits, 10)
    if value >> 64:
        raise UsageError(f"{digits}: more than 64 bits: not a PFN or address")
    return value


def _incomplete(text: str, problems: Iterable[Problem]) -> Incomplete:
    """Whether the machine has what the user named is not known."""
    return Incomplete(problem.about(text) for problem in problems if problem.degrades)


def _struct_page(prog: Program, text: str, value: int) -> Partial[PageAddress]:
    layout = page_layout(prog)
    inside = (value - layout.vmemmap) % layout.size
    pfn = layout.pfn(value - inside)
    problems = Problems()
    known = problems.take(_known_memory(prog))
    if pfn is None or not any(pfn << layout.page_shift in ranges for _, ranges in known):
        if problems:
            raise _incomplete(text, problems)
        raise UsageError(f"{text} is a kernel address, but not that of a struct page")
    note = f"{inside} bytes into the struct page of PFN {pfn:#x}" if inside else None
    return Partial(PageAddress(pfn=pfn, kind=Reading.PAGE, text=text, note=note))


def _number(prog: Program, text: str, value: int) -> Partial[PageAddress]:
    shift = int(prog["PAGE_SHIFT"])
    as_pfn, as_physical = value << shift, value
    problems = Problems()
    known = problems.take(_known_memory(prog))
    for place, (what, ranges) in enumerate(known):
        if as_pfn in ranges:
            note = f"{text} taken as a PFN ({what}, physical {as_pfn:#x})"
            if as_physical in ranges:
                note += f"; as a physical address it would be PFN {value >> shift:#x}"
            found = PageAddress(pfn=value, kind=Reading.PFN, text=text, note=note)
            # A PFN of persistent memory or of DAX memory: nothing overrules it.
            return Partial(found) if place < _FIRST else problems.partial(found)
        if as_physical in ranges:
            note = f"{text} taken as a physical address ({what}, PFN {value >> shift:#x})"
            return problems.partial(
                PageAddress(pfn=value >> shift, kind=Reading.PHYSICAL, text=text, note=note)
            )
    if not problems:
        raise NotFound(
            f"{text} is not memory: as a PFN {_what_is(prog, as_pfn)}, as a physical address "
            f"{_what_is(prog, as_physical)} (pmem-namespaces shows the ranges of persistent memory)"
        )
    # Nothing distinguishes a PFN from a physical address but the dump's own memory.
    coverage = coverage_of(prog)
    if coverage.state(as_pfn) is State.ABSENT:
        raise _incomplete(
            f"{text}: the dump has no page with this PFN, and the memory map is unknown",
            problems,
        )
    note = f"{text} taken as a PFN of the dump's memory"
    found = PageAddress(pfn=value, kind=Reading.PFN, text=text, note=note)
    if coverage.state(as_physical) is not State.ABSENT:
        problems.add(
            Problem(
                cause=Cause.NOT_SAVED,
                what=text,
                why="could be a PFN or a physical address: prefix it with pfn: or phys:",
            )
        )
    return problems.partial(found)


def _refuse_no_memory(prog: Program, text: str, physical: int) -> None:
    """
    Refuse an address that is known to be no memory.

    :raises NotFound: saying what it is
    """
    problems = Problems()
    known: tuple[tuple[str, RangeSet], ...] = ()
    with problems.trying(text):
        known = problems.take(_known_memory(prog))
    # Where not all memory is known, it may be some.
    if not problems and not any(physical in ranges for _, ranges in known):
        raise NotFound(
            f"{text} is no memory: physical {physical:#x} is {_what_is(prog, physical)} "
            "(pmem-namespaces shows the ranges of persistent memory)"
        )


def _what_is(prog: Program, physical: int) -> str:
    """What iomem has at an address that is not memory: the innermost resource."""
    # not a problem: the caller has taken those of iomem
    resources = Problems().take(for_each_iomem(prog))
    found = [r for r in resources if physical in r.range]
    return f'"{max(found, key=lambda r: r.depth).name}"' if found else "nothing"


def _known_memory(prog: Program) -> Partial[tuple[tuple[str, RangeSet], ...]]:
    """Physical ranges by what they are, persistent memory first; kept in ``prog.cache``."""
    cached = prog.cache.get("drgn_pmem.known_memory")
    if cached is None:
        problems = Problems()
        pgmaps = problems.take(pages_pgmap(prog))
        dax = [r for pgmap in pgmaps if pgmap.is_dax for r in pgmap.ranges]
        device = [r for pgmap in pgmaps if not pgmap.is_dax for r in pgmap.ranges]
        resources = problems.take(for_each_iomem(prog))
        pmem = [r.range for r in resources if r.desc in PERSISTENT_MEMORY]
        ram = [
            r.range for r in resources if r.flags & IORESOURCE_SYSTEM_RAM == IORESOURCE_SYSTEM_RAM
        ]
        # Soft-reserved and volatile CXL memory, and virtiofs' DAX window, are not persistent.
        kinds = (
            ("persistent memory", pmem),
            ("DAX memory", dax),
            ("RAM", ram),
            ("device memory", device),
        )
        cached = problems.partial(tuple((what, RangeSet(ranges)) for what, ranges in kinds))
        prog.cache["drgn_pmem.known_memory"] = cached
    return cached


def _in_device(prog: Program, text: str, device: str, how: str, number: int) -> PageAddress:
    offset = number * _SECTOR if how == ":" else number
    device, offset, way = _below(prog, text, device, offset)
    namespace = _find_device(prog, device)
    if isinstance(namespace, DaxDevice):
        return _in_dax_device(prog, text, namespace, offset)
    if namespace.data_offset is None and namespace.mode != "sector":
        raise NotFound(f"{text}: the start of the data of {namespace.dev} is unknown")
    start = namespace.resource + (namespace.data_offset or 0)
    size = namespace.size if namespace.size is not None else namespace.raw_size
    if offset >= size:
        raise NotFound(
            f"{text}: {device} ends at byte {size:#x}"
            + (f" (sector {size // _SECTOR})" if how == ":" else "")
        )
    if namespace.mode == "sector":
        raise UsageError(
            f"{text}: {device} is in sector mode; its block layout (BTT) does not say which page "
            "holds an offset"
        )
    pfn = (start + offset) >> int(prog["PAGE_SHIFT"])
    kind = Reading.SECTOR if how == ":" else Reading.OFFSET
    note = f"{start:#x} (data of {namespace.dev}) + {offset:#x} = physical {start + offset:#x}"
    return PageAddress(pfn=pfn, kind=kind, text=text, note=way + note)


def _in_dax_device(prog: Program, text: str, device: DaxDevice, offset: int) -> PageAddress:
    before = 0
    for part in device.ranges:
        if offset < before + part.size:
            physical = part.start + offset - before
            note = f"{offset:#x} of {device.chardev} = physical {physical:#x}"
            pfn = physical >> int(prog["PAGE_SHIFT"])
            return PageAddress(pfn=pfn, kind=Reading.OFFSET, text=text, note=note)
        before += part.size
    raise NotFound(f"{text}: {device.chardev} ends at byte {before:#x}")


def _below(prog: Program, text: str, device: str, offset: int) -> tuple[str, int, str]:
    """Device under a partition or dm disk, the offset on it, and how it was found; other devices
    unchanged."""
    problems = Problems()
    way = ""
    partitions = problems.take(partitions_of(prog))
    partition = next((p for p in partitions if p.name == device), None)
    if partition is not None:
        if offset >= partition.sectors * _SECTOR:
            raise NotFound(f"{text}: {device} ends at sector {partition.sectors}")
        way = f"{device} begins at sector {partition.start} of {partition.disk}; "
        device, offset = partition.disk, offset + partition.start * _SECTOR
    elif re.fullmatch(r"pmem.*[0-9]s?p[0-9]+", device) and problems:
        raise _incomplete(f"{text}: the start of {device} is unknown", problems)
    problems = Problems()
    sector, rest = divmod(offset, _SECTOR)
    place = problems.take(sector_below(prog, device, sector))
    if place is None and problems:
        raise _incomplete(f"{text}: where sector {sector} of {device} is, is unknown", problems)
    if place is None:
        target = problems.take(target_at(prog, device, sector))
        raise NotFound(
            f"{text}: sector {sector} of {device} is on "
            + (f'a target of type "{target}"' if target else "no target")
            + " of device mapper: only linear targets can be followed"
        )
    if place == (device, sector):
        return device, offset, way
    way += f"sector {sector} of {device} is sector {place[1]} of {place[0]}; "
    return place[0], place[1] * _SECTOR + rest, way


def _find_device(prog: Program, name: str) -> Namespace | DaxDevice:
    """Namespace by any of its names; a DAX device that has none, or not alone."""
    problems = Problems()
    namespaces = problems.take(for_each_namespace(prog))
    found = namespace_called(namespaces, name)
    if found is not None and (found.daxregion is None or len(found.daxregion.devices) < 2):
        return found
    if re.fullmatch(r"dax\d+\.\d+", name):
        regions = problems.take(for_each_dax_region(prog))
        devices = [device for region in regions for device in region.devices]
        device = next((device for device in devices if device.chardev == name), None)
        if device is not None:
            return device
    if found is not None:
        return found
    if name.startswith("dm-"):
        problems.take(dm_pieces(prog))
    if problems:
        raise _incomplete(f"no device {name} was found", problems)
    # not a problem: beside the namespaces' these are named as far as they can be
    others = Problems().take(dax_without_namespace(prog))
    known = sorted(n.blockdev or n.chardev or n.dev for n in (*namespaces, *others))
    raise NotFound(f"no device {name}; there are {', '.join(known) or 'none'}")

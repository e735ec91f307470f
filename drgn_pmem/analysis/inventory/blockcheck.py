# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Checks of info blocks
---------------------

Whether the kernel would accept an info block in its namespace, by the checks of
:mod:`drgn_pmem.formats.refusal`, with what the kernel knows of the namespace: its uuid, size, claim
class and ``force_raw``.
"""

from collections.abc import Callable

from drgn import Architecture, FaultError, Program

from drgn_pmem.dumpfile import coverage_of, vmcoreinfo_of
from drgn_pmem.errors import FormatError
from drgn_pmem.formats.btt import BttArena, parse_btt
from drgn_pmem.formats.infoblock import (
    INFO_BLOCK_OFFSET,
    INFO_BLOCK_SIZE,
    FoundInfoBlock,
    InfoBlock,
    data_range,
)
from drgn_pmem.formats.refusal import Check, Refusal, check_arena, check_infoblock
from drgn_pmem.kernel.debuginfo import has_member, has_type
from drgn_pmem.kernel.namespace import Namespace
from drgn_pmem.partial import Problems

__all__ = ("BlockCheck", "data_of", "physical_reader")

_MIB = 1 << 20
_X86_ALIGNMENTS = (4096, 2 * _MIB, 1024 * _MIB)
"""What ``nd_pfn_supported_alignments()`` can have on x86_64: pages, PMDs, PUDs."""


def physical_reader(prog: Program, problems: Problems) -> Callable[[int, int], bytes | None]:
    """
    ``read(address, size)`` of physical memory: None unless the dump holds every byte.

    :param problems: Gets a read that fails although the dump has the bytes.
    """
    coverage = coverage_of(prog)

    def read(address: int, size: int) -> bytes | None:
        if not coverage.saved(address, size):
            return None  # which is no problem in itself: the caller knows what it lacks
        try:
            return prog.read(address, size, True)
        except FaultError as error:
            problems.add(error, f"physical memory at {address:#x}")
            return None

    return read


def data_of(block: InfoBlock, start: int, page_size: int | None) -> tuple[int, int] | None:
    """
    Physical range of the user data, end exclusive; None for a block that does not name its page
    size (before version 1.4) of a kernel whose page size is not known.

    :param start: Physical address of the namespace.
    :param page_size: Of the crashed kernel, bytes.
    """
    if page_size is None and block.version_minor < 4:
        return None
    # data_range() takes the block's own page size where it has one.
    return data_range(block, start, page_size or block.page_size)


class BlockCheck:
    """
    Checks info blocks as the crashed kernel would.

    :param read: As :func:`physical_reader` gives it.
    """

    def __init__(
        self, prog: Program, read: Callable[[int, int], bytes | None], problems: Problems
    ) -> None:
        self.read = read
        self.problems = problems
        info = vmcoreinfo_of(prog)
        self.page_size = info.page_size
        self.page_struct_size = info.sizes.get("page")
        platform = prog.platform
        x86 = platform is not None and platform.arch is Architecture.X86_64
        self.alignments = _X86_ALIGNMENTS if x86 else None
        # Since Linux kernel commit 9ffc1d19fc4a ("mm/memremap_pages: Introduce
        # memremap_compat_align()") (in v5.7), with the attribute "align" of a region.
        known = has_type(prog, "struct nd_region")
        checked = known and has_member(prog.type("struct nd_region"), "align")
        self.compat_align = 2 * _MIB if checked else None

    def check(
        self, hit: FoundInfoBlock, namespace: Namespace | None
    ) -> tuple[list[Refusal], list[str]]:
        """
        Why the kernel refuses a block, and what else is odd.

        :param namespace: The one that begins where the block's would; None if there is none.
        """
        refused = [] if namespace is None else _claim(hit, namespace)
        size = None if namespace is None else namespace.raw_size
        parent = None if namespace is None else namespace.label_uuid
        notes: list[str] = []
        block = hit.block
        if isinstance(block, BttArena):
            offset = hit.address - hit.namespace
            refused += check_arena(block, offset, size, parent_uuid=parent)
            if not block.checksum_ok:
                notes += self._backup(hit.address, block)
        else:
            refused += check_infoblock(
                block,
                hit.namespace,
                size,
                self.page_size or block.page_size or 4096,
                self.page_struct_size,
                parent_uuid=parent,
                compat_align=self.compat_align,
                supported_alignments=self.alignments,
            )
            notes += self._too_long(block, namespace)
        if refused:
            notes.insert(0, _words(refused, namespace))
        return refused, notes

    def _too_long(self, block: InfoBlock, namespace: Namespace | None) -> list[str]:
        if namespace is None or not block.checksum_ok:
            return []
        data = data_of(block, namespace.resource, self.page_size)
        end = namespace.range.end
        if data is None or data[1] <= end:
            return []
        return [f"its data would end at {data[1]:#x}, after the end of the namespace ({end:#x})"]

    def _backup(self, address: int, arena: BttArena) -> list[str]:
        """What the copy at the end of an arena says. The kernel does not use it."""
        place = address + arena.info2off
        data = self.read(place, INFO_BLOCK_SIZE)
        if data is None:
            return [f"its copy at {place:#x} was not saved"]
        try:
            copy = parse_btt(data)
        except FormatError as error:
            return [f"no copy at {place:#x}: {error}"]
        return [f"its copy at {place:#x} is intact: uuid {copy.uuid}"]

    def without(self, address: int) -> list[str]:
        """
        What is there instead of an info block.

        :param address: Physical address, saved.
        """
        data = self.read(address, INFO_BLOCK_SIZE)
        if data is None:
            return ["the content could not be read"]
        if not any(data):
            return ["no info block: its place reads as zeroes"]
        return ["no info block: its place holds other data"]


def _claim(hit: FoundInfoBlock, namespace: Namespace) -> list[Refusal]:
    """What keeps the kernel from looking for the block at all (``nd_btt_probe()``,
    ``nd_pfn_probe()``, ``nd_dax_probe()``)."""
    found = []
    if namespace.force_raw:
        found.append(Refusal(check=Check.FORCE_RAW, why="force_raw is set on the namespace"))
    if isinstance(hit.block, BttArena):
        at_base = hit.address - hit.namespace != INFO_BLOCK_OFFSET
        wanted = ("btt2",) if at_base else ("none", "btt")
    else:
        wanted = ("none", "pfn") if hit.block.signature == "NVDIMM_PFN_INFO" else ("none", "dax")
    own = namespace.claim_class
    if own is not None and own not in wanted:
        why = f"the label of the namespace has {own}, so the kernel does not look for it"
        found.append(Refusal(check=Check.CLAIM_CLASS, why=why))
    return found


def _words(refused: list[Refusal], namespace: Namespace | None) -> str:
    why = "; ".join(map(str, refused))
    if namespace is not None and namespace.claim is not None:
        return f"the kernel would refuse it now: {why}"
    result = "raw" if refused[0].leaves_raw else "disabled"
    end = "" if namespace is None else f"; this leaves {namespace.dev} {result}"
    return f"the kernel refuses it: {why}{end}"

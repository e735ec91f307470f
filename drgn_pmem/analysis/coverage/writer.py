# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Who wrote the headers of a dump
-------------------------------

The kernel (kexec_file_load, firmware-assisted dump), kexec-tools or a hypervisor: by the order of
the segments, and by what the crashed kernel says.
"""

from collections.abc import Sequence
import enum

from drgn import Program

from drgn_pmem.dumpfile import DumpFile, DumpFormat, Segment
from drgn_pmem.dumpfile.vmcoreinfo import Vmcoreinfo
from drgn_pmem.errors import MissingDebugInfo, NotFound
from drgn_pmem.formats.architecture import X86_64, find_architecture
from drgn_pmem.kernel.fadump import fw_dump
from drgn_pmem.kernel.kexec import crash_image, keeps_backup_region
from drgn_pmem.ranges import Range
from drgn_pmem.record import Record, shown

__all__ = ("LOW_MEMORY", "Loader", "Writer", "guess_loader")

LOW_MEMORY = 1 << 20
"""x86_64 reserves the first MiB since 5.5, and kexec_file_load leaves it out since then."""

_MAX_PMEM = 1 << 10


class Writer(enum.Enum):
    """Who wrote the headers of a dump."""

    FILE_LOAD = "kexec_file_load"
    TOOLS = "kexec-tools"
    HYPERVISOR = "QEMU"
    FADUMP = "firmware-assisted dump"


class Loader(Record):
    """Who wrote the crash header that became the dump."""

    by_order: Writer | None
    """None if the headers do not show it."""
    reason: str
    """What in the headers shows it, or why they do not."""
    by_kernel: Writer | None
    """The same by ``kexec_crash_image`` of the crashed kernel, or by its ``fw_dump`` if a
    firmware-assisted dump was registered; None if there is neither, or it cannot be read."""
    live: bool = shown(json=False, default=False)
    """Whether there is no dump: live memory."""

    @property
    def text(self) -> str:
        """One line for the user."""
        if self.live:
            return self.reason
        if self.by_order is None and self.by_kernel is None:
            return f"who wrote the headers is unknown: {self.reason}"
        if self.by_order is None:
            return f"{self.reason}; the crashed kernel says {_word(self.by_kernel)}"
        line = f"headers written by {_word(self.by_order)}: {self.reason}"
        if self.by_kernel is None or self.by_order is Writer.HYPERVISOR:
            return line
        if self.by_order is self.by_kernel:
            return f"{line}; the crashed kernel confirms it"
        return f"{line}; but the crashed kernel says {_word(self.by_kernel)}"


def _word(writer: Writer | None) -> str:
    return "" if writer is None else writer.value


def writer_by_kernel(prog: Program, area: Range | None) -> Writer | None:
    """
    Who wrote the headers, by the crashed kernel.

    :raises PmemError: if that cannot be read
    """
    if area is not None:
        return Writer.FADUMP
    image = crash_image(prog)
    if image is None:
        return None
    return Writer.FILE_LOAD if image.file_mode else Writer.TOOLS


def fadump_area(prog: Program) -> Range | None:
    """
    Where the firmware keeps the dump that the crashed kernel had registered; None if none.

    :raises PmemError: if that cannot be read
    """
    try:
        conf = fw_dump(prog)
    except NotFound:
        # not a problem: this kernel has no firmware-assisted dump
        return None
    if not conf.registered or not 0 < conf.reserve_size < 1 << 64:
        return None
    return Range(conf.reserve_start, conf.reserve_end)


def does_low_memory_tell(prog: Program, dump: DumpFile) -> bool:
    """
    Whether a segment in the first MiB excludes kexec_file_load: before 5.5 it wrote one too.
    Without debug info, a later line of vmcoreinfo shows it: BUILD-ID (5.9), SYMBOL(prb)
    (5.10).
    """
    try:
        return not keeps_backup_region(prog)
    except MissingDebugInfo:
        info = Vmcoreinfo.parse(dump.vmcoreinfo or b"")
        return info.build_id is not None or "prb" in info.symbols


def guess_loader(
    dump: DumpFile,
    by_kernel: Writer | None = None,
    segments: Sequence[Segment] | None = None,
    *,
    low_tells: bool = True,
) -> Loader:
    """
    Who wrote the headers, by their order.

    Both put the kernel image first. kexec_file_load then has RAM (on x86_64 without the first MiB,
    since 5.5) and appends persistent memory after all of it (``walk_pmem_res()`` runs last);
    kexec-tools follows ``/proc/iomem``, so persistent memory is between RAM ranges, and the first
    MiB is included.

    :param by_kernel: The loader by the crashed kernel, to include in the answer.
    :param segments: Those of the dump, where they have been read.
    :param low_tells: Whether kexec_file_load of this kernel leaves the first MiB out.
    """

    def loader(who: Writer | None, reason: str) -> Loader:
        live = dump.contained is DumpFormat.LIVE
        return Loader(by_order=who, reason=reason, by_kernel=by_kernel, live=live)

    if dump.contained is DumpFormat.LIVE:
        kcore = "/proc/kcore has its program headers" if dump.segments else "it has no headers"
        return loader(None, f"live memory: {kcore}")
    if dump.contained is DumpFormat.IMAGE:
        return loader(None, "raw memory has no program headers")
    if dump.hypervisor:
        if any(note.name == b"QEMU" for note in dump.notes):
            return loader(Writer.HYPERVISOR, "the dump has QEMU's notes")
        if dump.contained is DumpFormat.KDUMP:
            reason = "the header names no system, as in QEMU's dumps"
            return loader(Writer.HYPERVISOR, reason)
        return loader(Writer.HYPERVISOR, "no segment has flags, as in QEMU's dumps")
    if dump.contained is DumpFormat.KDUMP:
        return loader(None, "kdump-compressed keeps no program headers")
    places = [s for s in segments or dump.segments if s.physical is not None and s.memory_size]
    direct = places[1:]  # the kernel image is inside RAM, out of order
    order, why = _by_pmem(direct)
    if find_architecture(dump.machine) == X86_64 and direct:
        low = any(s.physical is not None and s.physical < LOW_MEMORY for s in direct)
        reason = f"the first MiB of memory has {'a' if low else 'no'} segment"
        if low and not low_tells:
            if order is not None:
                return loader(order, why)
            older = f"{reason}, as with kexec-tools and with kexec_file_load before Linux 5.5"
            return loader(None, f"the loader cannot be determined: {older}")
        who = Writer.TOOLS if low else Writer.FILE_LOAD
        if order is who:
            reason = f"{why}; {reason}"
        elif order is not None:
            contradiction = f"{reason}, as with {who.value}, but {why}, as with {order.value}"
            return loader(None, contradiction)
        return loader(who, reason)
    if order is not None:
        return loader(order, why)
    return loader(None, "the loader cannot be determined from the segment order")


def _by_pmem(segments: list[Segment]) -> tuple[Writer | None, str]:
    """Who wrote the headers, by the position of pmem among RAM."""
    pmem = [s for s in segments if s.pmem]
    if not pmem or len(pmem) > _MAX_PMEM:
        return None, ""
    # RAM on pmem (dax/kmem) carries PF_DEV among the RAM too, and comes again with its region:
    # /proc/iomem has it below that.
    ram = {inner.index for inner in pmem for outer in pmem if _is_part(inner, outer)}
    places = [(s.physical or 0, s.pmem and s.index not in ram) for s in segments]
    first = next((number for number, (_, flag) in enumerate(places) if flag), len(places))
    top = max((physical for physical, _ in places[:first]), default=0)
    if not all(flag for _, flag in places[first:]):
        return Writer.TOOLS, "pmem is between RAM ranges, in the order of /proc/iomem"
    if any(physical < top for physical, _ in places[first:]):
        return Writer.FILE_LOAD, "pmem comes after RAM at higher addresses"
    return None, ""


def _is_part(inner: Segment, outer: Segment) -> bool:
    """Whether a segment is inside another, larger one."""
    start, base = inner.physical or 0, outer.physical or 0
    return (
        base <= start
        and start + inner.memory_size <= base + outer.memory_size
        and inner.memory_size < outer.memory_size
    )

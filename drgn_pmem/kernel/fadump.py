# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Firmware-assisted dump
----------------------

What a ppc64 kernel knows about its dump: ``fw_dump``, and the memory structure that it registers
with the firmware.

Sources: ``struct fw_dump`` in arch/powerpc/include/asm/fadump-internal.h,
arch/powerpc/kernel/fadump.c, arch/powerpc/platforms/pseries/rtas-fadump.c and
arch/powerpc/platforms/powernv/opal-fadump.c.
"""

import enum

from drgn import FaultError, Object, Program, sizeof

from drgn_pmem.errors import MissingDebugInfo, NotFound
from drgn_pmem.formats.fadump_rtas import RtasFadumpMem, parse_rtas_fadump_mem
from drgn_pmem.kernel.crash_core import vmcoreinfo_note
from drgn_pmem.kernel.debuginfo import find_type, find_variable, has_member, has_type
from drgn_pmem.kernel.kexec import NamedRange
from drgn_pmem.kernel.kmod import symbol_address
from drgn_pmem.partial import NotSaved, WalkError
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "BootRegion",
    "FadumpLayout",
    "FadumpPlatform",
    "FwDump",
    "crashing_cpu",
    "fadump_layout",
    "fadump_relocate",
    "firmware_structure",
    "fw_dump",
    "relocated_vmcoreinfo",
)

_MAX_REGIONS = 128
"""``FADUMP_MAX_MEM_REGS``"""


class FadumpPlatform(enum.Enum):
    """The firmware that makes the dump."""

    RTAS = "rtas"
    """pseries"""
    OPAL = "opal"
    """powernv"""


class BootRegion(Record):
    """Memory that the firmware copies away, for the capture kernel to boot in."""

    start: int = shown(Show.ADDRESS)
    size: int = shown(Show.SIZE)
    """bytes"""
    destination: int = shown(Show.ADDRESS)
    """Where it is copied to."""

    @property
    def end(self) -> int:
        return self.start + self.size


class FwDump(Record):
    """``struct fw_dump``, the kernel's own record of its dump. Addresses are physical unless
    stated otherwise; sizes are in bytes."""

    platform: FadumpPlatform | None
    """None if the kernel has chosen none."""
    supported: bool
    enabled: bool
    registered: bool
    active: bool
    """This is a capture kernel: the dump of the one before it is in memory."""
    nocma: bool
    reserve_start: int = shown(Show.ADDRESS)
    reserve_size: int = shown(Show.SIZE)
    cpu_state_size: int = shown(Show.SIZE)
    hpte_region_size: int = shown(Show.SIZE)
    boot_memory_size: int = shown(Show.SIZE)
    boot_mem_dest_addr: int = shown(Show.ADDRESS)
    boot_mem_top: int = shown(Show.ADDRESS)
    boot_regions: tuple[BootRegion, ...]
    fadumphdr_addr: int = shown(Show.ADDRESS)
    cpu_notes_buf_vaddr: int = shown(Show.ADDRESS)
    cpu_notes_buf_size: int = shown(Show.SIZE)
    elfcorehdr_vaddr: int | None = shown(Show.ADDRESS)
    """Virtual, of the capture kernel; None on kernels that write it at registration (< 6.10)."""
    elfcorehdr_size: int | None = shown(Show.SIZE)
    param_area: int | None = shown(Show.ADDRESS)
    """More boot arguments for the capture kernel (since 6.10); 0 if there are none."""
    object: Object = shown(Show.HIDDEN)
    """``struct fw_dump``"""

    @property
    def built_by_capture_kernel(self) -> bool:
        """
        Which kernel writes the elfcorehdr. "powerpc/fadump: make is_fadump_header_compatible..."
        series, c6c5b14dac0d (6.10), moved it from the crashing kernel to the capture kernel.
        """
        return self.elfcorehdr_vaddr is not None

    @property
    def reserve_end(self) -> int:
        return self.reserve_start + self.reserve_size

    @property
    def state(self) -> str:
        """In words."""
        if not self.supported:
            return "not supported by this machine"
        if not self.enabled:
            return "disabled (fadump=on was not given, or could not be done)"
        if self.active:
            return "active: this kernel captures the dump of the one before it"
        return "registered" if self.registered else "enabled, but not registered with the firmware"


class FadumpLayout(Record):
    """Layout of this kernel's crash info header."""

    name: str
    """``"FADMPINF"``, ``"FADMPSIG"`` or ``"FADMPSIG-v7"``"""
    size: int
    """``sizeof(struct fadump_crash_info_header)``, bytes"""
    pt_regs_size: int
    cpu_mask_size: int


def fw_dump(prog: Program) -> FwDump:
    """
    The kernel's ``fw_dump``.

    :raises NotFound: if this kernel has no firmware-assisted dump
    :raises MissingDebugInfo: without debug info of vmlinux
    :raises WalkError: if it cannot be read
    """
    if prog.platform is not None and prog.platform.arch.name != "PPC64":
        raise NotFound(
            "firmware-assisted dump exists on POWER only, and this dump is of "
            f"{prog.platform.arch.name.lower()}"
        )
    if not has_type(prog, "struct fw_dump"):
        find_type(prog, "struct task_struct", "vmlinux")
        raise NotFound("this kernel is built without firmware-assisted dump (CONFIG_FA_DUMP)")
    conf = find_variable(prog, "fw_dump", "vmlinux")
    if not has_member(conf, "reserve_dump_area_start"):
        raise NotFound("this kernel only preserves dumps for others (CONFIG_PRESERVE_FA_DUMP)")
    try:
        return _decode(prog, conf.read_())
    except FaultError as error:
        raise WalkError(f"fw_dump: {error}") from None


def _decode(prog: Program, conf: Object) -> FwDump:
    return FwDump(
        platform=_platform(prog, conf.ops.value_()),
        supported=bool(conf.fadump_supported),
        enabled=bool(conf.fadump_enabled),
        registered=bool(conf.dump_registered),
        active=bool(conf.dump_active),
        nocma=bool(conf.nocma),
        reserve_start=conf.reserve_dump_area_start.value_(),
        reserve_size=conf.reserve_dump_area_size.value_(),
        cpu_state_size=conf.cpu_state_data_size.value_(),
        hpte_region_size=conf.hpte_region_size.value_(),
        boot_memory_size=conf.boot_memory_size.value_(),
        boot_mem_dest_addr=conf.boot_mem_dest_addr.value_(),
        boot_mem_top=conf.boot_mem_top.value_(),
        boot_regions=_boot_regions(conf),
        fadumphdr_addr=conf.fadumphdr_addr.value_(),
        cpu_notes_buf_vaddr=conf.cpu_notes_buf_vaddr.value_(),
        cpu_notes_buf_size=conf.cpu_notes_buf_size.value_(),
        elfcorehdr_vaddr=_optional(conf, "elfcorehdr_addr"),
        elfcorehdr_size=_optional(conf, "elfcorehdr_size"),
        param_area=_optional(conf, "param_area"),
        object=conf,
    )


def _optional(conf: Object, member: str) -> int | None:
    return int(conf.member_(member)) if has_member(conf, member) else None


def _platform(prog: Program, ops: int) -> FadumpPlatform | None:
    if not ops:
        return None
    for platform in FadumpPlatform:
        if symbol_address(prog, f"{platform.value}_fadump_ops") == ops:
            return platform
    raise MissingDebugInfo(
        f"fw_dump.ops {ops:#x} is neither rtas_fadump_ops nor opal_fadump_ops: the symbol table of "
        "vmlinux is not loaded (-s VMLINUX), or it is of another kernel",
        "vmlinux",
    )


def _boot_regions(conf: Object) -> tuple[BootRegion, ...]:
    """Regions are copied one after the other, without the holes between them."""
    count = conf.boot_mem_regs_cnt.value_()
    if count > min(_MAX_REGIONS, conf.boot_mem_addr.type_.length or 0):
        raise WalkError(f"fw_dump: implausible count {count}: more boot regions than fit")
    destination = conf.boot_mem_dest_addr.value_()
    regions = []
    for index in range(count):
        size = conf.boot_mem_sz[index].value_()
        start = conf.boot_mem_addr[index].value_()
        regions.append(BootRegion(start=start, size=size, destination=destination))
        destination += size
    return tuple(regions)


def fadump_relocate(conf: FwDump, physical: int) -> int:
    """
    Where the firmware copies an address to; addresses outside the boot memory stay.

    Source: arch/powerpc/kernel/fadump.c, function of this name.
    """
    for region in conf.boot_regions:
        if region.start <= physical < region.end:
            return region.destination + physical - region.start
    return physical


def relocated_vmcoreinfo(prog: Program, conf: FwDump) -> NamedRange:
    """
    Where the vmcoreinfo note is after the firmware has copied the boot memory.

    :raises NotFound: if the kernel has not set it up
    :raises NotSaved: if its place cannot be determined
    """
    note = vmcoreinfo_note(prog)
    start = fadump_relocate(conf, note.start)
    return NamedRange(name=note.name, start=start, end=start + note.size)


def fadump_layout(prog: Program) -> FadumpLayout:
    """
    The layout of this kernel's own crash info header, by its members.

    :raises MissingDebugInfo: without debug info of vmlinux
    """
    header = find_type(prog, "struct fadump_crash_info_header", "vmlinux")
    if not header.has_member("version"):
        name = "FADMPINF"
    else:
        name = "FADMPSIG-v7" if header.has_member("elfcorehdr_addr") else "FADMPSIG"
    regs = header.member("regs").type
    # "cpu_mask" was "online_mask" until "powerpc/fadump: consider all possible CPUs" (5.10)
    mask = header.member("cpu_mask" if header.has_member("cpu_mask") else "online_mask").type
    return FadumpLayout(
        name=name, size=sizeof(header), pt_regs_size=sizeof(regs), cpu_mask_size=sizeof(mask)
    )


def crashing_cpu(prog: Program) -> int | None:
    """
    The CPU that crashed, as the kernel itself noted it; None before a crash.

    Source: ``crashing_cpu`` in arch/powerpc/kexec/crash.c, set by ``crash_fadump()``.

    :raises MissingDebugInfo: without debug info of vmlinux
    :raises NotSaved: if it cannot be read
    """
    try:
        cpu = int(find_variable(prog, "crashing_cpu", "vmlinux"))
    except FaultError as error:
        raise NotSaved(f"crashing_cpu: {error}") from None
    return cpu if cpu >= 0 else None


def firmware_structure(prog: Program) -> RtasFadumpMem | None:
    """
    The sections that the kernel registered with RTAS, or that the firmware handed to the capture
    kernel; None on powernv.

    :raises FormatError: if they are invalid
    :raises NotSaved: if they cannot be read
    """
    if not has_type(prog, "struct rtas_fadump_mem_struct"):
        return None
    variable = find_variable(prog, "fdm", "vmlinux")
    try:
        # The capture kernel's own structure is empty: the one that it was given counts.
        active = find_variable(prog, "fdm_active", "vmlinux").read_()
        data = (active[0] if active else variable).to_bytes_()
    except FaultError as error:
        raise NotSaved(f"fdm: {error}") from None
    return parse_rtas_fadump_mem(data)

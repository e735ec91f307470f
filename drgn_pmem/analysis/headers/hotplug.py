# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Crash hotplug
-------------

Whether the kernel kept the elfcorehdr up to date when CPUs and memory came and went, and what it
told user space about that through sysfs.

Sources: kernel/crash_core.c (``crash_handle_hotplug_event()``), arch/x86/kernel/crash.c,
drivers/base/{cpu,memory}.c; CONFIG_CRASH_HOTPLUG came with 6.6.
"""

from dataclasses import dataclass
from typing import Any

from drgn import FaultError, Program
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.kconfig import get_kconfig

from drgn_pmem.kernel.debuginfo import find_type
from drgn_pmem.kernel.kexec import CrashImage, elfcorehdr_segment

__all__ = ("CrashHotplug", "SysfsValue", "crash_hotplug")

_EHDR, _PHDR = 64, 56
_NOT_LOADED = "no crash kernel is loaded"


@dataclass(frozen=True)
class SysfsValue:
    """What a sysfs file would have read."""

    path: str
    value: int | None
    """None if there is no such file, or its value is not known."""
    why: str

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, "value": self.value, "why": self.why}


@dataclass(frozen=True)
class CrashHotplug:
    """State of crash hotplug when the dump was taken."""

    supported: bool
    """The kernel can update an elfcorehdr at all."""
    permitted: bool
    """It may update the one that is loaded."""
    updated: bool
    """It has done so since the load."""
    elfcorehdr_index: int | None
    as_loaded: str
    """How the permission was given."""
    sysfs: tuple[SysfsValue, ...]
    loaded: bool = True
    """There is a crash kernel."""

    @property
    def words(self) -> str:
        """One sentence for the user."""
        if not self.loaded:
            return _NOT_LOADED
        if not self.supported:
            return (
                "this kernel never updates a loaded elfcorehdr: after memory or CPU hotplug the "
                "crash kernel must be loaded again"
            )
        if not self.permitted:
            return f"the kernel may not update the elfcorehdr: {self.as_loaded}"
        if self.updated:
            return "the kernel updated the elfcorehdr after a hotplug event"
        return "the kernel may update the elfcorehdr; no hotplug event has made it do so"

    def to_json(self) -> dict[str, Any]:
        return {
            "supported": self.supported,
            "permitted": self.permitted,
            "updated": self.updated,
            "elfcorehdr_index": self.elfcorehdr_index,
            "as_loaded": self.as_loaded,
            "words": self.words,
            "sysfs": [value.to_json() for value in self.sysfs],
        }


def crash_hotplug(prog: Program, image: CrashImage | None) -> CrashHotplug:
    """
    The hotplug state of the loaded crash kernel.

    :param image: None if none is loaded.
    :raises MissingDebugInfo: without debug info of vmlinux
    """
    kimage = find_type(prog, "struct kimage", "vmlinux")
    supported = kimage.has_member("elfcorehdr_index")
    permitted = bool(image is not None and image.hotplug_support)
    return CrashHotplug(
        supported=supported,
        permitted=permitted,
        updated=bool(image is not None and image.elfcorehdr_updated),
        elfcorehdr_index=None if image is None else image.elfcorehdr_index,
        as_loaded=_as_loaded(image),
        sysfs=(
            _crash_elfcorehdr_size(prog, image),
            _node(prog, image, supported, permitted, "cpu"),
            _node(prog, image, supported, permitted, "memory"),
        ),
        loaded=image is not None,
    )


def _as_loaded(image: CrashImage | None) -> str:
    if image is None:
        return _NOT_LOADED
    if image.hotplug_member is None:
        return f"{image.loader}; the kernel has no flag for hotplug"
    if image.file_mode:
        return "kexec_file_load: the kernel wrote the elfcorehdr itself, so it may update it"
    flags = "KEXEC_UPDATE_ELFCOREHDR"
    if image.hotplug_member == "hotplug_support":
        flags += " or KEXEC_CRASH_HOTPLUG_SUPPORT"
    if image.hotplug_support:
        return f"kexec_load with {flags} (kexec --hotplug)"
    return f"kexec_load without {flags}: kexec-tools has a checksum over the elfcorehdr"


def _node(
    prog: Program, image: CrashImage | None, supported: bool, permitted: bool, subsystem: str
) -> SysfsValue:
    """``crash_hotplug`` of the CPU or memory subsystem: udev rules reload the crash kernel unless
    it reads 1."""
    path = f"/sys/devices/system/{subsystem}/crash_hotplug"
    if "crash_hotplug" not in _attributes(prog, f"{subsystem}_root_attrs"):
        missing = "the kernel has no crash hotplug" if not supported else "it is configured out"
        return SysfsValue(path, None, f"no such file: {missing}")
    return SysfsValue(path, int(permitted), _as_loaded(image))


def _attributes(prog: Program, table: str) -> list[str]:
    """Names in a table of sysfs attributes: ``cpu_root_attrs``, ``memory_root_attrs``."""
    names = []
    try:
        for attribute in prog[table]:
            if attribute:
                names.append(attribute.name.string_().decode("ascii", "backslashreplace"))
    except (LookupError, FaultError, TypeError):
        return names
    return names


def _crash_elfcorehdr_size(prog: Program, image: CrashImage | None) -> SysfsValue:
    path = "/sys/kernel/crash_elfcorehdr_size"
    try:
        prog.symbol("arch_crash_get_elfcorehdr_size")
    except LookupError:
        return SysfsValue(path, None, "no such file: the kernel has no crash hotplug")
    for find in (_size_of_text, _size_of_config):
        size = find(prog)
        if size is not None:
            value, why = size
            return SysfsValue(path, value, why + _fits(prog, image, value))
    return SysfsValue(path, None, "the kernel's configuration is not in the dump")


def _fits(prog: Program, image: CrashImage | None, size: int) -> str:
    """Compare with the segment that really was loaded."""
    segment = None if image is None else elfcorehdr_segment(prog, image)
    if segment is None:
        return ""
    if segment.size >= size:
        return f"; the loaded segment has {segment.size} bytes"
    return f"; the loaded segment has only {segment.size} bytes: larger updates are dropped"


def _size_of_text(prog: Program) -> tuple[int, str] | None:
    """
    On x86_64 the size is a constant that no variable holds: read it from the function's code,
    ``mov $size, %eax`` after the landing pad and the ftrace call.
    """
    if prog.platform is None or prog.platform.arch.name != "X86_64":
        return None
    try:
        code = prog.read(prog.symbol("arch_crash_get_elfcorehdr_size").address, 32)
    except (FaultError, LookupError):
        return None
    # endbr64, or what the kernel writes over one that nothing jumps to: gen_endbr_poison() in
    # arch/x86/include/asm/ibt.h, a no-op that changed from 6.x to 7.x
    for start in (b"\xf3\x0f\x1e\xfa", b"\x66\x0f\x1f\x00", b"\x0f\x1f\x40\xd6"):
        code = code.removeprefix(start)
    if code[:1] == b"\xe8" or code[:5] == b"\x0f\x1f\x44\x00\x00":
        code = code[5:]
    if code[:1] != b"\xb8":
        return None
    size = int.from_bytes(code[1:5], "little")
    if size % _PHDR or not size:
        return None
    return size, f"a constant of the kernel: {size // _PHDR} program headers"


def _size_of_config(prog: Program) -> tuple[int, str] | None:
    try:
        config = get_kconfig(prog)
        ranges = int(config.get("CONFIG_CRASH_MAX_MEMORY_RANGES", "0"))
    except (LookupError, FaultError, ValueError):
        return None
    if config.get("CONFIG_MEMORY_HOTPLUG") != "y":
        ranges = 0
    arch = prog.platform.arch.name if prog.platform else ""
    if arch == "PPC64":
        count = len(list(for_each_possible_cpu(prog))) + 1 + ranges
        return _EHDR + count * _PHDR, f"{count} program headers and the ELF header"
    if arch == "X86_64" and config.get("CONFIG_NR_CPUS_DEFAULT", "").isdigit():
        count = 2 + int(config["CONFIG_NR_CPUS_DEFAULT"]) + ranges
        return count * _PHDR, f"{count} program headers, from the kernel's configuration"
    return None

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Crash hotplug
-------------

Whether the kernel updated the elfcorehdr when CPUs and memory were added or removed, and what user
space could read about that in sysfs.

Sources: kernel/crash_core.c (``crash_handle_hotplug_event()``), arch/x86/kernel/crash.c,
drivers/base/{cpu,memory}.c; CONFIG_CRASH_HOTPLUG came with 6.6.
"""

from typing import Any
import zlib

from drgn import Program
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.kconfig import get_kconfig

from drgn_pmem.analysis.headers.rebuild import architecture
from drgn_pmem.errors import FormatError
from drgn_pmem.formats.architecture import PPC64, X86_64
from drgn_pmem.kernel.debuginfo import find_type, find_variable
from drgn_pmem.kernel.kexec import CrashImage, elfcorehdr_segment
from drgn_pmem.kernel.kmod import symbol_address
from drgn_pmem.kernel.strings import kernel_string
from drgn_pmem.partial import Cause, NotSaved, Partial, Problem, Problems
from drgn_pmem.record import Record

__all__ = ("CrashHotplug", "SysfsValue", "crash_hotplug")

_EHDR, _PHDR = 64, 56
_NOT_LOADED = "no crash kernel is loaded"


class SysfsValue(Record):
    """What a sysfs file would have read."""

    path: str
    exists: bool | None
    """Whether the kernel had such a file; None if that is not known."""
    value: int | None
    """None if there is no such file, or its value is not known."""
    why: str


class CrashHotplug(Record):
    """State of crash hotplug when the dump was taken."""

    supported: bool
    """The kernel can update an elfcorehdr."""
    permitted: bool
    """It may update the one that is loaded."""
    updated: bool
    """It has done so since the load."""
    elfcorehdr_index: int | None
    as_loaded: str
    """How the permission was given."""
    sysfs: tuple[SysfsValue, ...]
    loaded: bool
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
        return {**super().to_json(), "words": self.words}


def crash_hotplug(prog: Program, image: CrashImage | None) -> Partial[CrashHotplug]:
    """
    The hotplug state of the loaded crash kernel.

    :param image: None if none is loaded.
    :raises MissingDebugInfo: without debug info of vmlinux
    """
    problems = Problems()
    kimage = find_type(prog, "struct kimage", "vmlinux")
    supported = kimage.has_member("elfcorehdr_index")
    permitted = bool(image is not None and image.hotplug_support)
    hotplug = CrashHotplug(
        supported=supported,
        permitted=permitted,
        updated=bool(image is not None and image.elfcorehdr_updated),
        elfcorehdr_index=None if image is None else image.elfcorehdr_index,
        as_loaded=_as_loaded(image),
        sysfs=(
            _crash_elfcorehdr_size(prog, image, problems),
            _node(prog, image, supported, permitted, "cpu", problems),
            _node(prog, image, supported, permitted, "memory", problems),
        ),
        loaded=image is not None,
    )
    return problems.partial(hotplug)


def _as_loaded(image: CrashImage | None) -> str:
    if image is None:
        return _NOT_LOADED
    if image.hotplug_member is None:
        return f"{image.loader.value}; this kernel has no flag for hotplug"
    if image.file_mode:
        return "kexec_file_load: the kernel wrote the elfcorehdr itself, so it may update it"
    flags = "KEXEC_UPDATE_ELFCOREHDR"
    if image.hotplug_member == "hotplug_support":
        flags += " or KEXEC_CRASH_HOTPLUG_SUPPORT"
    if image.hotplug_support:
        return f"kexec_load with {flags} (kexec --hotplug)"
    return f"kexec_load without {flags}: kexec-tools has a checksum over the elfcorehdr"


def _node(
    prog: Program,
    image: CrashImage | None,
    supported: bool,
    permitted: bool,
    subsystem: str,
    problems: Problems,
) -> SysfsValue:
    """``crash_hotplug`` of the CPU or memory subsystem: udev rules reload the crash kernel unless
    it reads 1."""
    path = f"/sys/devices/system/{subsystem}/crash_hotplug"
    table = f"{subsystem}_root_attrs"
    if subsystem == "memory" and _has_no_memory_blocks(prog):
        why = "no such file: the kernel is built without CONFIG_MEMORY_HOTPLUG"
        return SysfsValue(path=path, exists=False, value=None, why=why)
    names = problems.attempt(path, lambda: _attributes(prog, table))
    if names is None:
        return SysfsValue(path=path, exists=None, value=None, why=f"{table} cannot be read")
    if "crash_hotplug" not in names:
        missing = "the kernel has no crash hotplug" if not supported else "it is configured out"
        why = f"no such file: {missing}"
        return SysfsValue(path=path, exists=False, value=None, why=why)
    return SysfsValue(path=path, exists=True, value=int(permitted), why=_as_loaded(image))


def _has_no_memory_blocks(prog: Program) -> bool:
    """Whether it is certain that the kernel has no drivers/base/memory.c."""
    functions = ("panic", "register_memory_notifier")
    panic, of_memory = (symbol_address(prog, name) for name in functions)
    return panic is not None and of_memory is None


def _attributes(prog: Program, table: str) -> list[str]:
    """Names in a table of sysfs attributes: ``cpu_root_attrs``, ``memory_root_attrs``."""
    return [
        kernel_string(attribute.name)
        for attribute in find_variable(prog, table, "vmlinux")
        if attribute
    ]


def _crash_elfcorehdr_size(
    prog: Program, image: CrashImage | None, problems: Problems
) -> SysfsValue:
    path = "/sys/kernel/crash_elfcorehdr_size"
    if symbol_address(prog, "arch_crash_get_elfcorehdr_size") is None:
        why = "no such file: the kernel has no crash hotplug"
        return SysfsValue(path=path, exists=False, value=None, why=why)
    found = problems.attempt(path, lambda: _size_by_config(prog, problems))
    if found is None:
        why = "unknown: the kernel's configuration (CONFIG_IKCONFIG) is not in the dump"
        return SysfsValue(path=path, exists=True, value=None, why=why)
    size, why = found
    fits = problems.attempt(path, lambda: _fits(prog, image, size))
    return SysfsValue(path=path, exists=True, value=size, why=why + (fits or ""))


def _fits(prog: Program, image: CrashImage | None, size: int) -> str:
    """Compare with the segment that really was loaded."""
    try:
        segment = None if image is None else elfcorehdr_segment(prog, image)
    except NotSaved:
        # not a problem: the search for the header in the segment gives the reason
        # The segment is unknown; the search for the header in it gives the reason.
        return ""
    if segment is None:
        return ""
    if segment.size >= size:
        return f"; the loaded segment has {segment.size} bytes"
    return f"; the loaded segment has only {segment.size} bytes: larger updates are dropped"


def _size_by_config(prog: Program, problems: Problems) -> tuple[int, str] | None:
    """
    ``arch_crash_get_elfcorehdr_size()`` returns a constant of the kernel's configuration on x86_64
    (arch/x86/kernel/crash.c); on ppc64 it counts possible CPUs (arch/powerpc/kexec/file_load_64.c).

    :return: The size in bytes and how it is computed; None if the configuration does not say.
    :raises FormatError: if the configuration is damaged
    """
    try:
        config = get_kconfig(prog)
    except LookupError:
        # Built without CONFIG_IKCONFIG: no dump of this kernel has it.
        why = "unknown: the kernel, built without CONFIG_IKCONFIG, has no copy of its configuration"
        what = "/sys/kernel/crash_elfcorehdr_size"
        problems.add(Problem(cause=Cause.FORMAT, why=why, what=what))
        return None
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"the kernel's configuration cannot be unpacked: {error}") from None
    numbers = {
        name: int(config[name]) if config.get(name, "").isdigit() else None
        for name in ("CONFIG_CRASH_MAX_MEMORY_RANGES", "CONFIG_NR_CPUS_DEFAULT")
    }
    ranges = numbers["CONFIG_CRASH_MAX_MEMORY_RANGES"] or 0
    if config.get("CONFIG_MEMORY_HOTPLUG") != "y":
        ranges = 0
    arch = architecture(prog)
    if arch == PPC64:
        count = len(list(for_each_possible_cpu(prog))) + 1 + ranges
        return _EHDR + count * _PHDR, f"{count} program headers and the ELF header"
    cpus = numbers["CONFIG_NR_CPUS_DEFAULT"]
    if arch == X86_64 and cpus is not None:
        count = 2 + cpus + ranges
        return count * _PHDR, f"{count} program headers, from the kernel's configuration"
    return None

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Does a VMCOREINFO text fit the memory?
--------------------------------------

A text fits if the kernel image that it describes is where it says: ``init_uts_ns`` has the release
that the text has. Nothing is imported here that the first prompt would wait for.

Sources: include/linux/uts_namespace.h, include/uapi/linux/utsname.h, and each architecture's
``arch_crash_save_vmcoreinfo()``.
"""

from collections.abc import Callable
import enum
from typing import TYPE_CHECKING

from drgn_pmem.dumpfile.vmcoreinfo import Vmcoreinfo, vmcoreinfo_of
from drgn_pmem.errors import DumpFileError

if TYPE_CHECKING:
    from drgn import Program

__all__ = (
    "Fit",
    "fit_of",
    "guess_architecture",
    "name_offsets",
    "physical_of_image",
    "release_at",
    "symbol_shift",
)

_UTS_FIELD = 65
_UTS_RELEASE = 2 * _UTS_FIELD
"""Offset of ``release`` in ``struct new_utsname`` (bytes)."""


class Fit(enum.Enum):
    """Whether a VMCOREINFO text describes the kernel in memory."""

    YES = "yes"
    NO = "no"
    """Something else is where it says that the kernel is."""
    NOT_SAVED = "not saved"
    """The dump does not hold that place."""
    UNKNOWN = "unknown"
    """The text does not say where the kernel is."""


def name_offsets(info: Vmcoreinfo) -> tuple[int, ...]:
    """Offsets of ``name`` in ``struct uts_namespace`` (bytes), the likely one first."""
    known = info.offsets.get("uts_namespace.name")
    if known is not None:
        return (known,)
    # Since Linux kernel commit 9a56493f6942 ("uts: Use generic ns_common::count") (in v5.11) it is
    # the first member, and vmcoreinfo says so; a struct kref was before it.
    return (4, 0)


def release_at(read: Callable[[int, int], bytes], address: int) -> str | None:
    """
    The release of a ``struct new_utsname``, None if there is none.

    :param read: Reads (address, size); its errors pass through.
    """
    if read(address, _UTS_FIELD).split(b"\0", 1)[0] != b"Linux":
        return None
    release = read(address + _UTS_RELEASE, _UTS_FIELD).split(b"\0", 1)[0]
    return release.decode("ascii", "replace")


def fit_of(info: Vmcoreinfo, read: Callable[[int, int], bytes]) -> Fit:
    """
    Whether a text fits the memory, by the place of the kernel's image alone.

    :param read: Reads physical memory: (address, size). :raises DumpFileError: if it is not saved
    """
    address = physical_of_image(info, info.symbols.get("init_uts_ns"))
    if address is None:
        return Fit.UNKNOWN
    try:
        for offset in name_offsets(info):
            release = release_at(read, address + offset)
            if release is not None and release == info.osrelease:
                return Fit.YES
    except DumpFileError:
        return Fit.NOT_SAVED
    return Fit.NO


def symbol_shift(prog: "Program") -> int:
    """How far above the debug info's address vmcoreinfo has ``init_uts_ns``: 0 where both agree, or
    no debug info is loaded. Anything else: KERNELOFFSET is wrong."""
    address = vmcoreinfo_of(prog).symbols.get("init_uts_ns")
    try:
        return 0 if address is None else address - prog.symbol("init_uts_ns").address
    except LookupError:
        # not a problem: no debug info to compare with
        return 0


def physical_of_image(info: Vmcoreinfo, virtual: int | None) -> int | None:
    """Physical address of something in the kernel's image, by what the note says of the image's
    place."""
    if virtual is None:
        return None
    architecture = guess_architecture(info)
    numbers = info.numbers
    if architecture == "X86_64" and "phys_base" in numbers:
        # __START_KERNEL_map, arch/x86/include/asm/page_64_types.h
        physical = virtual - 0xFFFFFFFF80000000 + numbers["phys_base"]
    elif architecture == "AARCH64" and "kimage_voffset" in numbers:
        physical = (virtual - numbers["kimage_voffset"]) & 0xFFFFFFFFFFFFFFFF
    elif architecture == "PPC64":
        # The image is in the linear map at PAGE_OFFSET, arch/powerpc/include/asm/page.h
        physical = virtual & ~0xC000000000000000
    else:
        return None
    return physical if 0 <= physical < 1 << 56 else None


def guess_architecture(info: Vmcoreinfo) -> str | None:
    """
    Architecture that a VMCOREINFO text comes from, by the lines that only its
    ``arch_crash_save_vmcoreinfo()`` writes.

    :return: Name of a :class:`drgn.Architecture`, or ``None``.
    """
    if "kimage_voffset" in info.numbers:
        return "AARCH64"
    if "phys_base" in info.numbers:
        return "X86_64"
    if "vmemmap_list" in info.symbols or "mmu_psize_defs" in info.symbols:
        return "PPC64"
    if "va_kernel_pa_offset" in info.numbers or "kernel_link_addr" in info.numbers:
        return "RISCV64"
    if "lowcore_ptr" in info.symbols:
        return "S390X"
    return None

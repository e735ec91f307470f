# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Checks of the crash info header of fadump
-----------------------------------------

The compatibility check of the capture kernel (arch/powerpc/kernel/fadump.c), and what is wrong in a
header although the kernel accepts it.
"""

from __future__ import annotations

import enum

from drgn_pmem.formats.clayout import ByteOrder
from drgn_pmem.formats.fadump import HEADER_LAYOUT, MAGIC, MAGIC_OLD, FadumpHeader
from drgn_pmem.record import Record

__all__ = (
    "FadumpVerdict",
    "VerdictReason",
    "fadump_header_problems",
    "is_fadump_header_compatible",
)


class VerdictReason(enum.Enum):
    """Why a capture kernel accepts a header, or does not."""

    OK = "ok"
    OLD_MAGIC = "old magic"
    NEW_MAGIC = "new magic"
    ENDIANNESS = "endianness"
    CORRUPTED = "corrupted"
    PT_REGS_SIZE = "pt_regs size"
    CPU_MASK_SIZE = "cpu_mask size"


class FadumpVerdict(Record):
    """Whether a capture kernel accepts a header, and why."""

    reason: VerdictReason
    words: str

    @property
    def compatible(self) -> bool:
        return self.reason is VerdictReason.OK


def is_fadump_header_compatible(
    data: bytes,
    *,
    byteorder: ByteOrder,
    pt_regs_sz: int,
    cpu_mask_sz: int,
    old_kernel: bool = False,
) -> FadumpVerdict:
    """
    The verdict of the kernel's function of this name (:linux:`arch/powerpc/kernel/fadump.c`), in
    its order of checks. It looks neither at the version nor at any address.

    :param data: The header.
    :param byteorder: Of the capture kernel.
    :param pt_regs_sz: ``sizeof(struct pt_regs)`` of the capture kernel in bytes.
    :param cpu_mask_sz: ``sizeof(struct cpumask)`` of the capture kernel in bytes.
    :param old_kernel: The capture kernel is older than Linux 6.10: it wants ``FADMPINF`` and checks
        nothing else.
    :raises FormatError: if there are fewer bytes than the kernel looks at.
    """
    members = HEADER_LAYOUT.unpack("FADMPSIG", data, 0, byteorder)
    magic = members["magic_number"]
    swapped = int.from_bytes(magic.to_bytes(8, "little"), "big")
    if old_kernel:
        if magic == MAGIC_OLD:
            return FadumpVerdict(reason=VerdictReason.OK, words="the kernel accepts the header")
        if magic == MAGIC:
            return FadumpVerdict(
                reason=VerdictReason.NEW_MAGIC,
                words="the header is of Linux 6.10 or later, the capture kernel older",
            )
        if swapped in (MAGIC_OLD, MAGIC):
            return _endianness(byteorder)
        return _corrupted(magic)
    if magic == MAGIC_OLD:
        return FadumpVerdict(
            reason=VerdictReason.OLD_MAGIC,
            words="old magic number: the crashed kernel is older than Linux 6.10",
        )
    if magic != MAGIC:
        if swapped == MAGIC:
            return _endianness(byteorder)
        return _corrupted(magic)
    for reason, has, wants in (
        (VerdictReason.PT_REGS_SIZE, members["pt_regs_sz"], pt_regs_sz),
        (VerdictReason.CPU_MASK_SIZE, members["cpu_mask_sz"], cpu_mask_sz),
    ):
        if has != wants:
            return FadumpVerdict(
                reason=reason,
                words=(
                    f"{reason.value} mismatch: {has} bytes in the header, {wants} in the capture "
                    "kernel"
                ),
            )
    return FadumpVerdict(reason=VerdictReason.OK, words="the kernel accepts the header")


def _endianness(byteorder: ByteOrder) -> FadumpVerdict:
    other = "big" if byteorder == "little" else "little"
    return FadumpVerdict(
        reason=VerdictReason.ENDIANNESS,
        words=(
            f"endianness mismatch: the crashed kernel is {other}-endian, the capture kernel "
            f"{byteorder}-endian"
        ),
    )


def _corrupted(magic: int) -> FadumpVerdict:
    return FadumpVerdict(
        reason=VerdictReason.CORRUPTED, words=f"the header is corrupted: magic {magic:#018x}"
    )


def fadump_header_problems(header: FadumpHeader, address: int | None = None) -> list[str]:
    """
    What is wrong in a header although the kernel accepts it, one sentence each.

    :param address: Physical address of the header.
    """
    problems = []
    if header.version not in (None, 1):
        problems.append(f"version {header.version} is not 1")
    if header.pt_regs_sz is not None and not header.regs:
        problems.append(
            f"pt_regs_sz {header.pt_regs_sz} and cpu_mask_sz {header.cpu_mask_sz} cannot be right"
        )
    cpus = header.cpus
    if header.cpu_mask and not cpus:
        problems.append("the CPU mask is empty")
    if cpus and header.crashed and header.crashing_cpu not in cpus:
        problems.append(
            f"crashing_cpu {header.crashing_cpu} is not in the CPU mask (on OPAL it is a PIR)"
        )
    if header.vmcoreinfo_size is not None and header.vmcoreinfo_raddr is not None:
        sane = 0 < header.vmcoreinfo_size <= 1 << 20
        if not sane:
            problems.append(f"vmcoreinfo_size {header.vmcoreinfo_size} cannot be right")
        if not header.vmcoreinfo_raddr:
            problems.append("vmcoreinfo_raddr is 0")
        elif (
            address is not None
            and sane
            and (
                header.vmcoreinfo_raddr < address + header.size
                and address < header.vmcoreinfo_raddr + header.vmcoreinfo_size
            )
        ):
            problems.append(
                f"vmcoreinfo_raddr {header.vmcoreinfo_raddr:#x} is in the header itself"
            )
    if address is not None and header.layout == "FADMPINF" and header.regs:
        after = address + header.size
        if header.elfcorehdr_addr != after:
            problems.append(
                f"elfcorehdr_addr {header.elfcorehdr_addr:#x} is not the end of the header, "
                f"{after:#x}"
            )
    return problems

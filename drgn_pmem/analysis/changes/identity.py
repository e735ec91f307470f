# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Are two dumps of one machine?
-----------------------------

Of one machine, one build of the kernel, one boot, one crash: what each dump shows of that, and what
follows from both. Nothing follows from what one of them lacks.

Sources: vmcoreinfo (BUILD-ID, KERNELOFFSET, CRASHTIME), ``init_uts_ns`` in init/version.c,
``sysctl_bootid`` in drivers/char/random.c (zero until someone has read boot_id), the clocks of
kernel/time/timekeeping.c.
"""

from collections.abc import Iterable
import itertools
import re

from drgn import Program
from drgn.helpers.linux.timekeeping import ktime_get_boottime_seconds, ktime_get_real_seconds

from drgn_pmem.analysis.findings.crash import read_crash
from drgn_pmem.analysis.headers.subject import Subject
from drgn_pmem.dumpfile import vmcoreinfo_of
from drgn_pmem.kernel.debuginfo import has_variable
from drgn_pmem.kernel.kmod import has_kernel_debug_info
from drgn_pmem.partial import Partial, Problems
from drgn_pmem.record import Record, shown

__all__ = ("Identity", "Relation", "read_identity", "relations")

_YEAR_2000 = 946684800
"""seconds since 1970: a clock before it was never set"""
_SAME = 2
"""seconds: time of boot by two reads of the clocks"""
_OF_QEMU = re.compile("8680-[0-9a-f]{2}341200")
"""QEMU numbers the DIMMs of every guest alike."""


class Identity(Record):
    """What one dump shows of its machine, kernel, boot and crash. Text is as in the dump: escape it
    before it is shown."""

    file: str | None
    format: str | None
    subject: Subject | None
    architecture: str | None
    release: str | None
    version: str | None
    """``uname -v``"""
    build_id: str | None
    kernel_offset: str | None = shown(json=False)
    """KERNELOFFSET of vmcoreinfo."""
    host: str | None
    """Node name; None also if none was set."""
    boot_id: str | None
    booted: int | None
    """seconds since 1970; None if the clock was never set, or cannot be read"""
    made: int | None
    """When the memory was saved, seconds since 1970: CRASHTIME, else the kernel's clock."""
    crashed: int | None
    """CRASHTIME."""
    dimms: frozenset[str] = shown(json=False)
    """Unique ids."""
    namespaces: frozenset[str] = shown(json=False)
    """uuids"""


class Relation(Record):
    """Whether two dumps are of one machine, build, boot or crash."""

    what: str
    """``"machine"``, ``"build"``, ``"boot"``, ``"crash"``"""
    same: bool | None
    """None if it cannot be determined."""
    evidence: str


def read_identity(
    prog: Program, dimms: Iterable[str], namespaces: Iterable[str]
) -> Partial[Identity]:
    """
    What a dump shows of its machine, kernel, boot and crash.

    :param dimms: Unique ids of its DIMMs.
    :param namespaces: uuids of its namespaces.
    """
    problems = Problems()
    crash = problems.take(read_crash(prog))
    values = vmcoreinfo_of(prog).values
    # Without debug info, the problems of the crash say so.
    known = has_kernel_debug_info(prog)
    made, booted = _clocks(prog, problems) if known else (None, None)
    return problems.partial(
        Identity(
            file=crash.file,
            format=crash.format,
            subject=crash.subject,
            architecture=crash.architecture,
            release=crash.release,
            version=_name(prog, "version", problems) if known else None,
            build_id=values.get("BUILD-ID"),
            kernel_offset=values.get("KERNELOFFSET"),
            host=_host(prog, problems) if known else None,
            boot_id=_boot_id(prog, problems),
            booted=booted,
            made=_set(crash.time) or made,
            crashed=crash.time,
            dimms=frozenset(dimms),
            namespaces=frozenset(namespaces),
        )
    )


def _name(prog: Program, member: str, problems: Problems) -> str | None:
    def read() -> str:
        text: bytes = prog["init_uts_ns"].name.member_(member).string_()
        return text.decode("utf-8", "backslashreplace")

    return problems.attempt(f"{member} of the kernel", read)


def _host(prog: Program, problems: Problems) -> str | None:
    name = _name(prog, "nodename", problems)
    return None if name in ("(none)", "") else name


def _boot_id(prog: Program, problems: Problems) -> str | None:
    if not has_variable(prog, "sysctl_bootid"):
        return None
    value = problems.attempt("boot id", lambda: bytes(prog["sysctl_bootid"].value_()))
    if not value or not any(value):
        return None
    digits = value.hex()
    ends = (0, 8, 12, 16, 20, 32)
    return "-".join(digits[a:b] for a, b in itertools.pairwise(ends))


def _clocks(prog: Program, problems: Problems) -> tuple[int | None, int | None]:
    """Time now and time of boot, seconds since 1970."""

    def read() -> tuple[int, int]:
        now = ktime_get_real_seconds(prog).value_()
        return now, now - ktime_get_boottime_seconds(prog).value_()

    now, booted = problems.attempt("clock of the kernel", read) or (0, 0)
    return _set(now), _set(booted)


def _set(time: int | None) -> int | None:
    """A time; None of a clock that was never set: it counts from 1970."""
    return time if time is not None and time > _YEAR_2000 else None


def relations(a: Identity, b: Identity) -> tuple[Relation, ...]:
    """What two dumps have in common: machine, build, boot and crash."""
    machine = _machine(a, b)
    build = _build(a, b)
    boot = _boot(a, b, machine.same, build.same)
    if boot.same and machine.same is None:
        machine = Relation(what="machine", same=True, evidence="it is one boot")
    return machine, build, boot, _crash(a, b, boot.same)


def _machine(a: Identity, b: Identity) -> Relation:
    def found(same: bool | None, evidence: str) -> Relation:
        return Relation(what="machine", same=same, evidence=evidence)

    if a.architecture and b.architecture and a.architecture != b.architecture:
        return found(False, f"{a.architecture} and {b.architecture}")
    common = a.namespaces & b.namespaces
    if common:
        total = len(a.namespaces | b.namespaces)
        return found(True, f"{len(common)} of {total} uuids of namespaces in both")
    dimms = [{d for d in side.dimms if not _OF_QEMU.fullmatch(d)} for side in (a, b)]
    if dimms[0] & dimms[1]:
        total = len(dimms[0] | dimms[1])
        return found(True, f"{len(dimms[0] & dimms[1])} of {total} ids of DIMMs in both")
    hosts = a.host and b.host and a.host != b.host
    other = bool(a.namespaces and b.namespaces) or bool(dimms[0] and dimms[1])
    if other and hosts:
        return found(False, f"hosts {a.host} and {b.host}, no namespace or DIMM in both")
    if other:
        ignored = " (ids that QEMU gives every guest do not count)" if a.dimms & b.dimms else ""
        why = f"no namespace or DIMM in both{ignored}: another machine, or all was replaced"
        return found(None, why)
    if hosts:
        return found(None, f"hosts {a.host} and {b.host}; too little is known of their memory")
    return found(None, "no uuid of a namespace and no id of a DIMM is known of both")


def _build(a: Identity, b: Identity) -> Relation:
    def found(same: bool | None, evidence: str) -> Relation:
        return Relation(what="build", same=same, evidence=evidence)

    if a.build_id and b.build_id:
        if a.build_id == b.build_id:
            return found(True, f"build ID {a.build_id}")
        return found(False, f"build IDs {a.build_id} and {b.build_id}")
    for one, other in ((a.release, b.release), (a.version, b.version)):
        if one and other and one != other:
            return found(False, f"{one} and {other}")
    if a.version and a.version == b.version:
        return found(True, f"{a.release} {a.version}")
    return found(None, "a dump names no build ID")


def _boot(a: Identity, b: Identity, same_machine: bool | None, same_build: bool | None) -> Relation:
    def found(same: bool | None, evidence: str) -> Relation:
        return Relation(what="boot", same=same, evidence=evidence)

    if same_machine is False:
        return found(False, "not one machine")
    if same_build is False:
        return found(False, "not one build")
    if a.boot_id and b.boot_id:
        if a.boot_id == b.boot_id:
            return found(True, f"boot id {a.boot_id}")
        return found(False, f"boot ids {a.boot_id} and {b.boot_id}")
    if a.kernel_offset and b.kernel_offset and a.kernel_offset != b.kernel_offset:
        return found(False, f"KERNELOFFSET {a.kernel_offset} and {b.kernel_offset}")
    if a.booted is None or b.booted is None:
        which = "both" if a.booted is b.booted else "one"
        return found(None, f"the time of boot of {which} is not known")
    for name, one, other in (("B", a, b), ("A", b, a)):
        if one.made is not None and other.booted is not None and other.booted > one.made + _SAME:
            return found(False, f"{name} booted after the other was made")
    if abs(a.booted - b.booted) <= _SAME:
        # Two machines may be started together: the kernel's random address tells them apart.
        random = a.kernel_offset == b.kernel_offset and a.kernel_offset not in (None, "0")
        if same_machine or random:
            return found(True, "the same time of boot")
        return found(None, "the same time of boot, but whether of one machine is not known")
    return found(
        None, f"times of boot differ by {abs(a.booted - b.booted)} s: clock set, or reboot"
    )


def _crash(a: Identity, b: Identity, same_boot: bool | None) -> Relation:
    def found(same: bool | None, evidence: str) -> Relation:
        return Relation(what="crash", same=same, evidence=evidence)

    if same_boot is False:
        return found(False, "not one boot")
    if a.crashed is None or b.crashed is None:
        return found(None, "CRASHTIME is not in both (a hypervisor's dump has none)")
    if a.crashed != b.crashed:
        return found(False, f"CRASHTIME {a.crashed} and {b.crashed}")
    if same_boot:
        return found(True, f"CRASHTIME {a.crashed}")
    return found(None, f"CRASHTIME {a.crashed} in both; whether it is one boot is not known")

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The head of the first screen: which dump of which kernel (DUMP), which persistent memory
(PMEM)."""

from collections.abc import Iterable, Iterator
import contextlib
from typing import Any

from drgn.helpers.linux.sched import task_cpu

from drgn_pmem.analysis.coverage.segments import SegmentsAnswer
from drgn_pmem.analysis.findings.backtraces import crashed_task
from drgn_pmem.analysis.findings.case import Facts
from drgn_pmem.analysis.findings.crash import Crash, taint_words
from drgn_pmem.analysis.findings.model import Outcome, Ruling
from drgn_pmem.analysis.findings.rules.devices import namespace_counts
from drgn_pmem.analysis.findings.words import duration, few, least, plural, short_size
from drgn_pmem.analysis.headers.subject import Subject
from drgn_pmem.analysis.inventory.machine import read_machine
from drgn_pmem.dumpfile import DumpFormat, State, coverage_of, dump_of
from drgn_pmem.errors import NotFound
from drgn_pmem.kernel.crash_core import crashed_memory
from drgn_pmem.kernel.fadump import fw_dump
from drgn_pmem.kernel.nvdimm import Bus
from drgn_pmem.partial import Partial, Problems
from drgn_pmem.ranges import RangeSet

__all__ = ("dump_text", "pmem_text")

_PAPR = "ibm,persistent-memory:ibm,pmemory@"
"""What names of papr_scm's buses begin with: device tree nodes of the hypervisor's NVDIMMs."""


def dump_text(facts: Facts, problems: Problems) -> str:
    """The dump: its file, how much of what its headers describe it has, its kernel, the panic."""
    dump, crash = dump_of(facts.prog), problems.take(facts.crash())
    subject = problems.take(facts.subject())
    live = dump.contained is DumpFormat.LIVE
    parts = [crash.file or "live memory"]
    if not live:
        writer = _writer(facts, problems.take(facts.segments()))
        parts = [f"{crash.file}, {_whole(facts)} ({writer})"]
    release = f"Linux {crash.release or 'of unknown release'} {crash.architecture or ''}"
    parts.append(release.rstrip() + "".join(f", {part}" for part in _state(crash)))
    if subject.subject is Subject.CAPTURE_KERNEL:
        parts.append(f"memory of the CAPTURE kernel: {subject.evidence[0]}")
        memory = crashed_memory(facts.prog)
        parts.append(_crashed_memory(problems.take(memory), least(memory)))
    elif subject.subject is Subject.RUNNING_GUEST:
        parts.append(f"snapshot of a RUNNING guest: no panic, {_crash_kernel(facts, problems)}")
    elif crash.panic is not None:
        message = crash.panic.removeprefix("Kernel panic - not syncing: ")
        parts.append(f'panic "{message}"{_who(facts, problems)}')
    elif subject.subject is None or (crash.panic is None and not live):
        found = facts.crash().complete
        parts.append("no panic message was found" if found else "whether it panicked is not known")
    return "; ".join(parts)


def _crashed_memory(memory: RangeSet, at_least: str) -> str:
    """Where the memory of the kernel that crashed lies in that of its capture kernel."""
    if not memory:
        if at_least:
            return "where the memory of the kernel that crashed lies is not known"
        return "its /proc/vmcore has no memory of the kernel that crashed"
    where = few(f"{part.start:#x}-{part.end:#x}" for part in memory.contiguous())
    size = f"{at_least}{short_size(memory.total)}"
    return f"the memory of the kernel that crashed ({size}) is at {where}"


def _whole(facts: Facts) -> str:
    """Whether the file has all that a file of its kind should: what its own headers describe.
    Memory that they do not describe is the matter of the lines TRUST and LACKS."""
    dump, counts = dump_of(facts.prog), coverage_of(facts.prog).count()
    saved = counts.get(State.SAVED, 0)
    lost = counts.get(State.TRUNCATED, 0) + counts.get(State.DAMAGED, 0)
    total = saved + counts.get(State.EXCLUDED, 0) + lost
    if dump.contained is DumpFormat.IMAGE:
        return f"{short_size(saved)} of memory"
    whole = f"{short_size(total)} that its headers describe"
    if dump.truncated and saved + lost < total:
        left = f"{short_size(saved)} of {short_size(saved + lost)} are left"
        return f"truncated and filtered: {left}, of the {whole}"
    if dump.truncated:
        return f"truncated: {short_size(saved)} of the {whole}"
    if lost:
        return f"damaged: {short_size(lost)} of the {whole} cannot be read"
    if saved < total:
        # The smaller of both: rounded, the larger is the whole.
        part = (
            f"{short_size(saved)} of"
            if saved * 2 < total
            else f"without {short_size(total - saved)} of"
        )
        return f"complete but filtered: {part} the {whole}"
    return f"complete: all {whole}"


def _state(crash: Crash) -> Iterator[str]:
    if crash.uptime is not None:
        yield f"up {duration(crash.uptime)}"
    if crash.taints:
        yield f"tainted: {taint_words(crash.taints)}"


def _writer(facts: Facts, segments: SegmentsAnswer) -> str:
    """Format, and who made the dump."""
    dump = dump_of(facts.prog)
    formats = {DumpFormat.KDUMP: "kdump-compressed", DumpFormat.IMAGE: "raw images"}
    kind = formats.get(dump.contained, "ELF")
    if dump.format is DumpFormat.FLATTENED:
        kind += ", flattened"
    writer = segments.loader.by_order or segments.loader.by_kernel
    return kind if writer is None else f"{kind}, {writer.value}"


def _crash_kernel(facts: Facts, problems: Problems) -> str:
    with problems.trying("whether a crash kernel is loaded"):
        headers = problems.take(facts.headers())
        if headers.image is not None:
            return f"a crash kernel is loaded ({headers.image.loader.value})"
        # not a problem: this kernel has no firmware-assisted dump
        with contextlib.suppress(NotFound):
            if fw_dump(facts.prog).registered:
                return "firmware-assisted dump is registered"
        if headers.hotplug is not None:  # else kexec_crash_image could not be read
            return "no crash kernel loaded: a panic would leave no vmcore"
    return "whether a crash kernel is loaded is not known"


def _who(facts: Facts, problems: Problems) -> str:
    """``", PID 1 init on CPU 0"``: the task that panicked."""
    with problems.trying("the task that panicked"):
        task = problems.take(crashed_task(facts.prog))
        if task is not None:
            comm = task.comm.string_().decode("utf-8", "backslashreplace")
            return f", PID {task.pid.value_()} {comm} on CPU {task_cpu(task)}"
    return ""


def pmem_text(facts: Facts, media: Iterable[Ruling], problems: Problems) -> str:
    """
    The persistent memory of the machine.

    :param media: What the rules about info blocks, BTT and labels found out.
    """
    try:
        found = facts.inventory()
    except NotFound as error:
        # not a problem: the kernel knew of none, and the error says whether it could
        return str(error)
    inventory = problems.take(found)
    size = sum(r.size for r in inventory.regions)
    of_size: Partial[Any] = found
    if not size:
        machine = read_machine(facts.prog)
        size = sum(part.size for part in problems.take(machine).pmem.ranges)
        of_size = found if machine.complete else machine
    buses = few(_bus_names(inventory.buses, least(found)))
    parts = [least(of_size) + short_size(size)]
    if not size and not of_size.complete:
        parts = ["of unknown size"]
    if lost := sum(r.size for r in inventory.regions if r.type == "volatile"):
        parts[0] += f" ({least(found)}{short_size(lost)} volatile)"
    if inventory.dimms:
        parts[0] += f" on {least(found)}{plural(len(inventory.dimms), 'NVDIMM')}"
    parts[0] += f" ({buses})" if buses else ""
    enabled = [n for n in inventory.namespaces if n.enabled and n.raw_size > 0]
    count = plural(len(enabled), "namespace") if enabled or found.complete else ""
    modes = f" ({namespace_counts(enabled)})" if enabled else ""
    parts.append(f"{least(found)}{count} enabled{modes}" if count else "namespaces are not known")
    devices = [d for r in inventory.dax_regions for d in r.devices if d.mode == "system-ram"]
    if devices:
        online = _online(facts, problems)
        parts.append(f"{few(d.chardev for d in devices)} used as RAM{online}")
    valid = all(ruling.outcome is Outcome.NOT_FOUND for ruling in media)
    return ", ".join(parts) + ("; info blocks, BTT and labels are valid" if valid else "")


def _bus_names(buses: list[Bus], at_least: str) -> Iterator[str]:
    """Names of buses. Of those of POWER, one for each NVDIMM and with long names, how many."""
    names = [bus.provider or bus.dev for bus in buses]
    papr = sum(name.startswith(_PAPR) for name in names)
    if papr:
        yield f"{at_least}{papr} papr {'bus' if papr == 1 else 'buses'}"
    yield from (name for name in names if not name.startswith(_PAPR))


def _online(facts: Facts, problems: Problems) -> str:
    """How much persistent memory is online as RAM: whole memory blocks of a device."""
    try:
        namespaces = problems.take(facts.coverage()).namespaces
    except NotFound:
        # not a problem: that of DAX devices without a namespace is not persistent
        return ""
    sizes = [item.kmem for item in namespaces]
    known = [size for size in sizes if size is not None]
    return f" ({short_size(sum(known))})" if any(known) and known == sizes else ""

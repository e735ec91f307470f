# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rules about the dump itself: is it whole, of the right kernel, with debug info?"""

import contextlib

from drgn_pmem.analysis.findings.case import Case, rule
from drgn_pmem.analysis.findings.model import Heading, Severity
from drgn_pmem.analysis.findings.words import few, short_size
from drgn_pmem.analysis.headers.differences import ADDED_AFTER_LOAD
from drgn_pmem.analysis.headers.subject import Subject
from drgn_pmem.dumpfile import DumpFormat, State, coverage_of, dump_of, vmcoreinfo_of
from drgn_pmem.dumpfile.vmcoreinfo import Vmcoreinfo
from drgn_pmem.errors import NotFound
from drgn_pmem.kernel.fadump import fw_dump
from drgn_pmem.kernel.kmod import (
    has_kernel_debug_info,
    how_to_get_kernel,
    how_to_get_modules,
    lacking_modules,
)
from drgn_pmem.kernel.root import Verdict, root_of
from drgn_pmem.partial import Cause, Problem
from drgn_pmem.ranges import Range, RangeSet
from drgn_pmem.symbols import MODULES

__all__ = ()


@rule("dump-truncated", Heading.LACKS, "a truncated file", "pmem-usage")
def dump_truncated(case: Case) -> None:
    """The file ends before the data that its headers describe."""
    dump = dump_of(case.prog)
    if not dump.truncated:
        return
    lost = coverage_of(case.prog).count().get(State.TRUNCATED, 0)
    what = f"{short_size(lost)} of memory that its headers describe are missing"
    case.found(
        Severity.CRITICAL,
        "the dump",
        f"truncated: {what if lost else 'its writer could not finish it'}",
        do="copy the dump again, or save it again: the disk may have been full",
        place="truncated",
    )


@rule("dump-damaged", Heading.LACKS, "damaged pages of the file", "pmem-usage")
def dump_damaged(case: Case) -> None:
    """Descriptors of a kdump-compressed dump that cannot be right."""
    lost = coverage_of(case.prog).count().get(State.DAMAGED, 0)
    if lost:
        case.found(
            Severity.CRITICAL,
            "the dump",
            f"damaged: the file's entries for {short_size(lost)} of memory cannot be right",
            do="copy the dump again, and compare the checksums",
            place="damaged",
        )


@rule("dump-erased", Heading.LACKS, "erased data", "pmem-usage")
def dump_erased(case: Case) -> None:
    """What ``makedumpfile --config`` erased."""
    dump = dump_of(case.prog)
    if dump.erased:
        case.found(
            Severity.INFO,
            "the dump",
            f"makedumpfile erased data from it: {few(dump.erased)}",
            evidence=dump.erased,
            place="erased",
        )


@rule("vmcoreinfo-wrong", Heading.TRUST, "vmcoreinfo that does not fit", "pmem-report")
def vmcoreinfo_wrong(case: Case) -> None:
    """vmcoreinfo of another boot or kernel: addresses would be translated wrongly."""
    root = root_of(case.prog)
    if root.verdict is Verdict.WRONG:
        case.found(
            Severity.CRITICAL,
            "vmcoreinfo",
            root.reason or "does not fit this memory",
            do="open the dump with the vmcoreinfo of this boot (--vmcoreinfo FILE)",
            place="vmcoreinfo",
        )
        return
    if root.verdict is Verdict.UNVERIFIED:
        why = root.reason or "what it says could not be compared with the memory"
        case.problems.add(Problem(cause=Cause.NOT_SAVED, why=why), "vmcoreinfo")
    text = dump_of(case.prog).vmcoreinfo
    if text is None:
        return
    own, used = Vmcoreinfo.parse(text), vmcoreinfo_of(case.prog)
    if own.kernel_offset is not None and own.kernel_offset != used.kernel_offset:
        case.found(
            Severity.WARNING,
            "vmcoreinfo",
            f"the dump's KERNELOFFSET {own.kernel_offset:#x} does not fit this memory;"
            f" {used.kernel_offset or 0:#x} is used",
            place="vmcoreinfo",
        )


@rule("debug-info-missing", Heading.LACKS, "missing debug info", "pmem-list")
def debug_info_missing(case: Case) -> None:
    """Debug info of the kernel and of the modules that know about persistent memory."""
    if not has_kernel_debug_info(case.prog):
        case.found(
            Severity.CRITICAL,
            "debug info of the kernel",
            "not loaded: most of this cannot be decided",
            do=f"load debug info of the kernel: {how_to_get_kernel(case.prog)}",
            place="debug info",
        )
        return
    names = lacking_modules(case.prog, MODULES)
    if names:
        case.found(
            Severity.WARNING,
            f"debug info of {', '.join(names)}",
            "not loaded: what they know is unknown",
            do=f"load debug info of {', '.join(names)}: {how_to_get_modules(case.prog)}",
            place="debug info",
        )


@rule("capture-kernel", Heading.TRUST, "a dump of the capture kernel", "elfcorehdr")
def capture_kernel(case: Case) -> None:
    """The dump is of the kernel that was to save another one's dump."""
    subject = case.take(case.facts.subject)
    if subject.subject is Subject.CAPTURE_KERNEL:
        case.found(
            Severity.CRITICAL,
            "the dump",
            "is of the capture kernel, not of the one that crashed: every answer here is about the"
            " capture kernel",
            evidence=subject.evidence,
            do="open the kernel that crashed: drgn-pmem --crashed -c DUMP",
            place="capture kernel",
        )


@rule("no-crash-kernel", Heading.LACKS, "a crash kernel", "elfcorehdr")
def no_crash_kernel(case: Case) -> None:
    """A running machine on which nothing would save a dump if it crashed."""
    subject = case.take(case.facts.subject).subject
    if subject not in (Subject.RUNNING_GUEST, Subject.LIVE):
        return
    headers = case.take(case.facts.headers)
    if headers.image is not None or headers.hotplug is None or headers.hotplug.loaded:
        return
    # not a problem: this kernel has no firmware-assisted dump
    with contextlib.suppress(NotFound):
        if fw_dump(case.prog).registered:
            return
    case.found(
        Severity.WARNING,
        "crash kernel",
        "none is loaded: a panic would leave no vmcore",
        do="load a crash kernel (kdumpctl start, or kexec -p)",
        place="crash kernel",
    )


@rule("ram-missing", Heading.LACKS, "RAM that is not in the dump", "pmem-segments")
def ram_missing(case: Case) -> None:
    """RAM of the memory map that no program header covers and that nothing explains."""
    if dump_of(case.prog).contained is DumpFormat.LIVE:
        return
    segments, headers = case.take(case.facts.segments), case.take(case.facts.headers)
    # What was added after the load is the finding of another rule.
    added = RangeSet(
        Range(item.difference.start or 0, item.difference.end or 0)
        for item in headers.differences
        if item.cause in ADDED_AFTER_LOAD
    )
    missing = [gap for part in segments.missing_ram for gap in added.gaps(part.start, part.end)]
    if missing:
        size = sum(part.size for part in missing)
        case.found(
            Severity.CRITICAL,
            "RAM",
            f"{short_size(size)} of it are not in the dump: "
            + few(f"{part.start:#x}-{part.end:#x}" for part in missing),
            evidence=[f"{part.start:#x}-{part.end:#x} ({part.size} bytes)" for part in missing],
            place="RAM",
        )

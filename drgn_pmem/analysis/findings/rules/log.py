# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rules about the kernel log: does what it reports touch persistent memory?"""

from collections.abc import Iterator
import re

from drgn_pmem.analysis.findings.addresses import named_page, pmem_address
from drgn_pmem.analysis.findings.case import Case, log_of, rule
from drgn_pmem.analysis.findings.functions import is_of_pmem
from drgn_pmem.analysis.findings.model import Heading, Severity
from drgn_pmem.analysis.findings.splats import Splat, parse_splats, report_of_panic
from drgn_pmem.analysis.findings.words import few
from drgn_pmem.kernel.mmu import is_kernel_address
from drgn_pmem.kernel.pgmap import for_each_pmem_pgmap
from drgn_pmem.partial import Problems

__all__ = ()

_WARNING = re.compile(
    r"WARNING: (?:CPU: [0-9]+ PID: [0-9]+ at )?(?P<file>\S+):(?P<line>[0-9]+)(?: at)? "
    r"(?P<function>[\w.]+)\+"
)
_SOURCE = re.compile(
    r"(?:^|/)((?:arch|block|crypto|drivers|fs|include|init|io_uring|ipc|kernel|lib|mm|net|security"
    r"|sound|tools|virt)/.*)"
)
"""A path in the kernel's own tree."""

_PERSISTENCE = re.compile(r"(?P<dev>\S+): unable to guarantee persistence of writes")

_DEVICE = r"(?P<dev>(?:pmem|dax|dm-)[\w.]*)"
_IO_ERRORS = (
    re.compile(rf"EXT[24]-fs (?:error|warning) \(device {_DEVICE}\): (?P<what>.*)"),
    re.compile(rf"XFS \({_DEVICE}\): (?P<what>.*(?:error|orrupt|[Ss]hutting down|[Ss]hutdown).*)"),
    re.compile(rf"(?P<what>.*I/O error),? (?:on )?dev {_DEVICE}"),
    re.compile(r"nd_\w+ (?P<dev>\S+): (?P<what>.*(?:[Ff]ail|[Ee]rror|[Uu]nable to (?!guar)).*)"),
)


def _lines(case: Case) -> Iterator[str]:
    return iter(log_of(case).splitlines())


@rule("kernel-report", Heading.KERNEL, "warnings and errors about pmem in the log", "%crash log")
def kernel_report(case: Case) -> None:
    """Warnings, bugs, page faults, bad pages and hung tasks of the log that touch pmem: by the
    functions that they name, or by an address in them. What the rules about the panic say of the
    report of the fault that led to it is not repeated."""
    log = log_of(case)
    # not a problem: without the panic's message, its report is one like the others
    panic = Problems().take(case.facts.crash()).panic
    of_panic = report_of_panic(log, panic) if panic else None
    for splat in parse_splats(log):
        of_pmem = [name for name in splat.functions if is_of_pmem(name)]
        touched = list(dict.fromkeys(_touched(case, splat)))
        if splat == of_panic:
            of_pmem = []
            touched = [words for words in touched if words not in _decoded(case, splat.fault)]
        if not of_pmem and not touched:
            continue
        when = "" if splat.time is None else f"at {splat.time:.2f} s"
        who = "" if splat.pid is None else f"{splat.pid}/{splat.comm}"
        what = f"touches {few(touched, 2)}" if touched else f"in {few(of_pmem, 2)}"
        title, warning = _title(splat), splat.title.startswith("WARNING")
        case.found(
            Severity.WARNING if warning else Severity.CRITICAL,
            title,
            ", ".join(part for part in (when, who, what) if part),
            evidence=splat.lines[:40],
            do=_how_to_follow(title, warning),
            place="report",
        )


def _how_to_follow(title: str, warning: bool) -> str:
    """What to do about a report of the log."""
    said = f'look for a fix of "{title}" in newer kernels, or report its trace (%crash log)'
    return f"{said}: the kernel was in a state that it does not expect" if warning else said


def _title(splat: Splat) -> str:
    """``"WARNING fs/dax.c:380 dax_insert_entry"``"""
    match = _WARNING.match(splat.title)
    if match is None:
        return splat.title[:120]
    source = _SOURCE.search(match["file"])
    file = source[1] if source else match["file"]
    return f"WARNING {file}:{match['line']} {match['function']}"


def _touched(case: Case, splat: Splat) -> Iterator[str]:
    """Pages of pmem that a report has an address of, with their files."""
    pgmaps = case.take(lambda: for_each_pmem_pgmap(case.prog))
    if splat.pfn is not None and any(pgmap.has_pfn(splat.pfn) for pgmap in pgmaps):
        pfn = splat.pfn
        yield case.take(lambda: named_page(case.prog, pfn))
    for address in splat.addresses:
        yield from _decoded(case, address)


def _decoded(case: Case, address: int | None) -> Iterator[str]:
    if address is not None and is_kernel_address(case.prog, address):
        found = case.problems.take(pmem_address(case.prog, address), "an address in the log")
        if found is not None:
            yield found.words


@rule("persistence-not-guaranteed", Heading.KERNEL, "writes without a flush", "pmem-list -R")
def persistence_not_guaranteed(case: Case) -> None:
    """Namespaces whose platform has no way to flush: after a power loss, writes may be lost."""
    devices = [m["dev"] for m in map(_PERSISTENCE.search, _lines(case)) if m]
    if devices:
        case.found(
            Severity.WARNING,
            few(devices),
            '"unable to guarantee persistence of writes"',
            evidence=[f"log: {line}" for line in _lines(case) if _PERSISTENCE.search(line)],
            place="persistence",
        )


@rule("io-error", Heading.KERNEL, "I/O errors of pmem in the log", "%crash log")
def io_error(case: Case) -> None:
    """Errors that file systems and drivers logged about a device on pmem."""
    errors: dict[str, list[str]] = {}
    for line in _lines(case):
        for pattern in _IO_ERRORS:
            match = pattern.search(line)
            if match:
                errors.setdefault(match["dev"], []).append(line)
                break
    for dev, lines in errors.items():
        count = f" ({len(lines)} such lines)" if len(lines) > 1 else ""
        case.found(
            Severity.WARNING,
            dev,
            f"error in the log: {lines[0].partition('] ')[2] or lines[0]}{count}",
            evidence=[f"log: {line}" for line in lines[:20]],
            place="error",
        )

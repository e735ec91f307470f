# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rules about the panic: do its stack, its faulting address and registers, or its task have to do
with persistent memory?"""

from collections.abc import Iterator

from drgn_pmem.analysis.findings.addresses import pmem_address
from drgn_pmem.analysis.findings.backtraces import crashed_task
from drgn_pmem.analysis.findings.case import Case, log_of, rule
from drgn_pmem.analysis.findings.functions import is_of_pmem
from drgn_pmem.analysis.findings.model import Heading, Severity
from drgn_pmem.analysis.findings.splats import panic_functions, report_of_panic
from drgn_pmem.analysis.findings.words import few, plural
from drgn_pmem.analysis.owners.daxfiles import dax_chars_of, dax_files_of
from drgn_pmem.kernel.mmu import is_kernel_address
from drgn_pmem.kernel.rmap import vmas_of_mapping
from drgn_pmem.partial import Cause, Partial, Problem, Problems

__all__ = ()


@rule("panic-in-pmem", Heading.KERNEL, "the panic in functions of pmem", "pmem-report")
def panic_in_pmem(case: Case) -> None:
    """The task that panicked was in a function of persistent memory."""
    panic = case.take(case.facts.crash).panic
    if panic is None:
        return
    log = log_of(case)
    report = report_of_panic(log, panic)
    names = [] if report is None else list(report.functions)
    names += panic_functions(log)
    # not a problem: the log has the calls, so a stack that cannot be unwound lacks nothing
    problems = Problems() if names else case.problems
    trace = problems.take(case.facts.panic_stack())
    if trace is not None:
        names += [frame.function for frame in trace.frames if frame.function]
        for pc in [frame.pc for frame in trace.frames if frame.function is None]:
            what = "a function" if pc is None else f"the function at {pc:#x}"
            why = f"{what} has no symbol: that of a module without debug info"
            problems.add(Problem(cause=Cause.NO_DEBUG_INFO, why=why), "stack of the panic")
    of_pmem = [name for name in dict.fromkeys(names) if is_of_pmem(name)]
    if of_pmem:
        case.found(
            Severity.CRITICAL,
            "the panic",
            f"its stack is in {few(of_pmem)}",
            evidence=[" <- ".join(dict.fromkeys(names))],
            more="%crash bt",
            place="panic",
        )


@rule("panic-address", Heading.KERNEL, "the panic's faulting address in pmem", "%crash log")
def panic_address(case: Case) -> None:
    """The address that the kernel failed to access, or a register at the fault, is that of a page
    of persistent memory, of its struct page or of a namespace that is mapped."""
    panic = case.take(case.facts.crash).panic
    if panic is None:
        return
    log = log_of(case)
    report = report_of_panic(log, panic)
    # not a problem: the log has the registers of the fault, or shows that there was no fault
    problems = Problems() if report or panic_functions(log) else case.problems
    registers = problems.take(case.facts.panic_registers())
    faults = [] if report is None or report.fault is None else [report.fault]
    for address in faults:
        for words in _decoded(case, address):
            case.found(
                Severity.CRITICAL,
                "the panic",
                f"it failed to access {address:#x}, which is {words}",
                evidence=[f"log: {line}" for line in report.lines[:40]] if report else (),
                place="panic",
            )
            return
    touched: dict[str, list[str]] = {}
    where = next((r.function for r in registers if r.function), None)
    for register in registers:
        for words in _decoded(case, register.value):
            touched.setdefault(words, []).append(f"{register.name} {register.value:#x}")
    for words, names in list(touched.items())[:_MAX_REGISTERS]:
        case.found(
            Severity.WARNING,
            "the panic",
            f"at the fault{f' in {where}' if where else ''} {few(names)} pointed to {words}",
            evidence=[f"{register.name} {register.value:#x}" for register in registers],
            more="%crash bt",
            place="panic",
        )


_MAX_REGISTERS = 3
"""Findings about registers."""


def _decoded(case: Case, address: int) -> Iterator[str]:
    if not is_kernel_address(case.prog, address):
        return
    found = case.problems.take(pmem_address(case.prog, address), "an address of the panic")
    if found is not None:
        yield found.words


@rule("panic-task", Heading.KERNEL, "pmem mapped by the task that panicked", "pmem-files")
def panic_task(case: Case) -> None:
    """The task that panicked has files or devices on persistent memory mapped: it may have been at
    work on them."""
    if case.take(case.facts.crash).panic is None:
        return
    task = case.take(lambda: crashed_task(case.prog))
    mm = 0
    with case.problems.trying("the task that panicked"):
        mm = 0 if task is None else task.mm.value_()
    if not mm or task is None:
        return
    names = case.take(lambda: _mapped_by(case, mm))
    if names:
        comm = task.comm.string_().decode("utf-8", "backslashreplace")
        case.found(
            Severity.INFO,
            "the panic",
            f"its task {task.pid.value_()}/{comm} maps {plural(len(names), 'file')} on pmem:"
            f" {few(names)}",
            evidence=names,
            place="panic",
        )


def _mapped_by(case: Case, mm: int) -> Partial[list[str]]:
    """Files and DAX devices that a process maps."""
    problems = Problems()
    inodes = [(f.inode, f.text(problems)) for f in problems.take(dax_files_of(case.prog)).files]
    chars = problems.take(dax_chars_of(case.prog))
    inodes += [(char.inode, next(iter(char.paths), char.name)) for char in chars]
    return problems.partial(
        [
            name
            for inode, name in inodes
            if any(v.mm == mm for v in problems.take(vmas_of_mapping(case.prog, inode.mapping)))
        ]
    )

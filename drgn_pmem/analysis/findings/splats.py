# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Reports in the kernel log
-------------------------

What the kernel printed when something was wrong, with the calls and registers that it printed
along: warnings and bugs (kernel/panic.c, lib/bug.c), page faults of the kernel
(arch/x86/mm/fault.c, arch/arm64/mm/fault.c, arch/powerpc/mm/fault.c), bad page states
(mm/page_alloc.c), hung tasks (kernel/hung_task.c), lockups (kernel/watchdog.c).
"""

from collections.abc import Iterable, Iterator
import re

from drgn_pmem.record import Record, Show, shown

__all__ = ("Splat", "panic_functions", "parse_splats", "report_of_panic")

_MAX_LINES = 200
"""Lines of one report."""

_PREFIX = re.compile(r"^\[ *(?P<time>[0-9]+\.[0-9]+)\](?:\[ *[TC][0-9]+\])? ?")

_TITLES = (
    re.compile(r"WARNING: "),
    re.compile(r"BUG: (?!workqueue)"),
    re.compile(r"kernel BUG at "),
    re.compile(r"INFO: task \S+:[0-9]+ blocked for more than"),
    re.compile(r"INFO: rcu\S* (self-)?detected"),
    re.compile(r"watchdog: BUG: "),
    re.compile(r"general protection fault"),
    re.compile(r"Oops: "),
    re.compile(r"Unable to handle kernel "),
    re.compile(r"Internal error: "),
    re.compile(r"Kernel attempted to (read|write|execute) "),
    re.compile(r"Synchronous External Abort|SError Interrupt"),
)
_PANIC = re.compile(r"Kernel panic - not syncing")
_END = re.compile(r"---\[ end |</TASK>")
_TRACE = re.compile(r"call trace:", re.I)
_Line = tuple[float | None, str]
"""Time and text."""
_TASK = re.compile(r"\bPID: (?P<pid>[0-9]+).* Comm: (?P<comm>.*?) (Not tainted|Tainted|Kdump)")
_NEW_TASK = re.compile(r"^WARNING: .*, CPU#[0-9]+: (?P<comm>.*)/(?P<pid>[0-9]+)$")
"""Since v6.18."""
_HUNG = re.compile(r"INFO: task (?P<comm>\S+):(?P<pid>[0-9]+) blocked")
_CALL = re.compile(r"(?P<function>[A-Za-z_.][\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+")
_GUESSED = re.compile(r"^ *\? ")
"""A call that x86's unwinder only found on the stack: an earlier one may have left it there."""
_BY_FAULT = re.compile(
    r"Oops|Fatal exception|Internal error|Unable to handle|unable to handle|general protection"
    r"|kernel BUG|NULL pointer|Aiee|Attempted to kill init|Unrecoverable"
)
"""Panics that a fault of the kernel led to."""
_KERNEL_ADDRESS = re.compile(r"(?<![0-9a-f.-])(?:0x)?(?P<value>[89a-f][0-9a-f]{15})(?![0-9a-f-])")
_FAULT = re.compile(
    r"(?:for address:|paging request at|virtual address|(?:probably|maybe) for (?:non-canonical )?"
    r"address|NULL pointer dereference(?:,? address:| at)|data access on (?:read|write) at"
    r"|instruction fetch at|for (?:data|instruction fetch) at address|Effective address:|DAR:)"
    r" *(?:0x)?(?P<value>[0-9a-f]{8,16})\b"
)
"""The address that a fault was about, by arch/x86, arm64 and powerpc."""
_PAGE_FAULT = re.compile(r"#PF: |page fault|^Oops: [0-9a-f]{4} ")
_CR2 = re.compile(r"CR2: (?P<value>[0-9a-f]{16})\b")
"""x86 prints it with every report: of another one than a page fault it is that of an earlier
fault."""
_BAD_PFN = re.compile(r"BUG: Bad page (?:state|map).* pfn:(?P<pfn>[0-9a-f]{1,16})")


class Splat(Record):
    """One report of the kernel log."""

    time: float | None
    """seconds since boot"""
    title: str
    """Its first line, without the time."""
    pid: int | None
    comm: str | None
    functions: tuple[str, ...]
    """Those that the report names, in its order; no guesses where the unwinder knew."""
    addresses: tuple[int, ...] = shown(Show.ADDRESS)
    """Kernel addresses of it: registers, the faulting address."""
    fault: int | None = shown(Show.ADDRESS)
    """The address that the kernel failed to access; None if the report is about no such fault."""
    pfn: int | None = shown(Show.ADDRESS)
    """Of a bad page state or map."""
    lines: tuple[str, ...]


def parse_splats(log: str) -> list[Splat]:
    """
    The reports of a kernel log, in its order. What follows a panic message is the panic's own.

    :param log: Lines as ``dmesg`` prints them.
    """
    found: list[list[_Line]] = []
    current: list[_Line] | None = None
    for line in _lines(log):
        text = line[1]
        if _PANIC.search(text):
            break
        # "Oops: " and "Internal error: " are lines of a report that has begun.
        inner = current is not None and text.lstrip().startswith(("Oops: ", "Internal error: "))
        if not inner and any(title.search(text) for title in _TITLES):
            current = []
            found.append(current)
        if current is None:
            continue
        if _is_over(current, text):
            current = None
            continue
        current.append(line)
        if _END.search(text) or len(current) >= _MAX_LINES:
            current = None
    return [_splat(lines) for lines in found]


def panic_functions(log: str) -> list[str]:
    """The calls that panic() printed after its message, innermost first; none if it printed none
    (``CONFIG_DEBUG_BUGVERBOSE``, or after an oops, which is a report of its own)."""
    texts: list[str] = []
    for _, text in _lines(log):
        if texts or _PANIC.search(text):
            texts.append(text)
    return _functions(texts)


def report_of_panic(log: str, panic: str) -> Splat | None:
    """
    The report of the fault that led to a panic: the last one before it. With a crash kernel loaded,
    x86 starts that after the report, before panic() prints anything.

    :param panic: The panic's message.
    """
    reports = parse_splats(log)
    return reports[-1] if reports and _BY_FAULT.search(panic) else None


def _functions(texts: Iterable[str]) -> list[str]:
    """The functions of calls and of instruction pointers, without those that were only guessed,
    unless all are (``CONFIG_UNWINDER_GUESS``)."""
    calls = [text for text in texts if _CALL.search(text)]
    certain = [text for text in calls if not _GUESSED.match(text)]
    if any(text.startswith(" ") for text in certain):
        calls = certain
    return list(dict.fromkeys(m["function"] for text in calls for m in _CALL.finditer(text)))


def _is_over(lines: list[_Line], text: str) -> bool:
    """Whether a line is no part of the report any more: a hung task has no mark at its end."""
    traced = any(_TRACE.search(line) for _, line in lines)
    in_task = any("<TASK>" in line for _, line in lines)
    called = bool(lines) and bool(_CALL.search(lines[-1][1]))
    return traced and called and not in_task and not text.startswith((" ", "[", "---", "Code"))


def _lines(log: str) -> Iterator[_Line]:
    for line in log.splitlines():
        prefix = _PREFIX.match(line)
        if prefix is None:
            yield None, line
        else:
            yield float(prefix["time"]), line[prefix.end() :]


def _splat(lines: list[_Line]) -> Splat:
    texts = tuple(text for _, text in lines)
    tasks = (pattern.search(text) for text in texts for pattern in (_TASK, _HUNG, _NEW_TASK))
    task = next(filter(None, tasks), None)
    bad = next(filter(None, map(_BAD_PFN.search, texts)), None)
    faults = [_FAULT] + [_CR2] * any(map(_PAGE_FAULT.search, texts))
    matches = (pattern.search(text) for pattern in faults for text in texts)
    fault = next(filter(None, matches), None)
    return Splat(
        time=lines[0][0],
        title=texts[0].strip(),
        pid=None if task is None else int(task["pid"]),
        comm=None if task is None else task["comm"],
        functions=tuple(_functions(texts)),
        addresses=tuple(
            dict.fromkeys(
                int(match["value"], 16)
                for text in texts
                for match in _KERNEL_ADDRESS.finditer(text)
            )
        ),
        fault=None if fault is None else int(fault["value"], 16),
        pfn=None if bad is None else int(bad["pfn"], 16),
        lines=texts,
    )

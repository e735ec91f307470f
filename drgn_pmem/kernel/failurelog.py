# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Memory errors in the kernel log
-------------------------------

Every kind of line by which the kernel reports an error of memory with its address: memory failures
(mm/memory-failure.c, drivers/base/memory.c), machine checks of x86 (arch/x86/kernel/cpu/mce/core.c)
and powerpc (arch/powerpc/kernel/mce.c), APEI (drivers/acpi/apei/ghes.c,
drivers/firmware/efi/cper.c, and cper-arm.c for arm64), EDAC (drivers/edac/edac_mc.c,
skx_common.c), CXL (drivers/cxl/core/mce.c).

The handlers of nfit and libnvdimm log nothing by default (dev_dbg): what they know is in the bad
ranges (:mod:`drgn_pmem.kernel.badblocks`). Other events of CXL devices are trace events, not lines
of the log.
"""

from collections.abc import Callable, Iterable, Iterator
import enum
import re

from drgn import Program

from drgn_pmem.kernel.kernellog import read_log
from drgn_pmem.partial import Cause, Partial, Problem, Problems
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "FailureEvent",
    "FailureLine",
    "FailureSource",
    "for_each_failure_line",
    "history_of",
    "parse_log",
)


class FailureSource(enum.Enum):
    """Which part of the kernel wrote a line."""

    MEMORY_FAILURE = "kernel log"
    MCE = "mce"
    GHES = "APEI/GHES"
    EDAC = "EDAC"
    POWERPC = "powerpc MCE"
    CXL = "CXL"


class FailureEvent(enum.Enum):
    """What a line says of a page."""

    REPORTED = "reported"
    CORRECTED = "corrected"
    """An error that the hardware corrected: the data is intact."""
    INJECTED = "injected"
    SIGNALLED = "process signalled"
    HANDLED = "handled"
    NOT_HANDLED = "not handled"
    CLEARED = "cleared"


class FailureLine(Record):
    """A line of the kernel log about an error of memory."""

    pfn: int = shown(Show.ADDRESS)
    physical: int | None = shown(Show.ADDRESS)
    """None if the line has a PFN only."""
    source: FailureSource
    event: FailureEvent
    time: float | None
    """seconds since boot; None if the line has no time"""
    text: str
    """The whole line, as in the dump."""


_TIME = re.compile(rb"\[ *([0-9]+\.[0-9]+)\]")

_Found = tuple[FailureSource, FailureEvent, int | None, int | None]
"""Source, event, PFN, physical address: one of the two is None."""


class _Reader:
    """Reads a log; some lines say what those after them are about."""

    def __init__(self, page_shift: int) -> None:
        self.page_shift = page_shift
        self.corrected: dict[bytes, bool] = {}
        """By the number that APEI gives its records: whether the error was corrected."""
        self.mce_corrected = False
        self.of_controllers = 0
        """Lines whose address is a memory controller's own."""

    def line(self, line: bytes) -> _Found | None:
        for pattern, read in _LINES:
            match = pattern.search(line)
            if match:
                found: _Found | None = read(self, match)
                return found
        return None

    def memory_failure(self, match: "re.Match[bytes]") -> _Found:
        event, rest = FailureEvent.REPORTED, match[2]
        if action := re.search(rb"recovery action for .*: (\w+)", rest):
            done = action[1] in (b"Recovered", b"Delayed")
            event = FailureEvent.HANDLED if done else FailureEvent.NOT_HANDLED
        elif b"Sending SIGBUS" in rest or b"forcibly killing" in rest:
            event = FailureEvent.SIGNALLED
        return FailureSource.MEMORY_FAILURE, event, int(match[1], 16), None

    def injected(self, match: "re.Match[bytes]") -> _Found:
        return FailureSource.MEMORY_FAILURE, FailureEvent.INJECTED, int(match[1], 16), None

    def unpoisoned(self, match: "re.Match[bytes]") -> _Found:
        return FailureSource.MEMORY_FAILURE, FailureEvent.CLEARED, int(match[1], 16), None

    def user_access(self, match: "re.Match[bytes]") -> _Found:
        return FailureSource.MCE, FailureEvent.REPORTED, None, int(match[1], 16)

    def mce_status(self, match: "re.Match[bytes]") -> None:
        # MCI_STATUS_UC of arch/x86/include/asm/mce.h
        self.mce_corrected = not int(match[1], 16) >> 61 & 1

    def mce_address(self, match: "re.Match[bytes]") -> _Found | None:
        if b"IPID" in match[2]:
            # On AMD's scalable MCA the address may be the memory controller's own (normalized).
            self.of_controllers += 1
            return None
        return FailureSource.MCE, self._mce_event(), None, int(match[1], 16)

    def _mce_event(self) -> FailureEvent:
        return FailureEvent.CORRECTED if self.mce_corrected else FailureEvent.REPORTED

    def apei_severity(self, match: "re.Match[bytes]") -> None:
        self.corrected[match[1]] = match[2] == b"corrected"

    def apei_address(self, match: "re.Match[bytes]") -> _Found:
        corrected = self.corrected.get(match[1] or b"", False)
        event = FailureEvent.CORRECTED if corrected else FailureEvent.REPORTED
        return FailureSource.GHES, event, None, int(match[2], 16)

    def apei_invalid(self, match: "re.Match[bytes]") -> _Found:
        return FailureSource.GHES, FailureEvent.REPORTED, None, int(match[1], 16)

    def edac(self, match: "re.Match[bytes]") -> _Found:
        event = FailureEvent.CORRECTED if match[1] == b"CE" else FailureEvent.REPORTED
        physical = (int(match[2], 16) << self.page_shift) + int(match[3], 16)
        return FailureSource.EDAC, event, None, physical

    def edac_address(self, match: "re.Match[bytes]") -> _Found:
        return FailureSource.EDAC, self._mce_event(), None, int(match[1], 16)

    def amd_address(self, match: "re.Match[bytes]") -> None:
        # drivers/edac/mce_amd.c; that of a memory controller is normalized, and the line does not
        # say whether it is.
        self.of_controllers += 1

    def cxl_alias(self, match: "re.Match[bytes]") -> _Found:
        # drivers/cxl/core/mce.c: the same cache line at the address of its extended linear cache
        return FailureSource.CXL, FailureEvent.REPORTED, None, int(match[1], 16)

    def powerpc(self, match: "re.Match[bytes]") -> _Found:
        return FailureSource.POWERPC, FailureEvent.REPORTED, None, int(match[1], 16)


_Read = Callable[[_Reader, "re.Match[bytes]"], "_Found | None"]

_LINES: tuple[tuple["re.Pattern[bytes]", _Read], ...] = (
    (re.compile(rb"Memory failure: (0x[0-9a-f]{1,16})[: ](.*)"), _Reader.memory_failure),
    (re.compile(rb"Injecting memory failure for pfn (0x[0-9a-f]{1,16}) "), _Reader.injected),
    (
        re.compile(rb"Unpoison: Software-unpoisoned (?:free )?page (0x[0-9a-f]{1,16})"),
        _Reader.unpoisoned,
    ),
    (
        re.compile(rb"Uncorrected hardware memory error in user-access at ([0-9a-f]{1,16})"),
        _Reader.user_access,
    ),
    (
        re.compile(
            rb"Machine Check(?: Exception| Event)?: \S+ Bank [0-9]+: (?:0x)?([0-9a-f]{1,16})"
        ),
        _Reader.mce_status,
    ),
    (re.compile(rb"EDAC .*\bADDR 0x([0-9a-f]{1,16})"), _Reader.edac_address),
    (re.compile(rb"\[Hardware Error\]: TSC .*\bADDR ([0-9a-f]{1,16})(.*)"), _Reader.mce_address),
    (
        re.compile(rb"(\{[0-9]+\})?\[Hardware Error\]: *event severity: (\w+)"),
        _Reader.apei_severity,
    ),
    (
        re.compile(
            rb"(\{[0-9]+\})?\[Hardware Error\]: *physical(?:_| fault )address: "
            rb"(0x[0-9a-f]{1,16})"
        ),
        _Reader.apei_address,
    ),
    (
        re.compile(rb"Invalid address in generic error data: (0x[0-9a-f]{1,16})"),
        _Reader.apei_invalid,
    ),
    (
        re.compile(
            rb"EDAC MC[0-9]+: [0-9]+ (CE|UE) .*\bpage:(0x[0-9a-f]{1,16}) "
            rb"offset:(0x[0-9a-f]{1,16})"
        ),
        _Reader.edac,
    ),
    (re.compile(rb"\[Hardware Error\]: Error Addr: 0x[0-9a-f]{1,16}"), _Reader.amd_address),
    (
        re.compile(rb"Offlining aliased SPA address[0-9]*: 0x([0-9a-f]{1,16})"),
        _Reader.cxl_alias,
    ),
    (re.compile(rb"MCE: CPU[0-9]+: .*\bpaddr: ([0-9a-f]{1,16})"), _Reader.powerpc),
)


def parse_log(log: bytes, page_shift: int) -> Partial[list[FailureLine]]:
    """
    The lines of a kernel log that report an error of memory at an address, in their order.

    :param log: Lines as ``dmesg`` prints them.
    :param page_shift: log2 of bytes
    """
    problems = Problems()
    reader = _Reader(page_shift)
    found = list(_lines(reader, log))
    if reader.of_controllers:
        why = (
            f"{reader.of_controllers} machine checks give an address of an AMD memory controller:"
            " which physical address that is cannot be determined"
        )
        problems.add(Problem(cause=Cause.UNSUPPORTED, why=why))
    return problems.partial(found)


def _lines(reader: _Reader, log: bytes) -> Iterator[FailureLine]:
    for line in log.splitlines():
        found = reader.line(line)
        if found is None:
            continue
        source, event, pfn, physical = found
        time = _TIME.match(line)
        if pfn is None:
            assert physical is not None
            pfn = physical >> reader.page_shift
        yield FailureLine(
            pfn=pfn,
            physical=physical,
            source=source,
            event=event,
            time=float(time[1]) if time else None,
            text=line.decode("utf-8", "backslashreplace"),
        )


def history_of(lines: Iterable[FailureLine]) -> Iterator[tuple[FailureLine, str]]:
    """
    What happened to a page.

    :param lines: Of one page, in the order of the log.
    :return: Each line and its event; ``"reported again"`` after it was handled or cleared.
    """
    settled = False
    for line in lines:
        again = settled and line.event is FailureEvent.REPORTED
        settled |= line.event in (FailureEvent.HANDLED, FailureEvent.CLEARED)
        yield line, "reported again" if again else line.event.value


def for_each_failure_line(prog: Program) -> Partial[list[FailureLine]]:
    """Lines of the kernel log about errors of memory, in their order."""
    problems = Problems()
    log = problems.attempt("the kernel log", lambda: read_log(prog)) or b""
    return problems.partial(problems.take(parse_log(log, int(prog["PAGE_SHIFT"]))))

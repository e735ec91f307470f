# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The log lines that matter
-------------------------

Of the kernel log, the lines that have to do with persistent memory or with the crash: errors of
memory, reports (warnings, oopses, hung tasks) with the address and the function that they are
about, failures of libnvdimm, DAX and the file systems on them, the panic.
"""

from collections.abc import Iterator
import enum
import re

from drgn import Program

from drgn_pmem.dumpfile.faults import guard_reads
from drgn_pmem.kernel.failurelog import parse_log
from drgn_pmem.kernel.kernellog import read_log
from drgn_pmem.partial import Cause, Partial, Problem, Problems
from drgn_pmem.record import Record

__all__ = ("LogLine", "LogTopic", "parse_log_lines", "read_log_lines")

_MAX_LINES = 500


class LogTopic(enum.Enum):
    """What a line is about."""

    MEMORY = "memory error"
    REPORT = "kernel report"
    DRIVER = "libnvdimm or DAX"
    FILE_SYSTEM = "file system"
    PANIC = "panic"


class LogLine(Record):
    """A line of the kernel log."""

    time: float | None
    """seconds since boot; None if the line has no time"""
    topic: LogTopic
    text: str
    """Without the time, as in the dump: not escaped."""


_PREFIX = re.compile(r"^\[ *(?P<time>[0-9]+\.[0-9]+)\](?:\[ *[TC][0-9]+\])? ?")

_TOPICS = (
    (LogTopic.PANIC, re.compile(r"Kernel panic - not syncing|sysrq: Trigger a crash")),
    (
        LogTopic.REPORT,
        re.compile(
            r"^WARNING: |^BUG: |kernel BUG at |blocked for more than [0-9]+ seconds|^Oops: "
            r"|general protection fault|Unable to handle kernel |^Internal error: "
            r"|detected stalls|watchdog: BUG|^Kernel attempted to "
            r"|^RIP: 0010:|^pc : |^NIP \["
        ),
    ),
    (
        LogTopic.FILE_SYSTEM,
        re.compile(
            r"EXT[24]-fs (?:error|warning) \(device (?:pmem|dm-)|EXT4-fs \(pmem.*[Ee]rror"
            r"|XFS \((?:pmem|dm-)[^)]*\):.*(?:error|orrupt|[Ss]hut)"
            r"|I/O error,? (?:on )?dev (?:pmem|dm-)"
        ),
    ),
    (
        LogTopic.DRIVER,
        re.compile(
            r"^(?:nd_\w+|nd|nfit|nvdimm|libnvdimm|nmem[0-9]+|region[0-9]+|namespace[0-9.]+"
            r"|device_dax|dax\w*|kmem|pmem[0-9][\w.]*|btt\w*|papr_scm|ibm,persistent-memory"
            r"|virtio_pmem|of_pmem|cxl_\w+|acpi ACPI0012)\b[^:]*:? .*"
            r"(?:[Ff]ail|[Ee]rror|[Uu]nable|[Cc]annot|not |[Ii]nvalid|[Dd]isabl|[Cc]orrupt|[Bb]ad)"
        ),
    ),
)


def parse_log_lines(log: bytes, page_shift: int) -> Partial[tuple[LogLine, ...]]:
    """
    The lines of a log that matter, in its order.

    :param log: Lines as ``dmesg`` prints them.
    :param page_shift: log2 of bytes
    """
    problems = Problems()
    # not a problem: addresses of memory controllers do not matter for the text of the lines
    errors = {line.text for line in Problems().take(parse_log(log, page_shift))}
    found = list(_lines(log.decode("utf-8", "backslashreplace"), errors))
    if len(found) > _MAX_LINES:
        why = f"the first {_MAX_LINES} of {len(found)} lines of the log that matter"
        problems.add(Problem(cause=Cause.LIMIT, why=why))
    return problems.partial(tuple(found[:_MAX_LINES]))


def _lines(log: str, errors: set[str]) -> Iterator[LogLine]:
    for line in log.splitlines():
        prefix = _PREFIX.match(line)
        text = line[prefix.end() :] if prefix else line
        topic = next((topic for topic, pattern in _TOPICS if pattern.search(text)), None)
        if line in errors:
            topic = LogTopic.MEMORY
        if topic is not None:
            time = float(prefix["time"]) if prefix else None
            yield LogLine(time=time, topic=topic, text=text)


def read_log_lines(prog: Program) -> Partial[tuple[LogLine, ...]]:
    """
    The lines of the kernel log that have to do with persistent memory or the crash, in its order.

    >>> for line in drgn_pmem.read_log_lines(prog):
    ...     print(line.time, line.topic.value, line.text)

    :raises PmemError: if the log cannot be read
    """
    guard_reads(prog)
    return parse_log_lines(read_log(prog), int(prog["PAGE_SHIFT"]))

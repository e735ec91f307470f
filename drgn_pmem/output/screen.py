# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The first screen and the list of findings, as text of at most 120 columns: labels and severities
stand out at the left, long lines break between words and go on below their text.
"""

from collections.abc import Iterable, Iterator, Sequence
import sys
import textwrap
from typing import TYPE_CHECKING

from drgn_pmem.output.terminal import terminal_width
from drgn_pmem.output.text import escape, plural

if TYPE_CHECKING:
    from drgn_pmem.analysis.findings.backtraces import Backtrace
    from drgn_pmem.analysis.findings.model import Finding, Ruling
    from drgn_pmem.analysis.findings.screen import Line

__all__ = ("finding_text", "line_text", "stack_text", "text_width", "undecided_text")

_MOST = 120
_LEAST = 40
_LABEL = 8
_SEVERITY = 10


def text_width() -> int:
    """Columns of the terminal; 120 at most, and where there is none."""
    return max(_LEAST, min(_MOST, terminal_width(sys.stdout) or _MOST))


def line_text(line: "Line", width: int) -> str:
    """A line of the first screen: ``"POISON  5 pages: ..."``."""
    return _hanging(line.label, line.text, _LABEL, width)


def finding_text(item: "Finding", width: int, verbose: bool = False) -> Iterator[str]:
    """
    A finding and the command that shows more.

    :param verbose: With the evidence and what to do.
    """
    yield _hanging(item.severity.value, item.text, _SEVERITY, width, f"[{item.more}]")
    if not verbose:
        return
    for fact in item.evidence:
        yield _hanging("", fact, _SEVERITY + 2, width)
    if item.do:
        yield _hanging("", f"do: {item.do}", _SEVERITY + 2, width)


def stack_text(stack: "Backtrace") -> str:
    """The stack of a task, a line for each function."""
    cpu = "a CPU that is not known" if stack.cpu is None else f"CPU {stack.cpu}"
    crashed = ", the task that panicked" if stack.crashed else ""
    lines = [f"PID {stack.pid} {escape(stack.comm)} on {cpu}{crashed}"]
    lines += [f"  #{number:<3}{escape(frame.text)}" for number, frame in enumerate(stack.frames)]
    if stack.in_user_space:
        lines.append("  in user space: no kernel stack")
    elif not stack.frames:
        lines.append("  not known: drgn could not unwind it")
    return "\n".join(lines)


def undecided_text(
    rulings: "Iterable[Ruling]", lines: "Sequence[Line]", width: int
) -> Iterator[str]:
    """
    What could not be decided, together for the same reason.

    :param lines: The first screen: a reason that it has is not repeated.
    """
    groups: dict[str, dict[str, list[str]]] = {}
    for ruling in rulings:
        whys = [str(problem) for problem in ruling.problems if problem.degrades]
        groups.setdefault(whys[0], {})[ruling.about] = whys
    for why, group in groups.items():
        seen = next((line.label for line in lines if f"({why}" in line.text), None)
        others = len({other for whys in group.values() for other in whys}) - 1
        more = f" (and {plural(others, 'more problem')})" if others else ""
        text = f"why: see {seen}" if seen else why + more
        yield _hanging("unknown", f"{', '.join(group)}: {text}", _SEVERITY, width)


_NO_BREAK = "\N{NO-BREAK SPACE}"


def _hanging(label: str, text: str, indent: int, width: int, whole: str = "") -> str:
    """
    :param whole: After the text: a command line, which stays on one line to be copied.
    """
    end = f"  {escape(whole).replace(' ', _NO_BREAK)}" if whole else ""
    return textwrap.fill(
        f"{label:<{indent}}{escape(text)}{end}",
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    ).replace(_NO_BREAK, " ")

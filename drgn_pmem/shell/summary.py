# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A short summary of the dump, for the banner and the toolbar."""

from collections.abc import Iterator
import contextlib
import enum
import os
from typing import TYPE_CHECKING

import drgn

from drgn_pmem.errors import NotFound
from drgn_pmem.output.text import cut, escape, human_size, plural
from drgn_pmem.partial import Cause, Problems
from drgn_pmem.ranges import percent
from drgn_pmem.session import Target
from drgn_pmem.shell.idle import Step
from drgn_pmem.symbols import vmcoreinfo_value

if TYPE_CHECKING:
    from drgn_pmem.analysis.findings.model import Finding, Ruling
    from drgn_pmem.analysis.memmap.sources import Memmap, MemmapAnswer

__all__ = ("Summary",)

_WORST = 3
"""Findings that the shell shows by itself."""

_SEVERITY = 10
"""Columns of the severity."""


class _Weight(enum.IntEnum):
    """What a warning is about, worst first."""

    DESTROYED = 0
    """The dump misleads: struct pages are not those of the crashed kernel."""
    DUMP = 1
    """How the dump was opened: truncated, of another kernel."""
    DISAGREE = 2
    """Sources contradict each other."""
    MISSING = 3
    """Something could not be read, or its debug info is missing."""


class Summary:
    """
    Facts about a target. Those that need a walk come with :meth:`steps`.

    :param target: The dump or kernel.
    """

    def __init__(self, target: Target) -> None:
        from drgn_pmem.analysis.findings.crash import architecture_of, panic_of
        from drgn_pmem.analysis.headers.subject import subject_by_kernel

        self._target = target
        prog = target.prog
        self.name = escape(target.name)
        self.short_name = escape(os.path.basename(target.name)) or self.name
        self.release = escape(vmcoreinfo_value(prog, "OSRELEASE") or "unknown release")
        self.architecture = architecture_of(prog) or "unknown"
        problems = Problems()
        self.panic = escape(problems.take(panic_of(prog)) or "")
        self.subject = problems.take(subject_by_kernel(prog, bool(self.panic))).subject
        """Whose kernel it is; None if that cannot be read."""
        self.namespaces: int | None = None
        """How many are enabled; None if that is not known yet, or cannot be."""
        self.incomplete = False
        """Whether there may be more namespaces: not everything could be read."""
        self.metadata = ""
        """How much of the struct pages of all namespaces the dump holds."""
        self._memmaps: list[Memmap] = []
        self._warnings: list[tuple[_Weight, str]] = []
        for note in target.notes:
            self._warn(_Weight.DUMP, note)
        if target.missing:
            self._warn(_Weight.MISSING, target.missing.replace("with -s", "with \\symbols FILE"))
        for problem in problems:
            if problem.cause is not Cause.NO_DEBUG_INFO:
                self._warn(_Weight.MISSING, str(problem))
        self.findings: list[Finding] = []
        """What is wrong, worst first; empty until :meth:`diagnose` is done."""
        self.size: int | None = None
        self._read_size()

    def _warn(self, weight: _Weight, text: str) -> None:
        self._warnings.append((weight, text))

    @property
    def warnings(self) -> list[str]:
        """What to know before an answer is trusted, worst first."""
        return [text for _, text in sorted(self._warnings, key=lambda item: item[0])]

    @property
    def misleads(self) -> bool:
        """Whether the first warning is worse than any finding: the dump is not what it seems."""
        return any(weight is _Weight.DESTROYED for weight, _ in self._warnings)

    def steps(self) -> Iterator[Step]:
        """The remaining steps."""
        yield Step("namespaces", self._namespaces)
        yield Step("struct pages", self._struct_pages)

    def diagnose(self) -> Iterator[None]:
        """What is wrong, in pieces, to be done when nothing else is left to do."""
        from drgn_pmem.analysis.findings.diagnose import Diagnosis, diagnose_in_steps

        if self._target.prog.flags & drgn.ProgramFlags.IS_LIVE:
            return
        rulings: list[Ruling] = []
        for _ in diagnose_in_steps(self._target.prog, rulings, Problems()):
            yield
        diagnosis = Diagnosis(lines=(), rulings=tuple(rulings))
        self.findings = diagnosis.findings

    def everything(self) -> list[str]:
        """All warnings, then all findings, a line each, both worst first."""
        lines = [f"{'warning':<9} {escape(warning)}" for warning in self.warnings]
        lines += [_finding(item) for item in self.findings]
        return lines or ["no warnings"]

    def worst(self, columns: int | None = None) -> list[str]:
        """
        The worst findings, when they are known, a line each; then how many there are.

        :param columns: Width of the terminal: a text is cut to fit, its command never is.
        """
        lines = [_finding(item, columns) for item in self.findings[:_WORST]]
        more = len(self.findings) - len(lines)
        if more > 0:
            lines.append(f"{'':<{_SEVERITY}}and {plural(more, 'more finding')}: pmem-diagnose")
        return lines

    def _read_size(self) -> None:
        if not self._target.prog.flags & drgn.ProgramFlags.IS_LIVE:
            with contextlib.suppress(OSError):
                self.size = os.stat(self._target.name).st_size

    def _namespaces(self) -> Iterator[None]:
        from drgn_pmem.analysis.memmap.sources import read_memmaps_in_steps

        if self._target.missing_kernel:
            return
        try:
            problems = Problems()
            answer = problems.take((yield from read_memmaps_in_steps(self._target.prog)))
        except NotFound:
            self.namespaces = 0
            return
        self.incomplete = bool(problems)
        namespaces = [m for m in answer.memmaps if m.namespace.is_persistent]
        if namespaces or not self.incomplete:
            self.namespaces = len(namespaces)
        self._memmaps = list(answer.memmaps)
        self.metadata = _struct_pages(answer)
        for problem in problems:
            self._warn(_Weight.MISSING, f"pmem-memmap: {problem}")
        disagree = [m.namespace.dev for m in answer.memmaps if m.agree is False]
        if disagree:
            named = ", ".join(disagree)
            self._warn(_Weight.DISAGREE, f"pmem-memmap: sources disagree about {named}")
        yield

    def _struct_pages(self) -> Iterator[None]:
        """Whether a capture kernel initialised the struct pages again."""
        from drgn_pmem.analysis.memmap.intact import check_memmap
        from drgn_pmem.kernel.page import pages_pgmap

        prog = self._target.prog
        for memmap in self._memmaps:
            pages = memmap.struct_pages
            if pages is None or not pages.saved:
                continue
            problems = Problems()
            pgmaps = problems.take(pages_pgmap(prog))
            known = pgmaps if memmap.pgmap is not None and not problems else None
            end_pfn = pages.first_pfn + pages.npfns
            intact = problems.take(check_memmap(prog, pages.first_pfn, end_pfn, known))
            if intact.destroyed:
                self._warn(
                    _Weight.DESTROYED,
                    f"struct pages of {memmap.namespace.dev} were initialised again after the "
                    "crash: see pmem-coverage",
                )
            yield

    @property
    def pmem(self) -> str:
        """Namespaces and metadata; empty if nothing is known of them."""
        if self.namespaces is None:
            return "namespaces cannot be read" if self.incomplete else ""
        if not self.namespaces:
            return "none that this kernel knew of"
        count = plural(self.namespaces, "namespace")
        parts = [f"at least {count}" if self.incomplete else count, self.metadata]
        return ", ".join(part for part in parts if part)

    def banner(self) -> list[str]:
        """Lines to show before the first prompt."""
        size = f" ({human_size(self.size)})" if self.size is not None else ""
        of = "" if self.subject is None else f": {self.subject.sentence}"
        lines = [
            f"dump    {self.name}{size}{of}",
            f"kernel  Linux {self.release} {self.architecture}",
        ]
        if self.panic:
            lines.append(f"panic   {self.panic}")
        if self.pmem:
            lines.append(f"pmem    {self.pmem}")
        lines += [f"warning {escape(warning)}" for warning in self.warnings]
        return lines + self.worst()


def _finding(item: "Finding", columns: int | None = None) -> str:
    text, command = escape(item.text), f"  [{escape(item.more)}]"
    if columns is not None:
        text = cut(text, columns - _SEVERITY - len(command))
    return f"{item.severity.value:<{_SEVERITY}}{text}{command}"


def _struct_pages(answer: "MemmapAnswer") -> str:
    pages = [m.struct_pages for m in answer.memmaps if m.struct_pages is not None]
    total = sum(p.size for p in pages)
    saved = sum(p.saved for p in pages)
    if not total:
        return ""
    if saved == total:
        return "all struct pages saved"
    if not saved:
        return "no struct pages saved"
    return f"{percent(saved, total)} of struct pages saved"

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whose kernel a dump is of, by how each sample was made."""

from typing import Any

from drgn import FaultError
import pytest

from drgn_pmem.analysis.findings.crash import read_crash
from drgn_pmem.analysis.headers import subject
from drgn_pmem.analysis.headers.subject import Subject, subject_of
from drgn_pmem.commands.report import facts_of
from drgn_pmem.session import Target
from drgn_pmem.shell.summary import Summary

from ..samples import CASES, CUT_SHORT, Case, run_json, samples

FADUMP = [
    Case(sample, format)
    for sample in samples().values()
    if sample.loader == "fadump"
    for format in sample.formats
]
WHOLE = [case for case in CASES if not case.format.endswith(CUT_SHORT)]


@pytest.mark.parametrize("case", [*WHOLE, *FADUMP], ids=str)
def test_subject_is_the_kernel_that_was_dumped(case: Case) -> None:
    """QEMU dumped the guests before they crashed, and one while it captured."""
    wanted = {"qemu-elf": Subject.RUNNING_GUEST, "qemu-capture": Subject.CAPTURE_KERNEL}
    found = subject_of(case.prog).whole()
    assert found.subject is wanted.get(case.format, Subject.CRASHED)
    assert found.evidence
    # ELFCORE_ADDR_ERR in words, not as the number -2.
    assert "0xffffffff" not in found.evidence[0]
    shown = run_json(case.prog, "elfcorehdr")["subject"]
    assert shown["subject"] == found.subject.value


@pytest.mark.parametrize("case", [WHOLE[1], *FADUMP], ids=str)
def test_the_first_line_says_whose_kernel_it_is(case: Case) -> None:
    wanted = {"qemu-elf": Subject.RUNNING_GUEST, "qemu-capture": Subject.CAPTURE_KERNEL}
    subject = wanted.get(case.format, Subject.CRASHED)
    summary = Summary(Target(case.prog, str(case.dump)))
    assert summary.banner()[0].endswith(f": {subject.sentence}")
    crash = read_crash(case.prog).whole()
    assert crash.subject is subject
    assert facts_of(crash)[0] == ("of", subject.sentence)


def test_what_cannot_be_read_is_not_a_crashed_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost:
        def value_(self) -> int:
            raise FaultError("the dump left this memory out", 0x1000)

    def find(*_: Any) -> Any:
        return Lost()

    monkeypatch.setattr(subject, "find_variable", find)
    found = subject_of(WHOLE[0].prog)
    assert found.value.subject is None
    assert not found.complete

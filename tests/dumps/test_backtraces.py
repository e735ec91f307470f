# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The stacks of the crash: the task that panicked first, and every CPU's."""

import pytest

from drgn_pmem.analysis.findings.backtraces import read_backtraces

from ..samples import CASES, Case

CHOSEN = ("6.1-fileload:elf", "6.1-fileload:zlib", "arm64-6.12:elf")


@pytest.fixture(params=[case for case in CASES if str(case) in CHOSEN], ids=str)
def chosen(request: pytest.FixtureRequest) -> Case:
    case: Case = request.param
    return case


def test_the_panic_is_on_the_first_stack(chosen: Case) -> None:
    first, *others = read_backtraces(chosen.prog).value
    assert first.crashed
    # The lab crashes by writing to /proc/sysrq-trigger.
    functions = [frame.function for frame in first.frames]
    assert "sysrq_handle_crash" in functions
    assert first.comm == "sh"
    assert not any(other.crashed for other in others)


def test_each_online_cpu_has_one(chosen: Case) -> None:
    found = read_backtraces(chosen.prog).value
    cpus = [trace.cpu for trace in found]
    assert None not in cpus
    assert len(set(cpus)) == len(cpus)
    assert all(trace.frames for trace in found)


def test_a_stack_that_the_unwinder_loses_is_a_problem() -> None:
    lost = next(case for case in CASES if str(case) == "7.2-fileload:raw")
    answer = read_backtraces(lost.prog)
    first = answer.value[0]
    assert first.crashed
    assert [frame.function for frame in first.frames] == ["__crash_kexec"]
    assert any("the unwinder lost it after __crash_kexec" in str(p) for p in answer.problems)

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The stacks of the crash: the task that panicked first, and every CPU's."""

import re

import pytest

from drgn_pmem.analysis.findings.backtraces import read_backtraces

from ..samples import CASES, Case, open_crash, run_answer, run_json, run_text, samples

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


def test_each_cpu_has_one(chosen: Case) -> None:
    """Also those that the panic took offline, as on arm64; the user space that the kernel was
    entered from ends a stack and is not lost."""
    answer = read_backtraces(chosen.prog)
    assert answer.complete
    assert {trace.cpu for trace in answer.value} == {0, 1}
    assert len(answer.value) == 2
    assert all(trace.frames for trace in answer.value)


def test_a_stack_that_the_unwinder_loses_is_a_problem() -> None:
    lost = next(case for case in CASES if str(case) == "7.2-fileload:raw")
    answer = read_backtraces(lost.prog)
    first = answer.value[0]
    assert first.crashed
    assert [frame.function for frame in first.frames] == ["__crash_kexec"]
    assert any("the unwinder lost it after __crash_kexec" in str(p) for p in answer.problems)


def test_the_command_shows_the_stacks_of_the_panic_and_of_each_cpu(chosen: Case) -> None:
    traces = read_backtraces(chosen.prog).value
    shown = run_json(chosen.prog, "pmem-diagnose --stacks")
    assert [(s["cpu"], s["pid"], s["crashed"]) for s in shown] == [
        (trace.cpu, trace.pid, trace.crashed) for trace in traces
    ]
    out, notes = run_text(chosen.prog, "pmem-diagnose --stacks")
    assert f"PID {traces[0].pid} sh on CPU {traces[0].cpu}, the task that panicked\n" in out
    assert re.search(r"^  #\d+ +sysrq_handle_crash( \(drivers/tty/sysrq.c:\d+\))?$", out, re.M)
    assert out.count("PID ") == len(traces)
    assert "%crash bt PID shows the stack of another task" in notes
    table, _ = run_text(chosen.prog, "pmem-diagnose --stacks -o pid,crashed -H")
    assert table.splitlines()[0].split() == [str(traces[0].pid), "yes"]


@pytest.mark.parametrize("name", ["ppc64le-6.12", "ppc64le-6.1"])
def test_stacks_of_a_firmware_assisted_dump(name: str) -> None:
    """Which registers are whose only the stack pointers say; a task in user space has no stack.
    That of 6.12 was in the first instruction of an interrupt ("registers for CPU 0 were not
    saved")."""
    sample = samples()[name]
    prog = open_crash(sample, sample.dump("raw"))
    comm = "init" if name == "ppc64le-6.1" else "sh"
    answer, out, _ = run_answer(prog, "pmem-diagnose --stacks")
    assert answer is not None
    panicked, other = read_backtraces(prog).value
    assert "sysrq_handle_crash" in [frame.function for frame in panicked.frames]
    assert out.startswith(
        f"PID {panicked.pid} {comm} on CPU {panicked.cpu}, the task that panicked\n"
    )
    assert other.in_user_space
    where = f"PID {other.pid} {comm} on CPU {1 - panicked.cpu}"
    assert out.endswith(f"{where}\n  in user space: no kernel stack\n")
    assert answer.whole


def test_stacks_of_a_running_guest() -> None:
    """It said "the task that panicked: this kernel's panic_cpu is not set", as a lack."""
    case = next(case for case in CASES if str(case) == "6.1-hotadd:qemu-elf")
    answer, out, notes = run_answer(case.prog, "pmem-diagnose --stacks")
    assert answer is not None
    assert answer.whole
    assert "no CPU had panicked: these are the tasks that the CPUs ran" in notes
    assert "that panicked" not in out
    assert {stack.cpu for stack in answer.records} == {0, 1}

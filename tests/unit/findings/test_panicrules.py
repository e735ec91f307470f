# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rules about the panic's faulting address, registers and task: found, not found, and undecided
where what they look at is not all known."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from drgn import Program
import pytest

from drgn_pmem.analysis.findings import case, registers
from drgn_pmem.analysis.findings.addresses import PmemAddress, Window
from drgn_pmem.analysis.findings.model import Outcome, Severity
from drgn_pmem.analysis.findings.registers import Register
from drgn_pmem.analysis.findings.rules import log as log_rules, panic
from drgn_pmem.partial import Partial
from tests.unit.findings.rulings import LOST, ruling, the_finding
from tests.unit.findings.test_crashrules import PANIC, crash

FAULT = 0xFFFF88812D000000
OOPS = f"""\
[   50.1] BUG: unable to handle page fault for address: {FAULT:x}
[   50.2] Oops: 0000 [#1] PREEMPT SMP
[   50.3] RIP: 0010:memcpy_orig+0x10/0x80
[   50.4] ---[ end trace 0000000000000000 ]---
[   50.5] Kernel panic - not syncing: Fatal exception
"""
PAGE = "/mnt/a offset 0x1000 (PFN 0x12d000 of namespace0.0)"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, answer: Callable[..., None]) -> Callable[..., None]:
    """A machine on which :data:`FAULT` is an address of a file."""

    def pmem_address(prog: Program, address: int) -> Partial[PmemAddress | None]:
        if address != FAULT:
            return Partial(None)
        window = Window.DIRECT_MAP
        return Partial(PmemAddress(address=address, window=window, pfn=0x12D000, page=PAGE))

    for rules in (panic, log_rules):
        monkeypatch.setattr(rules, "is_kernel_address", lambda prog, address: address >> 63 == 1)
        monkeypatch.setattr(rules, "pmem_address", pmem_address)
    monkeypatch.setattr(log_rules, "for_each_pmem_pgmap", lambda prog: Partial([]))

    def machine(message: str | None, log: str, *saved: Register, lost: bool = False) -> None:
        answer("read_crash", crash(message))
        monkeypatch.setattr(case, "read_log", lambda prog: log.encode())
        answer("panic_registers", saved, *((LOST,) if lost else ()))

    return machine


def register(name: str, value: int) -> Register:
    return Register(name=name, value=value, function="memcpy_orig")


def test_the_faulting_address_of_the_log_is_a_page_of_a_file(machine: Callable[..., None]) -> None:
    # What cannot be unwound does not matter: the log has the address.
    machine("Kernel panic - not syncing: Fatal exception", OOPS, lost=True)
    found = the_finding("panic-address")
    assert found.severity is Severity.CRITICAL
    assert found.text == f"the panic: it failed to access {FAULT:#x}, which is {PAGE}"
    assert ruling("kernel-report").outcome is Outcome.NOT_FOUND, "said once"


def test_a_register_at_the_fault_points_to_a_page(machine: Callable[..., None]) -> None:
    machine("Oops: 0000", "", register("rax", 3), register("rsi", FAULT))
    found = the_finding("panic-address")
    assert found.severity is Severity.WARNING
    assert found.finding == f"at the fault in memcpy_orig rsi {FAULT:#x} pointed to {PAGE}"


def test_an_earlier_oops_is_not_the_panics(machine: Callable[..., None]) -> None:
    """The report of the log is a finding of its own: kernel-report."""
    log = OOPS.replace("Fatal exception", "sysrq triggered crash") + PANIC.format("sysrq_handle")
    machine("Kernel panic - not syncing: sysrq triggered crash", log, lost=True)
    assert ruling("panic-address").outcome is Outcome.NOT_FOUND
    report = the_finding("kernel-report")
    assert report.finding == f"at 50.10 s, touches {PAGE}"
    assert report.do is not None
    assert report.do.startswith(f'look for a fix of "{report.subject}"')
    assert report.do.endswith("or report its trace (%crash log)")


def test_a_fault_elsewhere_and_a_machine_without_a_panic(machine: Callable[..., None]) -> None:
    machine("Oops: 0000", OOPS.replace(f"{FAULT:x}", "0000000000000008"), register("rax", 3))
    assert ruling("panic-address").outcome is Outcome.NOT_FOUND
    machine(None, "")
    assert ruling("panic-address").outcome is Outcome.NOT_FOUND


def test_registers_that_are_not_known_may_have_pointed_to_pmem(
    machine: Callable[..., None],
) -> None:
    machine("Oops: 0000", "", lost=True)
    assert ruling("panic-address").outcome is Outcome.UNDECIDED


# The registers


class Frame(SimpleNamespace):
    def registers(self) -> dict[str, int]:
        return dict(self.values)


def frames(*named: tuple[str, int | None]) -> list[Any]:
    """Frames by function and, where one was interrupted, the program counter."""
    return [
        Frame(name=name, interrupted=pc is not None, pc=pc or 0, values={"rip": pc or 0, "cs": 16})
        for name, pc in named
    ]


KERNEL, USER = 0xFFFFFFFF81000000, 0x401000


@pytest.mark.parametrize(
    ("trace", "found"),
    [
        # crash_kexec(regs) of oops_end()
        (frames(("memcpy_orig", KERNEL), ("pmem_do_read", None)), "memcpy_orig"),
        # panic() in the handler of an exception
        (
            frames(
                ("__crash_kexec", KERNEL + 8),
                ("panic", None),
                ("exc_page_fault", None),
                ("memcpy_orig", KERNEL),
                ("ksys_read", None),
            ),
            "memcpy_orig",
        ),
        # panic() by a system call
        (frames(("__crash_kexec", KERNEL), ("panic", None), ("ksys_write", None)), None),
        (frames(("__crash_kexec", KERNEL), ("panic", None), ("0x401000", USER)), None),
        ([], None),
    ],
)
def test_registers_are_those_of_the_fault(
    monkeypatch: pytest.MonkeyPatch, trace: Any, found: str | None
) -> None:
    monkeypatch.setattr(registers, "need_kernel_debug_info", lambda prog, what: None)
    monkeypatch.setattr(registers, "guard_reads", lambda prog: None)
    monkeypatch.setattr(registers, "is_kernel_address", lambda prog, address: address >> 63 == 1)
    monkeypatch.setattr(registers, "crashed_task", lambda prog: Partial(object()))
    monkeypatch.setattr(registers, "unwind", lambda prog, task: trace)
    answer = registers.panic_registers(Program())
    assert answer.complete
    assert [(item.function, item.name, item.value) for item in answer.value] == (
        [(found, "rip", KERNEL)] if found else []
    )


# The task


@pytest.mark.parametrize(("mm", "names"), [(0x1000, ["/mnt/a", "/dev/dax0.0"]), (0x2000, [])])
def test_files_and_devices_that_the_panicked_task_maps(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[..., None], mm: int, names: list[str]
) -> None:
    inode = SimpleNamespace(mapping=7)
    file = SimpleNamespace(inode=inode, text=lambda problems: "/mnt/a")
    char = SimpleNamespace(inode=inode, paths=("/dev/dax0.0",), name="dax0.0")
    task = SimpleNamespace(
        mm=SimpleNamespace(value_=lambda: mm),
        comm=SimpleNamespace(string_=lambda: b"db"),
        pid=SimpleNamespace(value_=lambda: 42),
    )
    answer("read_crash", crash("x"))
    lost = []
    for name, value in {
        "crashed_task": task,
        "dax_files_of": SimpleNamespace(files=[file]),
        "dax_chars_of": [char],
        "vmas_of_mapping": [SimpleNamespace(mm=0x1000)],
    }.items():
        monkeypatch.setattr(panic, name, lambda *_, value=value: Partial(value, tuple(lost)))
    if names:
        found = the_finding("panic-task")
        assert found.finding == "its task 42/db maps 2 files on pmem: /mnt/a, /dev/dax0.0"
        assert found.severity is Severity.INFO
        return
    assert ruling("panic-task").outcome is Outcome.NOT_FOUND
    lost.append(LOST)
    assert ruling("panic-task").outcome is Outcome.UNDECIDED


def test_without_a_panic_no_task_panicked(answer: Callable[..., None]) -> None:
    answer("read_crash", crash(None))
    assert ruling("panic-task").outcome is Outcome.NOT_FOUND


def test_what_to_do_about_a_warning_does_not_say_that_the_kernel_went_on() -> None:
    """With panic_on_warn it did not."""
    said = log_rules._how_to_follow("WARNING fs/dax.c:380 dax_insert_entry", True)
    assert said.endswith(": the kernel was in a state that it does not expect")

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rules about the panic and firmware-assisted dump that no sample has a finding of, with records
made by hand: found, not found, and undecided where what they look at is not all known."""

from collections.abc import Callable
import dataclasses
from typing import Any

from drgn import Program
import pytest

from drgn_pmem.analysis.findings import case
from drgn_pmem.analysis.findings.backtraces import Backtrace, Frame
from drgn_pmem.analysis.findings.crash import Crash
from drgn_pmem.analysis.findings.model import Outcome, Severity
from drgn_pmem.analysis.findings.rules import headers
from drgn_pmem.errors import NotFound
from drgn_pmem.kernel.fadump import FwDump
from drgn_pmem.partial import NotSaved
from tests.unit.findings.rulings import LOST, NOTHING, ruling, the_finding
from tests.unit.findings.test_splats import KEXEC_AFTER_OOPS

# The panic

PANIC = "[   50.1] Kernel panic - not syncing: x\n[   50.2]  panic+0x1/0x2\n[   50.3]  {}+0x1/0x2\n"


def crash(panic: str | None) -> Crash:
    nothing: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(Crash))
    return Crash(**(nothing | {"panic": panic}))


def stack(*functions: str | None) -> Backtrace:
    frames = [
        Frame(function=name, pc=0xFFFFFFFFC0000010, source=None, inlined=False)
        for name in functions
    ]
    return Backtrace(cpu=0, pid=1, comm="init", crashed=True, frames=tuple(frames), object=NOTHING)


@pytest.mark.parametrize(
    ("log", "trace"),
    [(PANIC.format("pmem_do_read"), None), ("", stack("panic", "pmem_do_read"))],
    ids=["by the calls in the log", "by the stack"],
)
def test_a_panic_in_a_function_of_pmem(
    answer: Callable[..., None], monkeypatch: pytest.MonkeyPatch, log: str, trace: Any
) -> None:
    monkeypatch.setattr(case, "read_log", lambda prog: log.encode())
    answer("read_crash", crash("x"))
    answer("read_panic_stack", trace)
    found = the_finding("panic-in-pmem")
    assert (found.subject, found.severity) == ("the panic", Severity.CRITICAL)
    assert found.finding == "its stack is in pmem_do_read"
    assert found.evidence == ("panic <- pmem_do_read",)


def test_the_report_of_the_fault_has_the_calls_of_modules_without_symbols(
    answer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was "not known": panic() prints nothing where x86 starts the crash kernel after an oops,
    and the functions of nd_pmem have no symbols without its debug info."""
    monkeypatch.setattr(case, "read_log", lambda prog: KEXEC_AFTER_OOPS.encode())
    answer("read_crash", crash("BUG: unable to handle page fault for address: ffff8c1b01602000"))
    answer("read_panic_stack", stack(None, "do_one_initcall"))
    own = ruling("panic-in-pmem")
    assert own.complete
    assert [found.finding for found in own.findings] == [
        "its stack is in pmem_do_write, pmem_submit_bio"
    ]


def test_a_panic_elsewhere_and_a_machine_without_one(
    answer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(case, "read_log", lambda prog: PANIC.format("sysrq_handle").encode())
    answer("read_crash", crash("x"))
    # The log has the calls: what the unwinder lacks does not matter.
    answer("read_panic_stack", stack("panic"), LOST)
    assert ruling("panic-in-pmem").outcome is Outcome.NOT_FOUND
    answer("read_crash", crash(None))
    assert ruling("panic-in-pmem").outcome is Outcome.NOT_FOUND


def test_a_panic_whose_calls_are_not_all_known_may_be_in_pmem(
    answer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(case, "read_log", lambda prog: b"")
    answer("read_crash", crash("x"))
    answer("read_panic_stack", stack("panic"), LOST)
    assert ruling("panic-in-pmem").outcome is Outcome.UNDECIDED
    answer("read_panic_stack", stack("panic", None))
    own = ruling("panic-in-pmem")
    assert own.outcome is Outcome.UNDECIDED, "a function of a module without symbols"
    assert own.why is not None
    assert "0xffffffffc0000010" in own.why
    answer("read_crash", crash(None), LOST)
    assert ruling("panic-in-pmem").outcome is Outcome.UNDECIDED, "whether there was a panic"


# Firmware-assisted dump


def fadump(**values: Any) -> FwDump:
    nothing: dict[str, Any] = dict.fromkeys((f.name for f in dataclasses.fields(FwDump)), 0)
    states = {"supported": True, "enabled": True, "registered": False, "active": False}
    return FwDump(**(nothing | states | values))


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ({}, Outcome.FOUND),
        ({"registered": True}, Outcome.NOT_FOUND),
        ({"active": True}, Outcome.NOT_FOUND),
        ({"enabled": False}, Outcome.NOT_FOUND),
    ],
)
def test_fadump_that_is_not_registered(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, bool], outcome: Outcome
) -> None:
    monkeypatch.setattr(headers, "fw_dump", lambda prog: fadump(**values))
    own = ruling("fadump-not-registered")
    assert (own.outcome, own.complete) == (outcome, True)
    for found in own.findings:
        assert (found.subject, found.severity) == ("firmware-assisted dump", Severity.CRITICAL)
        assert found.finding == (
            "enabled, but not registered with the firmware: a crash would not be saved by the"
            " firmware"
        )


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (NotFound("firmware-assisted dump exists on POWER only"), Outcome.NOT_FOUND),
        (NotSaved("fw_dump: not in the dump"), Outcome.UNDECIDED),
    ],
)
def test_fadump_of_which_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch, error: Exception, outcome: Outcome
) -> None:
    def fails(prog: Program) -> FwDump:
        raise error

    monkeypatch.setattr(headers, "fw_dump", fails)
    assert ruling("fadump-not-registered").outcome is outcome

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the rules about poison and pins say of records made by hand, and what the first screen
makes of it."""

from types import SimpleNamespace as S
from typing import Any

from drgn import Program
import pytest

from drgn_pmem.analysis.findings.badpages import Place, PoisonedPage
from drgn_pmem.analysis.findings.case import RULES, Facts, judge
from drgn_pmem.analysis.findings.model import Heading, Severity
from drgn_pmem.analysis.findings.rules import poison as rules
from drgn_pmem.analysis.findings.screen import Screen
from drgn_pmem.kernel.badblocks import BadList
from drgn_pmem.kernel.failurelog import FailureEvent
from drgn_pmem.partial import Problems
from tests.unit.findings.rulings import LOST, the_finding
from tests.unit.findings.test_everyrule import TASK, give, lines, pins, poison


def page(*kinds: BadList, lists_known: bool = True, hwpoison: bool = False, log: Any = ()) -> Any:
    """A page of the lists of bad ranges."""
    ranges = [S(kind=kind, source=f"{kind.value} badblocks") for kind in kinds]
    owners = S(trusted=True, page=S(hwpoison=hwpoison))
    return S(ranges=ranges, lists_known=lists_known, owners=owners, lines=log)


def test_a_badblock_that_only_the_disk_has_was_written_by_hand() -> None:
    """libnvdimm puts media errors into the list of the bus, and from there into the others."""
    by_hand = PoisonedPage.by_hand.fget  # type: ignore[attr-defined]
    assert by_hand(page(BadList.DISK))
    for other in (
        page(BadList.DISK, BadList.BUS),
        page(BadList.BUS),
        page(BadList.NAMESPACE),
        page(),
        page(BadList.DISK, lists_known=False),
        page(BadList.DISK, hwpoison=True),
        page(BadList.DISK, log=lines(FailureEvent.REPORTED)),
    ):
        assert not by_hand(other)


def test_only_the_last_list_of_a_device_may_be_out_of_date(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listed_only = PoisonedPage.listed_only.fget  # type: ignore[attr-defined]
    assert listed_only(page(BadList.DEVICE))
    for other in (
        page(BadList.DEVICE, BadList.BUS),
        page(),
        page(BadList.DEVICE, hwpoison=True),
        page(BadList.DEVICE, log=lines(FailureEvent.REPORTED)),
    ):
        assert not listed_only(other)
    give(monkeypatch, poison(owned=True, listed_only=True, sources=["mem0 poison list"]))
    found = the_finding("poison-in-file")
    assert found.severity is Severity.WARNING
    assert ", by the last mem0 poison list, which may be out of date" in found.finding


def test_it_is_no_loss_of_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ranked as a machine check, with the advice to restore the file."""
    give(monkeypatch, poison(owned=True, by_hand=True))
    found = the_finding("poison-in-file")
    assert found.severity is Severity.WARNING
    assert "only in pmem0/badblocks, written there by hand or cleared since" in found.finding
    assert "/sys/block/pmem0/badblocks" in str(found.do)
    assert "restore" not in str(found.do)
    give(monkeypatch, poison(owned=True))
    found = the_finding("poison-in-file")
    assert found.severity is Severity.CRITICAL
    assert str(found.do).startswith("restore /mnt/a at 0x1000 (4096 bytes) from a backup: write(2)")


def test_who_was_sent_sigbus_may_still_run(monkeypatch: pytest.MonkeyPatch) -> None:
    log = [
        S(event=FailureEvent.SIGNALLED, text=f"Memory failure: 0x1: Sending SIGBUS to {who} due to")
        for who in ("db:7", "web:8")
    ]
    give(monkeypatch, poison(owned=True, lines=log))
    tasks = S(tasks=(S(pid=7, comm="db", mm=1), S(pid=9, comm="sh", mm=1)))
    give(monkeypatch, {"case.tasks_of": tasks})
    assert (
        ", SIGBUS to 7/db (still running), 8/web (ended)" in the_finding("poison-in-file").finding
    )
    give(monkeypatch, {"case.tasks_of": tasks}, LOST)
    finding = the_finding("poison-in-file").finding
    assert finding.endswith(", SIGBUS to 7/db (still running), 8/web"), "it is not known"


def test_a_bad_page_that_was_not_handled_is_one_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was two critical findings, and on the first screen it read as another page."""
    log = lines(FailureEvent.REPORTED, FailureEvent.NOT_HANDLED)
    give(monkeypatch, poison(place=Place.STRUCT_PAGES, describes=(0x10, 64), lines=log))
    screen = Screen(Facts(Program()), Problems())
    found = []
    for rule in RULES.values():
        if rule.heading is Heading.POISON:
            ruling = judge(rule, screen.facts)
            screen.add(ruling)
            found += ruling.findings
    assert [item.severity for item in found].count(Severity.CRITICAL) == 1
    (other,) = [item for item in found if item.id == "machine-check-not-handled"]
    assert other.severity is Severity.WARNING
    assert "(struct pages of namespace0.0, see above) and failed to handle it" in other.finding
    line = screen.line(Heading.POISON)
    assert line is not None
    assert line.text == (
        "1 page: 1 in struct pages (namespace0.0 on nmem0, PFN 0x10 to 0x4f, not handled by the "
        "kernel)"
    )


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (("direct_access", "recovery_write"), "a store through a mapping does not"),
        (("direct_access",), "on this kernel write(2) to it fails"),
        (None, "a store through a mapping does not"),
    ],
)
def test_what_clears_poison_depends_on_the_kernel(
    members: "tuple[str, ...] | None", said: str
) -> None:
    prog = Program()
    if members is not None:
        integer = prog.int_type("int", 4, True, "little")
        parts = [drgn_member(integer, name, 32 * i) for i, name in enumerate(members)]
        operations = prog.struct_type("dax_operations", 8, parts)
        prog.register_type_finder("test", lambda *_: operations, enable_index=0)
    assert said in rules.how_to_clear(prog)


def drgn_member(type_: Any, name: str, offset: int) -> Any:
    from drgn import TypeMember

    return TypeMember(type_, name, offset)


def test_who_holds_pages_of_several_waiters_is_one_piece_of_advice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same holder stood in two of three, and "dmsetup resume" did not get a place."""
    holder = S(task=TASK, process="7/db", certain=True, kind=S(value="vmsplice"), evidence="")
    waiters = [
        S(task=S(pid=pid, tgid=pid, comm=comm, object=None), place="f", pfn=pid, file="/mnt/a")
        for pid, comm in ((8, "rm"), (9, "punch"))
    ]
    owners = S(owners=[S(name="/mnt/a", offset=0)], namespace="namespace0.0")
    pages = [
        S(pfn=w.pfn, owners=owners, holders=(holder,), waiters=(w,), count=lambda name: 2)
        for w in waiters
    ]
    give(monkeypatch, pins(pages, waiters))
    found = judge(RULES["layout-break"], Facts(Program())).findings
    assert {item.do for item in found} == {
        "find why 7/db keeps its pages: 8/rm, 9/punch wait until they are released"
    }
    assert {item.more for item in found} == {"pmem-pins"}

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every reference that the lab's processes hold is found with its holder, and those who wait."""

from typing import Any

import pytest

from ..samples import Case, run_json
from .truth_owners import Event, events, kept_by_memory_failure, recorded

pytestmark = pytest.mark.holds("pmem-pins")

KINDS = {"VMSPLICE": "vmsplice", "IO_URING": "io_uring", "DIRECT": "direct I/O"}


@pytest.fixture(autouse=True)
def _recorded(case: Case) -> None:
    recorded(case)


def pins(case: Case) -> dict[int, dict[str, Any]]:
    return {page["pfn"]: page for page in run_json(case.prog, "pmem-pins")}


def held(case: Case) -> list[Event]:
    """What the kernel let the processes pin."""
    return [e for e in events(case, *KINDS) if e.number("result") >= 0 and e.number("pfn")]


def test_every_pinned_page_is_found_and_no_other(case: Case) -> None:
    found = pins(case)
    wanted = {event.number("pfn") for event in held(case)}
    wanted |= kept_by_memory_failure(case).keys()
    assert {holder["pfn"] for page in found.values() for holder in page["holders"]} == wanted
    assert all(page["holders"] for page in found.values())


def test_each_names_who_holds_it_how_and_which_file(case: Case) -> None:
    pages = list(pins(case).values())
    for event in held(case):
        pfn, pid = event.number("pfn"), event.number("pid")
        (page,) = (p for p in pages if any(h["pfn"] == pfn for h in p["holders"]))
        (holder,) = page["holders"]
        assert (holder["pid"], holder["kind"], holder["certain"]) == (pid, KINDS[event.what], True)
        assert [owner["path"] for owner in page["owners"]] == [event.values["path"]]
        distance = (pfn - page["pfn"]) * case.page
        assert page["owners"][0]["offset"] + distance == event.number("fileoff")


def test_counts_stand_only_where_the_struct_page_does(case: Case) -> None:
    for page in pins(case).values():
        if page["state"] == "saved" and page["reason"] is None:
            assert page["pins"] > 0
        else:
            assert page["pins"] is None
            assert page["refcount"] is None


def test_who_is_stuck_behind_a_pin_is_named_with_the_page_and_the_file(case: Case) -> None:
    stuck = events(case, "PUNCH", "TRUNCATE")
    # They print this when they come back; none of them may have.
    assert not events(case, "PUNCHED", "TRUNCATED")
    waiters = {
        waiter["pid"]: (waiter["comm"], page)
        for page in pins(case).values()
        for waiter in page["waiters"]
    }
    assert set(waiters) == {event.number("pid") for event in stuck}
    for event in stuck:
        comm, page = waiters[event.number("pid")]
        assert comm == event.values["comm"]
        assert [owner["path"] for owner in page["owners"]] == [event.values["path"]]
        assert page["holders"]
        assert set(pins_of(case, waited=True)) >= {page["pfn"]}


def pins_of(case: Case, *, waited: bool) -> list[int]:
    return [p["pfn"] for p in run_json(case.prog, f"pmem-pins{' -w' if waited else ''}")]

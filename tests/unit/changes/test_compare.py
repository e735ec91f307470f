# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Differences of the facts of two dumps, and what they show of machine, build, boot and crash."""

from dataclasses import replace
from typing import Any

from hypothesis import given, strategies as st
import pytest

from drgn_pmem.analysis.changes.compare import Change, What, compare_facts
from drgn_pmem.analysis.changes.facts import PERHAPS, UNKNOWN, DumpFacts, Facts, Item, Kind
from drgn_pmem.analysis.changes.identity import Identity, relations
from drgn_pmem.partial import Cause, Problem

NOT_SAVED = Problem(cause=Cause.NOT_SAVED, why="not saved")
FORMAT = Problem(cause=Cause.FORMAT, why="no such dump has it")

NOW = 1_800_000_000


def identity(**values: Any) -> Identity:
    return Identity(
        **{
            "file": None,
            "format": None,
            "subject": None,
            "architecture": "x86_64",
            "release": "6.1.0",
            "version": "#1",
            "build_id": "aa",
            "kernel_offset": "1000000",
            "host": "alpha",
            "boot_id": None,
            "booted": NOW,
            "made": NOW + 100,
            "crashed": NOW + 100,
            "dimms": frozenset({"8089-01"}),
            "namespaces": frozenset({"uuid-1"}),
            **values,
        }
    )


def item(name: str, key: str | None = None, /, **values: Any) -> Item:
    return Item(name=name, key=key or name, values=values, summary=f"summary of {name}")


def page(pfn: int, **values: Any) -> Item:
    return replace(item(f"PFN {pfn:#x}", **values), number=pfn)


def dump(
    kind: Kind = Kind.NAMESPACE,
    *items: Item,
    problems: tuple[Problem, ...] = (),
    absent: str | None = None,
) -> DumpFacts:
    """A dump with things of one kind only."""
    kinds = {each: Facts(kind=each, items=(), problems=()) for each in Kind}
    kinds[kind] = Facts(kind=kind, items=items, problems=problems, absent=absent)
    return DumpFacts(identity=identity(), kinds=kinds)


def changes(a: DumpFacts, b: DumpFacts) -> list[tuple[str, str, str | None, Any, Any]]:
    found = compare_facts(a, b).changes
    return [(c.what.value, c.subject, c.field, c.before, c.after) for c in found]


def test_nothing_differs() -> None:
    a = dump(Kind.NAMESPACE, item("namespace0.0", mode="fsdax", map=None))
    assert changes(a, a) == []
    assert not compare_facts(a, a).differs


def test_added_removed_and_changed() -> None:
    a = dump(Kind.NAMESPACE, item("one", mode="fsdax"), item("two", mode="raw"))
    b = dump(Kind.NAMESPACE, item("one", mode="devdax"), item("three", mode="raw"))
    assert changes(a, b) == [
        ("changed", "one", "mode", "fsdax", "devdax"),
        ("removed", "two", None, "summary of two", None),
        ("added", "three", None, None, "summary of three"),
    ]


def test_what_a_dump_does_not_hold_was_not_removed() -> None:
    a = dump(Kind.NAMESPACE, item("one", mode="fsdax"))
    b = dump(Kind.NAMESPACE, problems=(NOT_SAVED,))
    (change,) = compare_facts(a, b).changes
    assert change.what is What.UNKNOWN
    assert change.why == "B: not saved"
    assert not compare_facts(a, b).differs
    assert [change.what for change in compare_facts(b, a).changes] == [What.UNKNOWN]


def test_what_may_not_be_one_of_the_kind_was_not_removed() -> None:
    doubtful = replace(item("inode 8 of pmem0"), certain=False)
    problem = Problem(cause=Cause.NOT_SAVED, what="DAX entries", why="not saved")
    a, b = dump(Kind.FILE, doubtful, problems=(problem,)), dump(Kind.FILE)
    (removed,) = compare_facts(a, b).changes
    assert (removed.what, removed.why) == (What.UNKNOWN, "A: DAX entries: not saved")
    (added,) = compare_facts(b, a).changes
    assert (added.what, added.why) == (What.UNKNOWN, "B: DAX entries: not saved")


def test_what_no_dump_of_the_format_has_makes_nothing_unknown() -> None:
    a = dump(Kind.NAMESPACE, item("one", mode="fsdax"))
    b = dump(Kind.NAMESPACE, problems=(FORMAT,))
    assert [change.what for change in compare_facts(a, b).changes] == [What.REMOVED]


@pytest.mark.parametrize("lacking", [UNKNOWN, PERHAPS])
def test_an_unknown_value_did_not_change(lacking: Any) -> None:
    a = dump(Kind.NAMESPACE, item("one", mode="fsdax"))
    b = dump(Kind.NAMESPACE, item("one", mode=lacking), problems=(NOT_SAVED,))
    assert changes(a, b) == [("unknown", "one", "mode", "fsdax", None)]
    assert changes(b, a) == [("unknown", "one", "mode", None, "fsdax")]


def test_why_a_value_is_unknown_is_about_that_very_thing() -> None:
    about = [
        Problem(cause=Cause.NOT_SAVED, what=name, why="lost")
        for name in ("namespace1.0", "namespace1.1", "namespace1.10")
    ]
    general = Problem(cause=Cause.NOT_SAVED, why="no list")

    def why(*problems: Problem) -> str | None:
        a = dump(Kind.COVERAGE, item("namespace1.1", state=UNKNOWN), problems=problems)
        b = dump(Kind.COVERAGE, item("namespace1.1", state="intact"))
        (change,) = compare_facts(a, b).changes
        return change.why

    assert why(*about, general) == "A: namespace1.1: lost"
    assert why(about[0], about[2], general) == "A: no list"
    assert why(about[0], about[2]) == "A: not in the dump"


def test_a_list_that_may_not_be_whole_did_not_change() -> None:
    a = dump(Kind.PIN, page(1, holders=("1/a", "2/b")))
    b = dump(Kind.PIN, page(1, holders=("1/a",)), problems=(NOT_SAVED,))
    assert [change[0] for change in changes(a, b)] == ["unknown"]


def test_nothing_and_perhaps_nothing_is_no_difference() -> None:
    a = dump(Kind.NAMESPACE, item("one", map=None))
    b = dump(Kind.NAMESPACE, item("one", map=PERHAPS), problems=(NOT_SAVED,))
    assert changes(a, b) == []


def test_a_thing_is_the_same_under_another_name() -> None:
    a = dump(Kind.NAMESPACE, item("namespace0.0", "uuid", name="namespace0.0"))
    b = dump(Kind.NAMESPACE, item("namespace0.1", "uuid", name="namespace0.1"))
    assert changes(a, b) == [
        ("changed", "namespace0.0, namespace0.1", "name", "namespace0.0", "namespace0.1")
    ]


def test_what_took_its_place_is_the_same_thing_changed() -> None:
    a = dump(Kind.NAMESPACE, replace(item("one", "old", uuid="old"), place="here"))
    b = dump(Kind.NAMESPACE, replace(item("one", "new", uuid="new"), place="here"))
    assert changes(a, b) == [("changed", "one", "uuid", "old", "new")]


def test_a_kernel_without_any_is_one_difference() -> None:
    a = dump(Kind.ENTRY, item("one"), item("two"))
    b = dump(Kind.ENTRY, absent="this kernel keeps no list")
    assert changes(a, b) == [("changed", "all", None, "2", "this kernel keeps no list")]
    assert changes(b, b) == []


def test_pages_that_changed_alike_are_one_row() -> None:
    a = dump(Kind.POISON)
    b = dump(Kind.POISON, *(replace(page(n), summary="HWPoison") for n in (8, 9, 10, 20)))
    assert [change[1] for change in changes(a, b)] == ["PFN 0x8 to 0xa", "PFN 0x14"]
    (compared,) = (c for c in compare_facts(a, b).compared if c.kind is Kind.POISON)
    assert compared.added == 4


def test_numbers_of_processes_count_within_one_boot_only() -> None:
    a = dump(Kind.FILE, item("file", **{"open by": ("1/sh",)}))
    b = dump(Kind.FILE, item("file", **{"open by": ("2/sh",)}))
    assert len(changes(a, b)) == 1
    rebooted = replace(b, identity=identity(boot_id="2"))
    assert changes(replace(a, identity=identity(boot_id="1")), rebooted) == []


VALUES = st.sampled_from(["fsdax", "devdax", None])
SIDE = st.dictionaries(st.sampled_from("abcdef"), st.fixed_dictionaries({"mode": VALUES}))


@given(SIDE, SIDE, st.sets(st.sampled_from("abcdef")), st.sets(st.sampled_from("abcdef")))
def test_with_less_in_a_dump_nothing_is_claimed_that_is_not_so(
    a: dict[str, Any], b: dict[str, Any], gone: set[str], vague: set[str]
) -> None:
    """Whatever B does not hold: what is still said to differ differs in truth."""

    def side(things: dict[str, Any]) -> DumpFacts:
        return dump(Kind.NAMESPACE, *(item(name, **values) for name, values in things.items()))

    def claims(found: tuple[Change, ...]) -> set[tuple[Any, ...]]:
        return {
            (c.what, c.subject, c.field, c.before, c.after)
            for c in found
            if c.what is not What.UNKNOWN
        }

    truth = claims(compare_facts(side(a), side(b)).changes)
    left = {n: ({"mode": UNKNOWN} if n in vague else v) for n, v in b.items() if n not in gone}
    lacking = dump(
        Kind.NAMESPACE,
        *(item(name, **values) for name, values in left.items()),
        problems=(NOT_SAVED,),
    )
    assert claims(compare_facts(side(a), lacking).changes) <= truth


def same(a: Identity, b: Identity) -> dict[str, bool | None]:
    found = {relation.what: relation.same for relation in relations(a, b)}
    assert found == {relation.what: relation.same for relation in relations(b, a)}
    return found


def test_one_crash_in_two_files() -> None:
    assert same(identity(), identity()) == dict.fromkeys(
        ("machine", "build", "boot", "crash"), True
    )


def test_another_boot() -> None:
    later = identity(booted=NOW + 200, made=NOW + 300, crashed=NOW + 300)
    assert same(identity(), later) == {
        "machine": True, "build": True, "boot": False, "crash": False
    }  # fmt: skip
    assert same(identity(boot_id="1"), identity(boot_id="2"))["boot"] is False
    assert same(identity(), identity(kernel_offset="2000000"))["boot"] is False


def test_another_machine() -> None:
    other = {"dimms": frozenset({"8089-02"}), "namespaces": frozenset({"uuid-2"})}
    assert same(identity(), identity(host="beta", **other))["machine"] is False
    assert same(identity(), identity(host="beta", **other))["boot"] is False
    assert same(identity(), identity(architecture="ppc64"))["machine"] is False
    # All of it may have been replaced, and a host may be given another name.
    assert same(identity(booted=1), identity(**other, booted=None))["machine"] is None
    assert same(identity(), identity(host="beta"))["machine"] is True


def test_qemu_numbers_the_dimms_of_all_guests_alike() -> None:
    guest = identity(dimms=frozenset({"8680-56341200"}), namespaces=frozenset(), kernel_offset="0")
    assert same(guest, guest)["machine"] is None
    # Two guests may be started in the same second.
    assert same(guest, guest)["boot"] is None


def test_nothing_follows_from_what_is_missing() -> None:
    nothing = identity(
        architecture=None, release=None, version=None, build_id=None, kernel_offset=None, host=None,
        booted=None, made=None, crashed=None, dimms=frozenset(), namespaces=frozenset(),
    )  # fmt: skip
    for other in (nothing, identity()):
        assert same(nothing, other) == dict.fromkeys(("machine", "build", "boot", "crash"), None)
    for other, which in ((nothing, "both"), (identity(), "one")):
        evidence = {r.what: r.evidence for r in relations(nothing, other)}
        assert evidence["boot"] == f"the time of boot of {which} is not known"


def test_one_boot_saved_twice() -> None:
    """As a hypervisor does of a running guest, or with and without CRASHTIME."""
    assert same(identity(), identity(made=NOW + 10, crashed=None)) == {
        "machine": True, "build": True, "boot": True, "crash": None
    }  # fmt: skip

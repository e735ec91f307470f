# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What counts as a contradiction between a full answer and one that lacks a page."""

from typing import Any

import pytest

from .compare import Rules, contradictions
from .screen import overstated
from .verdict import Outcome, verdict

PAGE = 4096
RULES = Rules(
    PAGE, frozenset({"pages"}), frozenset({"ranges"}), {"remaining": 1, "saved": PAGE}, {"lost": 1}
)
FILE = {"inode": 12, "path": "/a", "open_by": [{"pid": 1, "fd": 5}, {"pid": 2, "fd": 5}]}


def wrong(full: Any, part: Any, whole: bool = False) -> list[str]:
    return contradictions(full, part, whole, RULES)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("value", [None, 1, "a", [], {}, [FILE], {"a": [FILE, FILE]}])
def test_same_answer_is_fine(value: Any, whole: bool) -> None:
    assert not wrong(value, value, whole)


@pytest.mark.parametrize(
    "part",
    [
        [],
        [{**FILE, "path": None}],
        [{**FILE, "path": "unknown"}],
        [{**FILE, "open_by": FILE["open_by"][1:]}],
        [{**FILE, "open_by": [{"pid": 2, "fd": None}]}],
        [{**FILE, "open_by": None}],
        [{"inode": 12}],
        [{**FILE, "notes": ["fd table of 1 not saved"]}],
        [{**FILE, "reason": "excluded"}],
        None,
    ],
)
def test_what_is_unknown_or_left_out_is_fine_only_if_the_answer_says_so(part: Any) -> None:
    assert not wrong([FILE], part)
    assert wrong([FILE], part, whole=True)


@pytest.mark.parametrize(
    "part",
    [
        [{**FILE, "path": "/b"}],
        [{**FILE, "inode": 0}],
        [{**FILE, "inode": False}],
        [{**FILE, "path": ""}],
        [{**FILE, "open_by": [{"pid": 3, "fd": 5}]}],
        [{**FILE, "open_by": [{"pid": 1, "fd": 5}] * 2}],
        [{**FILE, "deleted": True}],
        [FILE, FILE],
        [FILE, {**FILE, "path": None}],
        {},
        "none",
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_another_value_or_record_is_a_contradiction(part: Any, whole: bool) -> None:
    assert wrong([FILE], part, whole)


@pytest.mark.parametrize("part", [None, "unknown"])
def test_unknown_may_stand_for_false_and_none(part: Any) -> None:
    assert not wrong({"deleted": False}, {"deleted": part})
    assert not wrong({"owner": None}, {"owner": part})


@pytest.mark.parametrize("part", ["/b (ino 12)", "inode 12", "a file of pmem0 (ino 12)"])
def test_file_may_be_named_with_less(part: str) -> None:
    rules = Rules(PAGE, paths={"/a": frozenset(("/a", "/b"))})
    assert not contradictions({"owner": "/a (ino 12)"}, {"owner": part}, False, rules)
    assert contradictions({"owner": "/a (ino 12)"}, {"owner": part}, True, rules)
    assert contradictions({"owner": "/a (ino 13)"}, {"owner": part}, False, rules)


@pytest.mark.parametrize(
    "part", ["/c", "/b (ino 12)", "", "a file of pmem0", "inode 12, no DAX file"]
)
def test_another_file_is_a_contradiction(part: str) -> None:
    rules = Rules(PAGE, paths={"/a": frozenset(("/a", "/b"))})
    assert not contradictions({"path": "/a"}, {"path": "/b"}, False, rules)
    assert contradictions({"path": "/a"}, {"path": part}, False, rules)


def test_value_in_place_of_none_is_a_contradiction() -> None:
    assert wrong({"owner": None}, {"owner": "/a"})


def test_entries_are_matched_one_to_one() -> None:
    full = [{"pid": 1, "comm": "a"}, {"pid": 1, "comm": "b"}]
    unknown = {"pid": 1, "comm": None}
    assert not wrong(full, [unknown, unknown])
    assert not wrong(full, [unknown, {"pid": 1, "comm": "a"}])
    assert wrong(full, [unknown, unknown, unknown])


def test_entry_that_says_unknown_may_be_part_of_another() -> None:
    full = [{"namespace": "a", "list": {"start": 1, "state": "live"}}]
    part = [{"namespace": "a", "list": None}, {"namespace": None, "list": {"start": 1}}]
    assert wrong(full, part)
    part[1]["list"] = {"start": 1, "state": "unknown"}
    assert not wrong(full, part)
    part[1]["list"] = {"start": 2, "state": "unknown"}
    assert wrong(full, part)


def test_what_was_not_saved_of_a_record_may_be_one_of_its_own() -> None:
    full = [{"status": "idle", "state": "saved", "pages": 9, "flags": 1}]
    rest = {"status": "idle", "state": "saved", "pages": 8, "flags": 1}
    assert not wrong(full, [rest, {"status": "absent", "state": "absent", "flags": None}])
    assert wrong(full, [rest, {"status": "absent", "state": "absent", "flags": 2}])
    assert wrong(full, [rest, {"status": "idle", "state": "saved", "flags": None}])


def test_what_was_not_saved_may_be_of_several_records() -> None:
    full = [
        {"namespace": "a", "status": "idle", "state": "saved", "pages": 5},
        {"namespace": "a", "status": "file", "state": "saved", "pages": 3},
        {"namespace": "b", "status": "idle", "state": "saved", "pages": 9},
    ]
    gone = {"namespace": "a", "status": "excluded", "state": "excluded", "pages": 8}
    assert not wrong(full, [gone, full[2]])
    assert wrong(full, [{**gone, "pages": 9}])
    assert wrong(full, [{**gone, "namespace": "c"}])
    assert wrong(full, [{**gone, "state": "saved"}])


def test_pages_of_a_cut_folio_are_part_of_those_of_whole_ones() -> None:
    rules = Rules(PAGE, counts=frozenset({"pages"}), parts=frozenset({"folio_pages"}))
    full = [{"status": "idle", "pages": 1024, "folio_pages": 512}]
    rest = {"status": "idle", "pages": 512, "folio_pages": 512}
    assert not contradictions(
        full, [rest, {**rest, "pages": 64, "folio_pages": None}], False, rules
    )
    assert contradictions(full, [rest, {**rest, "pages": 64}], False, rules)
    assert contradictions(full, [rest, {**rest, "pages": 513, "folio_pages": None}], False, rules)
    assert contradictions(full, [{**rest, "pages": 64, "folio_pages": None}], True, rules)


def test_whole_answer_keeps_the_order() -> None:
    assert wrong([1, 2], [2, 1], whole=True)


@pytest.mark.parametrize("whole", [True, False])
def test_bytes_by_state_follow_the_page(whole: bool) -> None:
    assert not wrong({"saved": 8192}, {"saved": 4096, "excluded": 4096}, whole)
    assert not wrong({"saved": 64}, {"absent": 64}, whole)
    assert wrong({"saved": 4096}, {"saved": 8192}, whole)
    assert wrong({"saved": 4096}, {"saved": 4096, "absent": 4096}, whole)
    assert bool(wrong({"saved": 1 << 20}, {"excluded": 1 << 20}, whole)) is whole


def test_state_may_become_that_of_the_page() -> None:
    assert not wrong({"state": "saved"}, {"state": "excluded"})
    assert wrong({"state": "excluded"}, {"state": "saved"})
    assert wrong({"mode": "saved"}, {"mode": "excluded"})


def test_counts_of_what_was_found_may_be_fewer() -> None:
    assert not wrong({"pages": 5}, {"pages": 4})
    assert wrong({"pages": 5}, {"pages": 6})
    assert wrong({"pages": 5}, {"pages": 4}, whole=True)
    assert wrong({"dirty": 5}, {"dirty": 4})


def test_what_is_cut_once_more_is_in_more_pieces() -> None:
    assert not wrong({"ranges": 1}, {"ranges": 2})
    assert wrong({"ranges": 1}, {"ranges": 0})
    assert wrong({"ranges": 1}, {"ranges": 2}, whole=True)


@pytest.mark.parametrize("whole", [True, False])
def test_pages_of_the_dump_differ_by_one(whole: bool) -> None:
    assert not wrong({"remaining": 5, "lost": 0}, {"remaining": 4, "lost": 1}, whole)
    assert wrong({"remaining": 5}, {"remaining": 3}, whole)
    assert wrong({"remaining": 5}, {"remaining": 6}, whole)
    assert wrong({"lost": 1}, {"lost": 0}, whole)


def test_words_about_what_is_held_follow_the_bytes_by_state() -> None:
    full = {"states": {"saved": 2 * PAGE}, "verdict": "all was saved"}
    states = {"saved": PAGE, "excluded": PAGE}
    assert not wrong(full, {"states": states, "verdict": "half was saved"}, whole=True)
    assert wrong(full, {**full, "verdict": "half was saved"}, whole=True)
    assert not wrong({"saved": PAGE, "advice": "a"}, {"saved": 0, "advice": "b"}, whole=True)


def test_what_is_unknown_may_be_more() -> None:
    assert not wrong({"in_ram": 1, "unknown": 0}, {"in_ram": 1, "unknown": 4096})
    assert not wrong({"unknown": {}}, {"unknown": {"saved": 4096}})
    assert wrong({"in_ram": 1, "unknown": 0}, {"in_ram": 1, "unknown": 4096}, whole=True)
    assert wrong({"unknown": {}}, {"unknown": {"saved": 4096}}, whole=True)


def segment(index: int, physical: int, size: int, pmem: bool | None) -> dict[str, Any]:
    return {
        "index": index, "type": "bitmap", "physical": f"{physical:#x}", "file_size": size,
        "memory_size": size, "pmem": pmem, "iomem": [], "namespaces": [], "states": {"saved": size},
    }  # fmt: skip


def test_segment_that_may_be_pmem_or_ram_lies_over_several() -> None:
    full = [segment(0, 0, 8, False), segment(1, 8, 8, True), segment(2, 32, 8, False)]
    whole = Outcome(json=full, whole=True)

    def faults(*part: dict[str, Any]) -> list[str]:
        return verdict("pmem-segments", PAGE, whole, Outcome(json=list(part), whole=False))

    assert not faults(segment(0, 0, 16, None), segment(1, 32, 8, False))
    assert faults(segment(0, 0, 16, False), segment(1, 32, 8, False))
    assert faults(segment(0, 0, 12, None), segment(1, 32, 8, False))
    assert faults(segment(0, 0, 40, None))
    assert faults({**segment(0, 0, 16, None), "namespaces": ["a"]}, segment(1, 32, 8, False))


FULL = Outcome(json=[FILE], whole=True)
GONE = Outcome(error="no fadump", denies=True)


def test_answer_that_is_whole_and_differs_is_a_silent_change() -> None:
    (line,) = verdict("pmem-files", PAGE, FULL, Outcome(json=[], whole=True))
    assert line.startswith("SILENT")
    assert not verdict("pmem-files", PAGE, FULL, Outcome(json=[], whole=False))


def test_error_says_what_lacks_but_not_that_there_is_none() -> None:
    assert not verdict("pmem-files", PAGE, FULL, Outcome(error="task list not saved"))
    assert verdict("pmem-files", PAGE, FULL, Outcome(error="no such file", denies=True))
    assert not verdict("fadump", PAGE, GONE, GONE)
    assert not verdict("fadump", PAGE, GONE, Outcome(json=[], whole=False))
    assert verdict("fadump", PAGE, GONE, Outcome(json=[], whole=True))
    assert verdict("fadump", PAGE, GONE, Outcome(json=[FILE], whole=False))
    unreadable = Outcome(error="task list not saved")
    assert verdict("fadump", PAGE, unreadable, GONE)
    assert not verdict("fadump", PAGE, unreadable, Outcome(json=[FILE], whole=False))


def test_traceback_or_no_answer_is_a_fault() -> None:
    assert verdict("pmem-files", PAGE, FULL, Outcome(fault="Traceback")) == ["Traceback"]


def finding(id: str, subject: str, text: str, complete: bool = True) -> dict[str, Any]:
    return {"id": id, "subject": subject, "finding": text, "complete": complete}


def test_diagnosis_is_compared_rule_by_rule() -> None:
    dead = finding("poison-in-file", "/mnt/a", "poison at offset 0x0")
    full = Outcome([dead], whole=True)
    unknown = finding("poison-in-file", "poison in files", "cannot be decided", False)
    assert not verdict("pmem-diagnose", PAGE, full, full)
    assert not verdict("pmem-diagnose", PAGE, full, Outcome([unknown], whole=False))
    assert verdict("pmem-diagnose", PAGE, full, Outcome([], whole=False))
    assert verdict("pmem-diagnose", PAGE, full, Outcome([unknown], whole=True))
    other = finding("poison-in-file", "/mnt/b", "poison at offset 0x0", False)
    assert verdict("pmem-diagnose", PAGE, full, Outcome([other], whole=False))
    lost = finding("memmap-not-saved", "namespace0.0", "<1% not in the dump")
    assert not verdict("pmem-diagnose", PAGE, full, Outcome([dead, lost], whole=True))


def report(state: str, answer: list[Any], whole: bool) -> Outcome:
    section = {"command": "pmem-files -u", "state": state, "error": None, "answer": answer}
    return Outcome({"crash": {"release": "6.1"}, "sections": [section]}, whole=whole)


def test_report_is_compared_section_by_section() -> None:
    full = report("complete", [FILE], True)
    assert not verdict("pmem-report", PAGE, full, full)
    assert not verdict("pmem-report", PAGE, full, report("degraded", [], False))
    assert verdict("pmem-report", PAGE, full, report("complete", [], False))
    assert verdict("pmem-report", PAGE, full, report("degraded", [], True))
    assert not verdict("pmem-report", PAGE, full, Outcome({"crash": {}, "sections": []}))
    missing = Outcome({"crash": full.json["crash"], "sections": []}, whole=True)
    assert verdict("pmem-report", PAGE, full, missing)
    assert verdict("pmem-report", PAGE, full, Outcome({"crash": {"release": ""}, "sections": []}))


def test_pages_counted_by_owner_may_be_fewer() -> None:
    full = "/a (ino 1): 5 pages, /b (ino 2): 3 pages and 4 more"
    rules = Rules(4096)
    for part in (
        "/a (ino 1): 5 pages, /b (ino 2): 3 pages and 3 more",
        "/a (ino 1): 5 pages, /c (ino 3): 2 pages and 3 more",
        "/a (ino 1): 4 pages, /b (ino 2): 1 page",
    ):
        assert not contradictions({"owner": full}, {"owner": part}, False, rules)
        assert contradictions({"owner": full}, {"owner": part}, True, rules)
    for part in (
        "/a (ino 1): 6 pages, /b (ino 2): 3 pages and 4 more",
        "/a (ino 1): 5 pages, /c (ino 3): 4 pages and 4 more",
        "/a (ino 1): 5 pages, /b (ino 2): 3 pages and 5 more",
        "/d (ino 4)",
    ):
        assert contradictions({"owner": full}, {"owner": part}, False, rules)


SCREEN = {
    "PMEM": "1.6 GiB on 7 NVDIMMs (ACPI.NFIT), 10 namespaces enabled; info blocks are valid",
    "PINNED": "3 pages: /mnt/xfs/pinned by 389/lab-pin (vmsplice)",
    "LACKS": "650240 bytes of RAM below 1 MiB",
    "DO": "find why 389/lab-pin keeps its pages",
}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"PMEM": "1.6 GiB on 7 NVDIMMs, 9 namespaces enabled"}, "9 namespaces"),
        ({"PINNED": "3 pages: /mnt/xfs/pinned, holder not found"}, "holder not found"),
        ({"PINNED": "2 pages: /mnt/xfs/pinned; there may be more (a: 3 pages (b))"}, "2 pages"),
        ({"LACKS": None}, "LACKS is missing"),
    ],
)
def test_a_screen_must_not_say_more_than_is_known(
    changed: dict[str, str | None], said: str
) -> None:
    part = {label: text for label, text in (SCREEN | changed).items() if text is not None}
    (fault,) = overstated(SCREEN, part, whole=False)
    assert said in fault


@pytest.mark.parametrize(
    "changed",
    [
        {"PMEM": "1.6 GiB on at least 3 NVDIMMs (ACPI.NFIT), at least 9 namespaces enabled"},
        {"PINNED": "none was found, but not all could be looked at (no page of 3 pages (lost))"},
        {"PINNED": "at least 2 pages: /mnt/xfs/pinned; there may be more (not saved: 0x1000)"},
        {"LACKS": "not known (no namespace was saved)"},
        {"DO": None},
    ],
)
def test_a_screen_may_say_less(changed: dict[str, str | None]) -> None:
    part = {label: text for label, text in (SCREEN | changed).items() if text is not None}
    assert overstated(SCREEN, part, whole=False) == []


def test_a_screen_that_is_whole_is_the_same() -> None:
    assert overstated(SCREEN, SCREEN, whole=True) == []
    assert overstated(SCREEN, SCREEN | {"PINNED": "2 pages"}, whole=True)
    assert overstated(SCREEN, SCREEN | {"LACKS": "649 bytes of RAM"}, whole=True) == []

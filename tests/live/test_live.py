# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What the product answers of a running kernel is what the kernel's own tools said in the same minute:
from inside (``-k``), with persistent memory read too (``--live-pmem``), and from outside of a guest
(``--qemu``). ``DRGN_PMEM_LIVE`` names the folder that vmcores/lab/live/make.sh filled.
"""

from collections.abc import Iterator
import json
import os
from pathlib import Path
import re
from typing import Any

import pytest

from drgn_pmem.ranges import Range, RangeSet

RESULT = Path(os.environ.get("DRGN_PMEM_LIVE", ""))
TRUTH = RESULT / "truth"
HOW = ("live", "live-pmem", "qmp")
WHOLE = ("live-pmem", "qmp")
"""Those that read persistent memory."""

pytestmark = pytest.mark.skipif(
    "DRGN_PMEM_LIVE" not in os.environ, reason="make test-live boots the guest"
)


@pytest.fixture(params=HOW)
def how(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=WHOLE)
def whole(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def answer(how: str, name: str) -> Any:
    return json.loads((RESULT / how / f"{name}.out").read_text())


def text(how: str, name: str) -> str:
    return "".join((RESULT / how / f"{name}.{end}").read_text() for end in ("out", "err"))


def iomem() -> list[tuple[Range, str]]:
    found = []
    for line in (TRUTH / "iomem").read_text().splitlines():
        place, _, name = line.strip().partition(" : ")
        start, last = (int(number, 16) for number in place.split("-"))
        found.append((Range(start, last + 1), name))
    return found


def kcore() -> RangeSet:
    lines = (TRUTH / "kcore").read_text().splitlines()
    parts = [[int(number, 16) for number in line.split()] for line in lines]
    return RangeSet(Range(start, start + size) for start, size, _ in parts)


def devices(item: Any) -> Iterator[dict[str, Any]]:
    """Every object of a listing, whatever it is nested in."""
    if isinstance(item, dict):
        yield item
        for value in item.values():
            yield from devices(value)
    elif isinstance(item, list):
        for value in item:
            yield from devices(value)


def by_name(listing: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for item in devices(listing):
        name = item.get("dev") or item.get("chardev") or item.get("path")
        if name is not None:
            plain = {k: v for k, v in item.items() if not isinstance(v, (dict, list))}
            found.setdefault(str(name), {}).update(plain)
    return found


def test_every_key_of_ndctl(how: str) -> None:
    """But available_size and the like of nothing: ndctl's own numbers, key by key."""
    theirs = by_name(json.loads((TRUTH / "ndctl.all.json").read_text()))
    ours = by_name(answer(how, "list"))
    wrong = [
        (name, key, value, ours.get(name, {}).get(key))
        for name, item in theirs.items()
        for key, value in item.items()
        if ours.get(name, {}).get(key) != value
    ]
    assert not wrong
    assert len(theirs) > 10


_PAGE = re.compile(r" pid=(\d+) .* present=1 pfn=(0x[0-9a-f]+)")


def test_every_recorded_page_has_its_processes(how: str) -> None:
    owners: dict[int, set[int]] = {}
    for file in TRUTH.glob("final.*.txt"):
        for line in file.read_text().splitlines():
            found = _PAGE.search(line)
            if found is not None:
                owners.setdefault(int(found[2], 16), set()).add(int(found[1]))
    assert len(owners) > 100
    ours: dict[int, set[int]] = {}
    for item in answer(how, "rmap"):
        mappings = [m for o in item["owners"] for m in o["mappings"] if m["proof"] == "pte"]
        processes = {m["pid"] for m in mappings}
        ours[item["pfn"]] = processes
    assert len(ours) == len((RESULT / "pages").read_text().split())
    wrong = {hex(pfn): (owners[pfn], pids) for pfn, pids in ours.items() if pids != owners[pfn]}
    assert not wrong


def test_segments_of_the_running_kernel_are_those_of_kcore() -> None:
    ours = RangeSet(
        Range(int(s["physical"], 16), int(s["physical"], 16) + s["memory_size"])
        for s in answer("live", "segments")
    )
    assert ours == kcore()


def test_nothing_of_pmem_is_in_kcore() -> None:
    """So nothing is said of its contents: neither saved nor damaged, nor that there is none."""
    for item in answer("live", "coverage"):
        assert set(item["userdata"]) <= {"absent"}, item
        assert set(item["infoblock"]) <= {"absent"}, item
        if item["location"] == "pmem":
            assert set(item["struct_pages"]) == {"absent"}, item
    for name in ("coverage-text", "memmap-text", "infoblocks-text", "namespaces-text"):
        said = text("live", name)
        assert "damaged" not in said
        assert "no info block there" not in said
        assert "truncated" not in said.replace("× truncated", "").replace("x truncated", "")
    assert {item["state"] for item in answer("live", "pages")}.isdisjoint({"truncated"})


def test_pmem_that_can_be_read_is_whole(whole: str) -> None:
    for item in answer(whole, "coverage"):
        assert set(item["userdata"]) <= {"saved"}, item
        assert set(item["struct_pages"]) <= {"saved"}, item
        assert "initialised again" not in item["verdict"]
    blocks = [b for b in answer(whole, "infoblocks") if b.get("infoblock")]
    assert blocks
    memmaps = [m for m in answer(whole, "memmap") if "mode" in m]
    assert {m["agree"] for m in memmaps} <= {True}, memmaps


def test_dax_devices_without_a_namespace_have_rows(how: str) -> None:
    """Soft-reserved memory: by the name of its device, and not as persistent memory."""
    listed = json.loads((TRUTH / "daxctl.json").read_text())
    devices = {d["chardev"]: r["path"] for r in listed for d in r["devices"]}
    alone = {name for name, path in devices.items() if "/ndbus" not in path}
    assert alone, "the guest has soft-reserved memory"
    for question in ("memmap", "coverage"):
        assert alone <= {item["namespace"] for item in answer(how, question)}, question
    assert alone <= {item["namespace"] for item in answer(how, "pages")}
    assert not [n for item in answer(how, "pages") if (n := item["namespace"]).startswith("pgmap")]


def test_live_pmem_says_what_it_reads() -> None:
    notes = (RESULT / "live-pmem" / "notes").read_text()
    assert "of persistent and DAX memory are read through /dev/mem" in notes


def test_pages_add_up_to_the_memory_of_iomem(whole: str) -> None:
    """pmem-usage: metadata and user data are all persistent memory."""
    usage = answer(whole, "usage")
    names = re.compile(r"Persistent Memory|namespace\d+\.\d+$")
    pmem = RangeSet(part for part, name in iomem() if names.match(name))
    pages = sum(sum(usage[key].values()) for key in ("pmem_metadata", "pmem_userdata"))
    assert pages == pmem.total // usage["page_size"]


def test_no_crash_kernel_is_said(how: str) -> None:
    said = text(how, "elfcorehdr-text")
    assert "no crash kernel is loaded" in said
    assert "removed after" not in said
    assert "only the loader" not in said


def test_every_question_was_answered(how: str) -> None:
    """No traceback, no crash of a command; what a live kernel lacks is a note."""
    lines = (RESULT / how / "status").read_text().splitlines()
    assert len(lines) >= 20
    for line in lines:
        name, status, _ = line.split()
        messages = (RESULT / how / f"{name}.err").read_text()
        assert "Traceback" not in messages
        assert "failed:" not in messages, messages
        assert status == "0" or messages, name
        assert (RESULT / how / f"{name}.out").stat().st_size or "drgn-pmem:" in messages

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Every rule finds what is wrong, finds nothing where nothing is wrong, and is undecided where what it
looks at is not all known: with records made by hand. The tests of the sample dumps hold the same
rules against what the machines recorded.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
import importlib
from types import SimpleNamespace as S
from typing import Any

import pytest

from drgn_pmem.analysis.findings.badpages import Place
from drgn_pmem.analysis.findings.case import RULES
from drgn_pmem.analysis.findings.model import Outcome
from drgn_pmem.analysis.headers.differences import DifferenceCause
from drgn_pmem.analysis.headers.subject import Subject
from drgn_pmem.dumpfile import DumpFormat
from drgn_pmem.errors import NotFound
from drgn_pmem.formats.elfcorehdr import HeaderSource
from drgn_pmem.kernel.failurelog import FailureEvent
from drgn_pmem.kernel.root import Verdict
from drgn_pmem.partial import Cause, NotSaved, Partial, Problem, State
from drgn_pmem.ranges import Range
from tests.unit.findings.rulings import LOST, ruling

ELSEWHERE = {
    "dimm-failed", "namespace-gone", "btt-error", "duplicate-uuid",  # test_devicerules
    "fadump-not-registered", "panic-in-pmem",  # test_crashrules
    "panic-address", "panic-task",  # test_panicrules
    "owner-sources-disagree",  # test_ownerrule
}  # fmt: skip
"""Rules whose three outcomes have a test of their own."""


@dataclass
class Row:
    """What a rule is answered where something is wrong, and where nothing is."""

    rule: str
    bad: dict[str, Any]
    good: dict[str, Any]
    """Function, as ``module.name`` below ``analysis/findings`` -> its answer; that of a function
    that does not return a Partial is a :class:`Plain`."""
    unknown: dict[str, Any] = field(default_factory=dict)
    """The same where something is not known; by default what is good, and a problem."""


class Plain:
    """The answer of a function that returns no Partial."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, *_: Any, **__: Any) -> Any:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


def inventory(**records: Any) -> dict[str, Any]:
    kinds = ("buses", "dimms", "regions", "namespaces", "dax_regions")
    return {"case.read_inventory": S(**dict.fromkeys(kinds, ()) | records)}


def namespace(**values: Any) -> Any:
    known = {"dev": "namespace0.0", "raw_size": 1, "enabled": True, "name": None, "mode": "fsdax",
             "claim_class": None, "force_raw": False, "label_uuid": None, "map": "dev",
             "pgmap": True}  # fmt: skip
    return S(**known | values)


def log(text: str) -> dict[str, Any]:
    return {"case.read_log": Plain(f"[    1.5] {text}\n".encode())}


LOG_LOST = {"case.read_log": Plain(NotSaved("the log was not saved"))}


def headers(*causes: DifferenceCause) -> dict[str, Any]:
    difference = S(start=0x100000000, end=0x108000000, words="in one only")
    items = [
        S(cause=cause, difference=difference, between=(HeaderSource.IMPLIED,), explanation="x")
        for cause in causes
    ]
    return {"case.read_crash_headers": S(differences=items, image=None, hotplug=S(loaded=True))}


def poison(*, owned: bool = False, **values: Any) -> dict[str, Any]:
    owner = S(device="pmem0", inode=1, name="/mnt/a", offset=0x1000)
    known = {
        "pfn": 0x100, "physical": 0x100000, "sources": ["badblocks"], "lines": (), "processes": (),
        "injected": False, "by_hand": False, "listed_only": False, "dimms": ("nmem0",),
        "place": Place.DATA, "describes": None,
        "namespace": S(dev="namespace0.0", blockdev="pmem0"), "arithmetic": [], "data_offset": 0,
        "namespace_offset": 0,
        "owners": S(owners=[owner] if owned else [], unowned=not owned, notes=(), page_shift=12),
    }  # fmt: skip
    return {"case.find_poison": S(pages=[S(**known | values)] if values or owned else [])}


def coverage(**values: Any) -> dict[str, Any]:
    known = {"namespace": "namespace0.0", "has_memmap": True, "destroyed": False, "check": None,
             "struct_pages": {State.SAVED: 64}, "memmap_size": 64, "verdict": "x"}  # fmt: skip
    return inventory() | {"case.read_namespace_coverage": S(namespaces=[S(**known | values)])}


def memmaps(*strays: Any, agree: bool = True) -> dict[str, Any]:
    memmap = S(agree=agree, notes=["they differ"], namespace=S(dev="namespace0.0"))
    return inventory() | {
        "case.read_memmaps": S(memmaps=[memmap], strays=strays),
        "rules.memmap.for_each_memmap_entry": [],
    }


def stray(state: str) -> Any:
    return S(state=state, reason=None, start_pfn=1, end_pfn=2, address=3)


TASK = S(pid=7, tgid=7, comm="db", object=None, address=1)
OWNERS = S(owners=[S(name="/mnt/a", offset=0)], namespace="namespace0.0")
WAITER = S(task=TASK, place="dax_break_layout", pfn=1, file="/mnt/a")
PINNED = S(pfn=1, owners=OWNERS, holders=(), waiters=(WAITER,), count=lambda name: 2)
NOT_SINCE = {"rules.pins._since": Plain("")}


def pins(pages: Any = (), waiters: Any = ()) -> dict[str, Any]:
    return NOT_SINCE | {"case.find_pins": S(pages=pages, waiters=waiters)}


def stuck(*functions: str) -> dict[str, Any]:
    stack = S(task=TASK, layout_break=False, functions=functions, hold=None, pages=(), disks=(),
              function=None)  # fmt: skip
    return NOT_SINCE | {
        "case.tasks_of": S(tasks=(TASK,)),
        "case.search_stacks": (stack,),
        "rules.pins.task_state_to_char": Plain("D"),
        "rules.pins.suspended_disks": [],
    }


def file(damaged: int = 0, **values: Any) -> dict[str, Any]:
    known = {"truncated": False, "erased": (), "contained": DumpFormat.ELF, "vmcoreinfo": None}
    counts = S(count=lambda: {State.TRUNCATED: 4096, State.DAMAGED: damaged})
    return {"rules.dump.dump_of": Plain(S(**known | values)),
            "rules.dump.coverage_of": Plain(counts)}  # fmt: skip


FILE_LOST = {"rules.dump.dump_of": Plain(NotSaved("the header was not saved"))}


def root(verdict: Verdict, **vmcoreinfo: Any) -> dict[str, Any]:
    return file() | {"rules.dump.root_of": Plain(S(verdict=verdict, reason="of another boot"))}


def subject(of: Subject | None) -> dict[str, Any]:
    return {"case.subject_of": S(subject=of, evidence=("its command line",))}


def crash_kernel(loaded: bool) -> dict[str, Any]:
    return subject(Subject.RUNNING_GUEST) | {
        "case.read_crash_headers": S(differences=[], image=None, hotplug=S(loaded=loaded)),
        "rules.dump.fw_dump": Plain(NotFound("POWER only")),
    }


def block(*refused: str) -> dict[str, Any]:
    why = [S(why=text) for text in refused]
    found = S(block=object(), refused=why, kind="pfn", namespace="namespace0.0", start=0)
    return {"case.find_blocks": S(blocks=[found])}


def labels(*bad: tuple[int, str]) -> dict[str, Any]:
    return {"case.find_labels": [S(dimm="nmem0", area=S(bad_indexes=bad, slots=[]))]}


def fadump(compatible: bool) -> dict[str, Any]:
    verdict = S(compatible=compatible, words="bad magic number")
    return {"rules.headers.read_fadump": S(verdict=verdict, wrong=[])}


def dax(mode: str | None) -> dict[str, Any]:
    device = S(mode=mode, size=1 << 20, chardev="dax0.0")
    return inventory(dax_regions=[S(devices=[device])])


def lines(*events: FailureEvent) -> list[Any]:
    return [S(event=event, text="a line") for event in events]


def suspended(*disks: Any) -> dict[str, Any]:
    return {"rules.pins.suspended_disks": list(disks)}


def missing(*parts: Range) -> dict[str, Any]:
    return file() | headers() | {"case.read_segments": S(missing_ram=list(parts))}


def as_ram(movable: bool) -> dict[str, Any]:
    blocks = S(online=2, movable=movable)
    device = S(mode="system-ram", size=1 << 28, chardev="dax0.0", memory_blocks=blocks)
    return inventory(dax_regions=[S(devices=[device])])


class Scan:
    """A memory block, with or without a page that cannot be moved."""

    blocks = (S(name="memory32"),)

    def __init__(self, busy: bool) -> None:
        self.busy = busy

    def scan_block(self, block: Any, groups: list[Any], ranges: list[Any], kept: int) -> None:
        if self.busy:
            group = S(status="slab", pages=2, owner=None, extra=None)
            groups.append(group)
            ranges.append(S(pfn=0x100, group=group))


def held(busy: bool) -> dict[str, Any]:
    return {"rules.kmem.ram_devices": [("namespace4.0", S(chardev="dax4.0"))],
            "rules.kmem.RamScan": Plain(Scan(busy))}  # fmt: skip


WARNING = "WARNING: CPU: 1 PID: 354 at fs/dax.c:380 {}+0x1aa/0x238"
NO_MAPS = {"rules.log.for_each_pmem_pgmap": []}
REPORTED, HANDLED = FailureEvent.REPORTED, FailureEvent.HANDLED

ROWS = [
    Row("header-outdated", headers(DifferenceCause.ADDED), headers()),
    Row("header-without-pmem", headers(DifferenceCause.PMEM_MISSING), headers()),
    Row("header-wrong", headers(DifferenceCause.UNEXPLAINED), headers()),
    Row("fadump-refused", fadump(False), fadump(True)),
    Row("dimm-disabled", inventory(dimms=[S(dev="nmem0", enabled=False)]),
        inventory(dimms=[S(dev="nmem0", enabled=True)])),
    Row("region-disabled", inventory(regions=[S(dev="region0", enabled=False, size=1)]),
        inventory(regions=[S(dev="region0", enabled=True, size=1)])),
    Row("namespace-disabled",
        inventory(namespaces=[namespace(enabled=False)]) | {"case.read_media": {}},
        inventory(namespaces=[namespace()])),
    Row("namespace-raw",
        inventory(namespaces=[namespace(mode="raw", claim_class="pfn")]) | {"case.read_media": {}},
        inventory(namespaces=[namespace(mode="raw", claim_class="pfn", force_raw=True)])),
    Row("kmem-left", {"rules.devices.lost_memory": ["128 MiB are still online"]},
        {"rules.devices.lost_memory": []}),
    Row("dax-without-driver", dax(None), dax("devdax")),
    Row("memory-not-movable", as_ram(False), as_ram(True)),
    Row("kmem-held", held(True), held(False)),
    Row("infoblock-refused", block("bad checksum"), block()),
    Row("label-damaged", labels((0, "bad signature")), labels()),
    Row("poison-in-file", poison(owned=True), poison()),
    Row("poison-in-struct-pages", poison(place=Place.STRUCT_PAGES, describes=(0x10, 64)),
        poison(place=Place.DATA)),
    Row("poison-in-metadata", poison(place=Place.INFO_BLOCK), poison(place=Place.DATA)),
    Row("poison-in-data", poison(place=Place.DATA), poison(owned=True)),
    Row("machine-check-not-handled", poison(lines=lines(REPORTED)),
        poison(lines=lines(REPORTED, HANDLED))),
    Row("dump-truncated", file(truncated=True), file(), FILE_LOST),
    Row("dump-damaged", file(damaged=4096), file(),
        {"rules.dump.coverage_of": Plain(NotSaved("the header was not saved"))}),
    Row("dump-erased", file(erased=("struct key",)), file(), FILE_LOST),
    Row("vmcoreinfo-wrong", root(Verdict.WRONG), root(Verdict.VERIFIED), root(Verdict.UNVERIFIED)),
    Row("debug-info-missing",
        {"rules.dump.has_kernel_debug_info": Plain(False),
         "rules.dump.how_to_get_kernel": Plain("install it")},
        {"rules.dump.has_kernel_debug_info": Plain(True),
         "rules.dump.lacking_modules": Plain([])},
        {"rules.dump.has_kernel_debug_info": Plain(True),
         "rules.dump.lacking_modules": Plain(NotSaved("modules"))}),
    Row("capture-kernel", subject(Subject.CAPTURE_KERNEL), subject(Subject.CRASHED)),
    Row("no-crash-kernel", crash_kernel(False), crash_kernel(True)),
    Row("ram-missing", missing(Range(0x1000, 0x2000)), missing()),
    Row("kernel-report", log(WARNING.format("dax_insert_entry")) | NO_MAPS,
        log(WARNING.format("schedule")) | NO_MAPS, LOG_LOST),
    Row("persistence-not-guaranteed",
        log("nd_pmem namespace0.0: unable to guarantee persistence of writes"),
        log("nd_pmem namespace0.0: fine"), LOG_LOST),
    Row("io-error", log("EXT4-fs error (device pmem0): ext4_find_entry:1463: inode #2"),
        log("EXT4-fs error (device sda1): ext4_find_entry:1463: inode #2"), LOG_LOST),
    Row("memmap-overwritten", coverage(destroyed=True, check=S(evidence="no page map")),
        coverage()),
    Row("memmap-not-saved", coverage(struct_pages={State.ABSENT: 64}), coverage()),
    Row("memmap-not-saved",
        coverage(struct_pages={State.UNMAPPED: 64}, is_persistent=True)
        | inventory(namespaces=[namespace()]),
        # by its info block alone: it may have been disabled
        coverage(struct_pages={State.UNMAPPED: 64}, is_persistent=True, namespace=None)),
    Row("memmap-sources-disagree", memmaps(agree=False), memmaps()),
    Row("memmap-list", memmaps(stray("stale")), memmaps(), memmaps(stray("unknown"))),
    Row("layout-break", pins([PINNED], [WAITER]), pins()),
    Row("pinned-page", pins([PINNED]), pins()),
    Row("task-stuck-on-pmem", stuck("schedule", "pmem_do_read"), stuck("schedule", "pipe_read")),
    Row("dm-suspended", suspended(S(name="dm-1", mapped="slow")), suspended()),
]  # fmt: skip


def give(monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any], *problems: Problem) -> None:
    for path, value in answers.items():
        module_name, _, name = path.rpartition(".")
        module = importlib.import_module(f"drgn_pmem.analysis.findings.{module_name}")
        answer = value if isinstance(value, Plain) else _partial(value, problems)
        monkeypatch.setattr(module, name, answer)


def _partial(value: Any, problems: tuple[Problem, ...]) -> Callable[..., Partial[Any]]:
    return lambda *_: Partial(value, problems)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.rule)
def test_found_not_found_and_undecided(monkeypatch: pytest.MonkeyPatch, row: Row) -> None:
    give(monkeypatch, row.bad)
    found = ruling(row.rule)
    assert (found.outcome, found.complete) == (Outcome.FOUND, True), found.why
    assert all(item.subject and item.finding and item.more for item in found.findings)
    give(monkeypatch, row.good)
    assert ruling(row.rule).outcome is Outcome.NOT_FOUND, ruling(row.rule)
    if row.unknown:
        give(monkeypatch, row.unknown)
    else:
        give(monkeypatch, row.good, LOST)
    assert ruling(row.rule).outcome is Outcome.UNDECIDED
    assert ruling(row.rule).why


@pytest.mark.parametrize("why", ["cyclic", "overlaps the entry before"])
def test_a_damaged_list_of_memmaps_is_a_finding(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    give(monkeypatch, memmaps())
    damaged = Problem(cause=Cause.DAMAGED, what="devm_memmap_vmcore", why=why)
    give(monkeypatch, {"rules.memmap.for_each_memmap_entry": []}, damaged)
    (found,) = ruling("memmap-list").findings
    assert why in found.finding


def test_no_rule_is_without_a_test() -> None:
    assert {row.rule for row in ROWS} | ELSEWHERE == set(RULES)

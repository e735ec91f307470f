# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The first screen says nothing that could not be read."""

from types import SimpleNamespace
from typing import Any

import pytest

from drgn_pmem.analysis.findings import head, screen
from drgn_pmem.dumpfile.coverage import Coverage, CoverageRange, State
from drgn_pmem.errors import NotFound
from drgn_pmem.partial import Cause, Partial, Problem, Problems
from drgn_pmem.ranges import Range, RangeSet

UNREAD = Problem(cause=Cause.NOT_SAVED, why="kexec_crash_image was not saved")


@pytest.mark.parametrize(
    ("hotplug", "problems", "words"),
    [
        (object(), (), "no crash kernel loaded: a panic would leave no vmcore"),
        (None, (UNREAD,), "whether a crash kernel is loaded is not known"),
    ],
)
def test_a_crash_kernel_that_cannot_be_read_may_be_loaded(
    monkeypatch: pytest.MonkeyPatch, hotplug: object, problems: tuple[Problem, ...], words: str
) -> None:
    def fw_dump(prog: object) -> None:
        raise NotFound("no firmware-assisted dump")

    headers = Partial(SimpleNamespace(image=None, hotplug=hotplug), problems)
    facts: Any = SimpleNamespace(prog=None, headers=lambda: headers)
    monkeypatch.setattr(head, "fw_dump", fw_dump)
    found = Problems()
    assert head._crash_kernel(facts, found) == words
    assert tuple(found) == problems


@pytest.mark.parametrize(
    ("state", "problems", "line"),
    [
        (State.SAVED, (), "no user data of pmem is missing (all 4096 bytes of it was saved)"),
        (
            State.SAVED,
            (UNREAD,),
            "user data of pmem: only 4096 bytes of at least 4096 bytes are in",
        ),
        (State.ABSENT, (), "all user data of pmem (4096 bytes)"),
        (State.ABSENT, (UNREAD,), "all user data of pmem that is known (4096 bytes)"),
    ],
)
def test_user_data_of_namespaces_that_cannot_be_read_may_be_missing(
    state: State, problems: tuple[Problem, ...], line: str
) -> None:
    namespaces = [SimpleNamespace(kmem=kmem, userdata={state: 4096}) for kmem in (0, 4096, None)]
    answer = Partial(SimpleNamespace(namespaces=namespaces), problems)
    (text,) = screen.Screen._user_data(shown := screen_of(answer))
    assert text.startswith(line)
    assert tuple(shown.problems) == problems


@pytest.mark.parametrize(
    ("excluded", "words"),
    [
        (0, "truncated: 4096 bytes of the 12288 bytes that its headers describe"),
        (
            1 << 20,
            "truncated and filtered: 4096 bytes of 12288 bytes are left, of the 1 MiB that its "
            "headers describe",
        ),
    ],
)
def test_what_a_filter_left_out_is_not_what_the_end_of_the_file_cut_off(
    monkeypatch: pytest.MonkeyPatch, excluded: int, words: str
) -> None:
    counts = {State.SAVED: 4096, State.TRUNCATED: 8192, State.EXCLUDED: excluded}
    monkeypatch.setattr(head, "coverage_of", lambda _: SimpleNamespace(count=lambda: counts))
    monkeypatch.setattr(head, "dump_of", lambda _: SimpleNamespace(truncated=True, contained=None))
    facts: Any = SimpleNamespace(prog=None)
    assert head._whole(facts) == words


def test_most_of_the_user_data_is_not_only_as_much_as_all() -> None:
    """It said "only 829.9 MiB of 829.9 MiB": rounded, the part was the whole."""
    namespaces = [SimpleNamespace(kmem=0, userdata={State.SAVED: 1 << 30, State.EXCLUDED: 4096})]
    shown = screen_of(Partial(SimpleNamespace(namespaces=namespaces)))
    (text,) = screen.Screen._user_data(shown)
    assert text == "user data of pmem: all but 4096 bytes of 1 GiB are in the dump"


def screen_of(coverage: Partial[Any], *namespaces: SimpleNamespace) -> Any:
    inventory = Partial(SimpleNamespace(namespaces=namespaces))
    facts = SimpleNamespace(coverage=lambda: coverage, inventory=lambda: inventory)
    return SimpleNamespace(prog=None, facts=facts, problems=Problems())


def test_data_of_disabled_namespaces_is_not_counted_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It said "user data of pmem: all 4096 bytes" beside a disabled namespace that was saved."""
    idle = SimpleNamespace(enabled=False, raw_size=8192, range=Range(0, 8192), dev="namespace0.2")
    enabled = SimpleNamespace(kmem=0, userdata={State.SAVED: 4096})
    parts = [CoverageRange(0, 4096, State.SAVED)]
    monkeypatch.setattr(screen, "coverage_of", lambda prog: Coverage.from_ranges(parts))
    shown = screen_of(Partial(SimpleNamespace(namespaces=[enabled])), idle)
    assert list(screen.Screen._user_data(shown)) == [
        "no user data of enabled namespaces is missing (all 4096 bytes of it was saved)",
        "namespace0.2 (disabled): only 4096 bytes of 8192 bytes are in the dump",
    ]


@pytest.mark.parametrize(("lost", "whose"), [((), "its"), (("iomem",), "the known")])
def test_persistent_memory_that_cannot_be_read_may_be_in_the_dump(
    monkeypatch: pytest.MonkeyPatch, lost: tuple[str, ...], whose: str
) -> None:
    monkeypatch.setattr(screen, "coverage_of", lambda prog: Coverage.from_ranges([]))
    shown: Any = SimpleNamespace(prog=None)
    machine: Any = SimpleNamespace(device_pmem=RangeSet([Range(0, 4096)]), lost_sources=lost)
    (text,) = screen.Screen._without_pmem(shown, machine)
    assert text == f"persistent memory: none of {whose} 4096 bytes is in the dump"


@pytest.mark.parametrize(
    ("providers", "complete", "words"),
    [
        (["ACPI.NFIT", None], True, "ACPI.NFIT, ndbus1"),
        ([f"{head._PAPR}9000000{n}" for n in range(7)], True, "7 papr buses"),
        ([f"{head._PAPR}90000001", "6230000000000000.pmem"], False, "at least 1 papr bus, 6230"),
    ],
)
def test_buses_of_power_are_counted_not_named(
    providers: list[str | None], complete: bool, words: str
) -> None:
    """Seven names of 48 characters took three lines of the first screen."""
    buses: Any = [SimpleNamespace(provider=p, dev=f"ndbus{n}") for n, p in enumerate(providers)]
    names = head._bus_names(buses, "" if complete else "at least ")
    assert ", ".join(names).startswith(words)


def test_volatile_regions_are_counted_and_said() -> None:
    """They were left out of the size, and their namespaces were not."""
    regions = [SimpleNamespace(type=t, size=64 << 20) for t in ("pmem", "pmem", "volatile")]
    listed = SimpleNamespace(regions=regions, buses=[], dimms=[], namespaces=[], dax_regions=[])
    facts: Any = SimpleNamespace(prog=None, inventory=lambda: Partial(listed))
    text = head.pmem_text(facts, [], Problems())
    assert text.startswith("192 MiB (64 MiB volatile), 0 namespaces enabled")

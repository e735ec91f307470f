# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rules about devices that no sample has a finding of, with records made by hand: found, not found,
and undecided where what they look at is not all known."""

from collections.abc import Callable
import dataclasses
from typing import Any

import pytest

from drgn_pmem.analysis.findings.model import Outcome, Severity
from drgn_pmem.analysis.inventory.foundblock import FoundBlock, FoundBlocks
from drgn_pmem.analysis.inventory.labels import FoundLabels
from drgn_pmem.analysis.inventory.listing import Inventory
from drgn_pmem.dumpfile import State
from drgn_pmem.formats.btt import BttArena, BttArenaPlace, BttChain, check_btt
from drgn_pmem.formats.label import CxlRegionLabel, EfiLabel, Label
from drgn_pmem.formats.labelarea import LabelArea, LabelSlot, NamespaceIndex
from drgn_pmem.kernel.namespace import NIL_UUID, Namespace
from drgn_pmem.kernel.nvdimm import Dimm
from drgn_pmem.partial import Cause, Problem
from tests.unit.findings.rulings import LOST, NOTHING, ruling, the_finding

UUID = "11111111-2222-3333-4444-555555555555"
OTHER = "99999999-8888-7777-6666-555555555555"


def inventory(dimms: Any = (), namespaces: Any = ()) -> Inventory:
    return Inventory(
        buses=[], dimms=list(dimms), regions=[], namespaces=list(namespaces), dax_regions=[]
    )


# DIMMs


def dimm(*flags: str, dirty: bool = False, count: int | None = None, known: bool = True) -> Dimm:
    return Dimm(
        dev="nmem0",
        bus="ndbus0",
        id=None,
        handle=1,
        phys_id=1,
        flags=flags if known else None,
        shutdown_state="dirty" if dirty else None,
        shutdown_count=count,
        enabled=True,
        object=NOTHING,
    )


@pytest.mark.parametrize(
    ("flags", "severity", "sentence"),
    [
        (("flag_failed_arm",), "CRITICAL", "not armed: a power loss now loses data"),
        (("flag_failed_save",), "CRITICAL", "save failed: the last shutdown lost data"),
        (("flag_failed_map",), "CRITICAL", "its memory could not be mapped"),
        (("flag_smart_event",), "WARNING", "its health changed (SMART event)"),
        (
            ("flag_failed_restore", "flag_smart_event"),
            "CRITICAL",
            "restore failed; its health changed (SMART event)",
        ),
    ],
)
def test_a_dimm_that_failed(
    answer: Callable[..., None], flags: tuple[str, ...], severity: str, sentence: str
) -> None:
    answer("read_inventory", inventory([dimm(*flags)]))
    found = the_finding("dimm-failed")
    assert (found.subject, found.severity) == ("nmem0", Severity[severity])
    assert found.finding == sentence
    assert found.evidence == (f"flags: {', '.join(flags)}",)


def test_a_dirty_shutdown_is_counted(answer: Callable[..., None]) -> None:
    answer("read_inventory", inventory([dimm("flag_failed_flush", dirty=True, count=3)]))
    found = the_finding("dimm-failed")
    assert (found.subject, found.severity) == ("nmem0", Severity.CRITICAL)
    assert found.finding == (
        "flush failed: the last shutdown lost data; its last shutdown was dirty (3 in all)"
    )


def test_a_dimm_without_flags_is_fine(answer: Callable[..., None]) -> None:
    answer("read_inventory", inventory([dimm(count=3)]))
    assert ruling("dimm-failed").outcome is Outcome.NOT_FOUND


def test_dimms_that_are_not_all_known_may_have_failed(answer: Callable[..., None]) -> None:
    answer("read_inventory", inventory([dimm()]), LOST)
    assert ruling("dimm-failed").outcome is Outcome.UNDECIDED


def test_a_dimm_whose_flags_are_not_known_may_have_failed(answer: Callable[..., None]) -> None:
    """Without debug info of nfit; pmem-list names the module, the inventory has no problem."""
    answer("read_inventory", inventory([dimm(known=False)]))
    own = ruling("dimm-failed")
    assert own.outcome is Outcome.UNDECIDED
    assert own.why == (
        "nmem0: what the firmware says of it is not known: no debug info of nfit or papr_scm"
    )


# Namespaces and labels


def namespace(dev: str, uuid: str | None, raw_size: int = 1 << 24) -> Namespace:
    unknown: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(Namespace))
    unknown |= {"dev": dev, "label_uuid": uuid, "raw_size": raw_size, "resource": 1 << 32}
    return Namespace(**(unknown | {"region": "region0", "enabled": True, "seed": False}))


@pytest.mark.parametrize(
    ("uuid", "advice"),
    [
        (
            UUID,
            " (its label names it spare): ndctl enable-namespace namespace0.0; do not re-create",
        ),
        (NIL_UUID, ": ndctl enable-namespace namespace0.0"),
    ],
)
def test_a_disabled_namespace_has_advice(
    answer: Callable[..., None], uuid: str, advice: str
) -> None:
    idle = dataclasses.replace(namespace("namespace0.0", uuid), enabled=False, name="spare")
    answer("read_inventory", inventory([], [idle]))
    answer("read_media", {})
    do = the_finding("namespace-disabled").do
    assert do is not None
    assert do.startswith("enable namespace0.0 if it should be in use")
    assert advice in do
    assert ("label" in do) == (uuid == UUID)


def test_two_namespaces_of_one_uuid(answer: Callable[..., None]) -> None:
    same = [namespace("namespace0.0", UUID), namespace("namespace1.0", UUID)]
    answer("read_inventory", inventory([], [*same, namespace("namespace2.0", OTHER)]))
    found = the_finding("duplicate-uuid")
    assert (found.subject, found.severity) == ("namespace0.0, namespace1.0", Severity.CRITICAL)
    assert found.finding == f"have the same uuid {UUID}"


def test_namespaces_without_label_or_capacity_have_no_uuid(answer: Callable[..., None]) -> None:
    without = [namespace("namespace0.0", NIL_UUID), namespace("namespace1.0", NIL_UUID)]
    seeds = [namespace("namespace2.0", UUID, 0), namespace("namespace3.0", UUID)]
    answer("read_inventory", inventory([], [*without, *seeds]))
    assert ruling("duplicate-uuid").outcome is Outcome.NOT_FOUND


def test_a_namespace_that_could_not_be_read_may_have_the_same_uuid(
    answer: Callable[..., None],
) -> None:
    answer("read_inventory", inventory([], [namespace("namespace0.0", UUID)]), LOST)
    assert ruling("duplicate-uuid").outcome is Outcome.UNDECIDED


def labels(*all_labels: Label, problems: tuple[str, ...] = ()) -> list[FoundLabels]:
    index = NamespaceIndex(
        labelsize=1,
        seq=1,
        myoff=0,
        mysize=256,
        otheroff=256,
        labeloff=512,
        nslot=8,
        major=1,
        minor=2,
        checksum=0,
    )
    slots = [
        LabelSlot(index=number, label=label, problems=problems)
        for number, label in enumerate(all_labels)
    ]
    area = LabelArea(label_size=256, indexes=(index, index), current=0, slots=tuple(slots))
    return [FoundLabels(dimm="nmem0", physical=None, area=area)]


def label(name: bytes = b"") -> EfiLabel:
    return EfiLabel(
        uuid=UUID,
        name=name,
        flags=0,
        nlabel=2,
        position=0,
        isetcookie=1,
        lbasize=512,
        dpa=0,
        rawsize=1 << 24,
        slot=0,
    )


@pytest.mark.parametrize(
    ("name", "subject"), [(b"logs", "namespace logs"), (b"", f"namespace {UUID}")]
)
def test_a_label_whose_namespace_is_gone(
    answer: Callable[..., None], name: bytes, subject: str
) -> None:
    answer("find_labels", labels(label(name)))
    answer("read_inventory", inventory([], [namespace("namespace0.0", OTHER)]))
    found = the_finding("namespace-gone")
    assert (found.subject, found.severity) == (subject, Severity.WARNING)
    assert found.finding == "nmem0 has its label (slot 0), the kernel made no namespace of it"
    assert found.evidence == (f"uuid {UUID}",)


def test_labels_that_make_no_namespace_of_their_own(answer: Callable[..., None]) -> None:
    region = CxlRegionLabel(
        uuid=OTHER,
        flags=0,
        nlabel=1,
        position=0,
        dpa=0,
        rawsize=1 << 28,
        hpa=0,
        slot=1,
        ig=0,
        align=1,
    )
    answer("read_inventory", inventory([], [namespace("namespace0.0", UUID)]))
    answer("find_labels", labels(label(), region))
    assert ruling("namespace-gone").outcome is Outcome.NOT_FOUND, "a CXL region is no namespace"
    answer("read_inventory", inventory())
    answer("find_labels", labels(label(), problems=("wrong checksum",)))
    assert ruling("namespace-gone").outcome is Outcome.NOT_FOUND, "the kernel skips it"


def test_without_all_namespaces_and_labels_none_is_gone(answer: Callable[..., None]) -> None:
    known = [namespace("namespace0.0", OTHER)]
    answer("find_labels", labels(label()))
    answer("read_inventory", inventory([], known), LOST)
    assert ruling("namespace-gone").outcome is Outcome.UNDECIDED
    answer("read_inventory", inventory([], [*known, namespace("namespace1.0", None)]))
    assert ruling("namespace-gone").outcome is Outcome.UNDECIDED, "it may be the label's"
    answer("find_labels", [], LOST)
    answer("read_inventory", inventory([], known))
    assert ruling("namespace-gone").outcome is Outcome.UNDECIDED


# BTT

SIZE = 1 << 24


def arena(flags: int = 0) -> BttArena:
    return BttArena(
        uuid=UUID,
        parent_uuid=OTHER,
        flags=flags,
        version_major=1,
        version_minor=1,
        external_lbasize=512,
        external_nlba=1000,
        internal_lbasize=512,
        internal_nlba=1256,
        nfree=256,
        infosize=4096,
        nextoff=0,
        dataoff=4096,
        mapoff=4096 + 1256 * 512,
        logoff=SIZE - 4096 - 256 * 64,
        info2off=SIZE - 4096,
    )


def btt(
    own: BttArena, backup: str = "same", *problems: Problem, chain: bool = True, **values: Any
) -> FoundBlocks:
    place = BttArenaPlace(
        offset=4096, arena=own, backup=backup, problems=tuple(check_btt(own, SIZE))
    )
    block = FoundBlock(
        start=1 << 32,
        address=(1 << 32) + 4096,
        block=own,
        state=State.SAVED,
        namespace="namespace0.0",
        page_size=4096,
        chain=BttChain(arenas=(place,), problems=problems) if chain else None,
        **values,
    )
    return FoundBlocks(blocks=[block], searched="namespaces")


@pytest.mark.parametrize(
    ("flags", "backup", "sentence"),
    [
        (1, "same", "arena 0: the error flag is set: the kernel made the arena read-only"),
        (0, "differs", "arena 0: the backup of its info block differs from it"),
        (0, "damaged", "arena 0: the backup of its info block is damaged"),
    ],
)
def test_a_btt_arena_that_is_wrong(
    answer: Callable[..., None], flags: int, backup: str, sentence: str
) -> None:
    answer("find_blocks", btt(arena(flags), backup))
    found = the_finding("btt-error")
    assert (found.subject, found.severity) == ("BTT of namespace0.0", Severity.CRITICAL)
    assert found.finding == sentence


def test_a_chain_of_arenas_that_ends_at_damage(answer: Callable[..., None]) -> None:
    end = Problem(cause=Cause.DAMAGED, what="arena 1 at 0x1001000", why="wrong checksum")
    answer("find_blocks", btt(arena(), "same", end))
    assert the_finding("btt-error").finding == "arena 1 at 0x1001000: wrong checksum"


def test_a_btt_that_is_whole(answer: Callable[..., None]) -> None:
    answer("find_blocks", btt(arena()))
    assert ruling("btt-error").outcome is Outcome.NOT_FOUND


def test_a_btt_of_which_a_part_was_not_saved(answer: Callable[..., None]) -> None:
    answer("find_blocks", FoundBlocks(blocks=[], searched="namespaces"), LOST)
    assert ruling("btt-error").outcome is Outcome.UNDECIDED
    answer("find_blocks", btt(arena(), "unreadable"))
    assert ruling("btt-error").outcome is Outcome.UNDECIDED, "the backup"
    answer("find_blocks", btt(arena(), "same", LOST))
    assert ruling("btt-error").outcome is Outcome.UNDECIDED, "the next arena"
    answer("find_blocks", btt(arena(), chain=False, notes=("info block not saved",)))
    own = ruling("btt-error")
    assert own.outcome is Outcome.UNDECIDED, "every arena"
    why = "BTT of namespace0.0: its arenas could not be read; info block not saved"
    assert own.why == why

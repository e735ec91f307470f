# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""DIMMs and regions of machines that no sample has."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from drgn_pmem.analysis.memmap import sources
from drgn_pmem.dumpfile import State
from drgn_pmem.kernel import daxchar
from drgn_pmem.kernel.dax import DaxDevice, _available
from drgn_pmem.kernel.nvdimm import Dimm, _read_firmware, _security, _shutdowns
from drgn_pmem.kernel.region import Region, _has_labels, _interleave_set
from drgn_pmem.output.memmap import media_text
from drgn_pmem.partial import Partial, Problems

DIRTY, COUNTED = 2, 3
"""Bits of ``enum nfit_mem_flags``."""
PROG: Any = None


def value(number: int) -> Any:
    return SimpleNamespace(value_=lambda: number)


def shutdowns(monkeypatch: pytest.MonkeyPatch, flags: int) -> tuple[str | None, int | None]:
    monkeypatch.setattr(
        "drgn_pmem.kernel.nvdimm.optional_member", lambda obj, name: getattr(obj, name, None)
    )
    bits = {"NFIT_MEM_DIRTY": DIRTY, "NFIT_MEM_DIRTY_COUNT": COUNTED}
    constant: Callable[[str], Any] = lambda name: value(bits[name])  # noqa: E731
    prog = SimpleNamespace(constant=constant)
    nfit_mem: Any = SimpleNamespace(dirty_shutdown=value(7), flags=value(flags), prog_=prog)
    return _shutdowns(nfit_mem)


def test_dirty_shutdowns_are_those_that_the_firmware_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert shutdowns(monkeypatch, 0) == (None, None)  # not reported is not clean, nor none
    assert shutdowns(monkeypatch, 1 << DIRTY) == ("dirty", None)
    assert shutdowns(monkeypatch, 1 << DIRTY | 1 << COUNTED) == ("dirty", 7)


def dimm(**changes: Any) -> Dimm:
    values: dict[str, Any] = {
        "dev": "nmem0",
        "bus": "ndbus0",
        "id": None,
        "handle": 1,
        "phys_id": 2,
        "flags": ("flag_failed_arm",),
        "shutdown_state": "dirty",
        "shutdown_count": 7,
        "enabled": True,
        "object": None,
    }
    return Dimm(**(values | changes))


def test_shutdowns_have_the_keys_of_ndctl_list_health() -> None:
    assert dimm().health_json() == {"health": {"shutdown_state": "dirty", "shutdown_count": 7}}
    assert dimm(shutdown_state=None, shutdown_count=None).health_json() == {}
    assert "health" not in dimm().to_json()  # ndctl has it with -H only
    assert dimm().to_json()["flag_failed_arm"] is True


def test_flags_that_are_not_known_are_not_shown_as_none_set() -> None:
    assert dimm(flags=None).flags is None
    assert not [key for key in dimm(flags=None).to_json() if key.startswith("flag_")]


@pytest.mark.parametrize(("flags", "labels"), [(0, False), (1 << 1, False), (1, True), (64, True)])
def test_a_region_without_labels_has_no_interleave_set_for_ndctl(flags: int, labels: bool) -> None:
    mapping: Any = SimpleNamespace(
        nvdimm=SimpleNamespace(flags=value(flags), dev=SimpleNamespace(driver=None))
    )
    assert _has_labels(mapping) is labels
    cookie = SimpleNamespace(cookie1=value(0xABC))
    region: Any = SimpleNamespace(nd_set=SimpleNamespace(read_=lambda: cookie))
    assert _interleave_set(region, [mapping]) == (0xABC if labels else None)


def test_a_dax_device_without_driver_is_what_daxctl_says() -> None:
    device = DaxDevice(
        chardev="dax0.0",
        size=1 << 21,
        target_node=None,
        align=4096,
        mode=None,
        ranges=(),
        region=0,
        pgmap=0,
        memory_blocks=None,
        object=None,
    )
    shown = device.to_json()
    assert (shown["mode"], shown["state"]) == ("devdax", "disabled")


def test_no_claim_needs_no_info_block() -> None:
    """A label-less namespace whose region maps its pages: e820, virtio-pmem."""
    namespace = SimpleNamespace(map="mem", has_no_claim=True)
    memmap: Any = SimpleNamespace(namespace=namespace)
    assert media_text(memmap) is None


@pytest.mark.parametrize("claimed", [True, False])
def test_no_claim_lacks_no_info_block(claimed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is missing where the dump does not hold the place of one."""
    namespace = SimpleNamespace(
        dev="namespace8.0", map="mem", is_persistent=True, has_no_claim=not claimed
    )
    memmap: Any = SimpleNamespace(namespace=namespace, media_state=State.ABSENT)
    answer = sources.MemmapAnswer(memmaps=(memmap,), strays=())
    monkeypatch.setattr(sources, "read_memmaps", lambda prog: Partial(answer))
    problems = sources.read_memmap_sources(PROG).problems
    assert [problem.what for problem in problems] == (["namespace8.0"] if claimed else [])


def resource(start: int, end: int, flags: int = 0, **links: Any) -> Any:
    found = SimpleNamespace(start=value(start), end=value(end), flags=value(flags), **links)
    found.value_ = lambda: start
    found.type_ = SimpleNamespace(kind=SimpleNamespace(name="POINTER"))
    found.read_ = lambda: found
    return found


@pytest.mark.parametrize(("flags", "available"), [(0, 0x300), (1, None)])
def test_free_bytes_of_a_partly_used_dynamic_dax_region(
    flags: int, available: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "drgn_pmem.kernel.dax.optional_member", lambda obj, name: getattr(obj, name, None)
    )
    end = SimpleNamespace(read_=lambda: None)
    second = resource(0x1800, 0x1FFF, sibling=end)
    first = resource(0x1000, 0x14FF, sibling=second)
    whole = resource(0x1000, 0x1FFF, flags, child=first)
    region: Any = SimpleNamespace(res=whole, youngest=value(0))
    assert _available(region) == available
    before: Any = SimpleNamespace(res=whole)  # v5.10: the device is the region
    assert _available(before) is None


@pytest.mark.parametrize(
    ("health", "flags"),
    [
        (0, ()),
        (1 << 63, ("flag_failed_arm",)),
        (1 << 62, ("flag_failed_flush",)),
        (1 << 60 | 1 << 58, ("flag_failed_restore", "flag_smart_event")),
        (1 << 57, ("flag_failed_arm", "flag_smart_event")),
    ],
)
def test_flags_of_a_papr_dimm_are_those_of_its_health(
    health: int, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "drgn_pmem.kernel.nvdimm"
    nvdimm: Any = SimpleNamespace(prog_=None, dev=SimpleNamespace(parent=None))
    priv = SimpleNamespace(nvdimm=nvdimm, health_bitmap=value(health))
    nvdimm.provider_data = priv
    provider = "ibm,persistent-memory:ibm,pmemory@90000001"
    bus = SimpleNamespace(nd_desc=SimpleNamespace(provider_name=provider))
    monkeypatch.setattr(f"{module}.container_of", lambda *_: bus)
    monkeypatch.setattr(f"{module}.kernel_string", lambda text: text)
    monkeypatch.setattr(f"{module}.has_type", lambda prog, name: name == "struct papr_scm_priv")
    monkeypatch.setattr(f"{module}.cast", lambda type_, pointer: pointer)
    monkeypatch.setattr(f"{module}.optional_member", lambda obj, name: getattr(obj, name, None))
    assert _read_firmware(nvdimm)["flags"] == flags
    monkeypatch.setattr(f"{module}.has_type", lambda prog, name: False)
    assert _read_firmware(nvdimm)["flags"] is None


def test_a_dax_device_without_numa_node_has_none_for_daxctl() -> None:
    values: dict[str, Any] = dict.fromkeys(("memory_blocks", "object", "mode"))
    values |= {"chardev": "dax0.0", "size": 0, "align": 1, "ranges": (), "region": 0, "pgmap": 0}
    assert "target_node" not in DaxDevice(target_node=-1, **values).to_json()
    assert DaxDevice(target_node=0, **values).to_json()["target_node"] == 0


@pytest.mark.parametrize("words", [(0, 0), (0x1000, 0x1000)])
def test_a_dax_device_that_was_never_bound_has_no_node(
    words: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its list of nodes is all zero, which is no list that was cut; else it is empty or damaged."""
    memory: Any = SimpleNamespace(
        word_size=8, read=lambda *_: b"".join(w.to_bytes(8, "little") for w in words),
        word=lambda address: 0x1000,
    )  # fmt: skip
    monkeypatch.setattr(daxchar, "memory_of", lambda prog: memory)
    monkeypatch.setattr(daxchar, "Layout", lambda *_: SimpleNamespace(offset=lambda *_: 0))
    problems = Problems()
    assert daxchar._nodes(None, 0x1000, problems) == []  # type: ignore[arg-type]
    assert not problems


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        (0, {}),
        (1 << 0, {"security": "disabled"}),
        (1 << 2 | 1 << 3, {"security": "locked", "security_frozen": True}),
        (1 << 1 | 1 << 4, {"security": "overwrite"}),
    ],
)
def test_security_is_that_of_sysfs(
    flags: int, shown: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A DIMM without security commands has no flag at all, and ndctl prints nothing."""
    monkeypatch.setattr(
        "drgn_pmem.kernel.nvdimm.optional_member", lambda obj, name: getattr(obj, name, None)
    )
    names = ("DISABLED", "UNLOCKED", "LOCKED", "FROZEN", "OVERWRITE")
    bits = {f"NVDIMM_SECURITY_{name}": number for number, name in enumerate(names)}
    prog = SimpleNamespace(constant=lambda name: value(bits[name]))
    nvdimm: Any = SimpleNamespace(sec=SimpleNamespace(flags=value(flags)), prog_=prog)
    state, frozen = _security(nvdimm)
    printed = dimm(security=state, frozen=frozen).to_json()
    assert {k: v for k, v in printed.items() if k.startswith("security")} == shown


def test_a_volatile_region_is_one_of_pmem_to_ndctl_and_volatile_in_our_own_facts() -> None:
    """Of of_pmem: ndctl list -R printed "pmem", we "volatile"."""
    from drgn_pmem.commands.pmem_list import _dump

    region = Region(
        dev="region0",
        bus="ndbus0",
        size=64 << 20,
        resource=0x78000000,
        align=16 << 20,
        available_size=0,
        max_available_extent=0,
        type="volatile",
        numa_node=-1,
        target_node=-1,
        iset_id=None,
        mappings=(),
        persistence_domain="unknown",
        enabled=True,
        object=SimpleNamespace(value_=lambda: 0x1000),  # type: ignore[arg-type]
    )
    assert region.to_json()["type"] == "pmem"
    assert _dump(region, {})["volatile"] is True

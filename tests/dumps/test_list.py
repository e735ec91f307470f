# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""pmem-list says what ndctl and daxctl said on the machine while it lived."""

from typing import Any

from drgn import cast
import pytest

from drgn_pmem.kernel.nvdimm import for_each_dimm

from ..samples import CASES, Case, dax_without_namespace, open_crash, run_json, run_text
from ..synthetic import poke

pytestmark = pytest.mark.holds("pmem-list", "pmem-namespaces")


def by_name(value: Any) -> Any:
    """Lists of devices as dicts by name: ndctl's own order is that of its directory."""
    if isinstance(value, dict):
        return {key: by_name(item) for key, item in value.items()}
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        keys = ("dev", "chardev", "path", "dimm")
        names = [next((item[key] for key in keys if key in item), None) for item in value]
        if all(names):
            return {name: by_name(item) for name, item in zip(names, value, strict=True)}
    return [by_name(item) for item in value] if isinstance(value, list) else value


def as_list(value: Any) -> Any:
    """``ndctl list -u`` prints a single bus without list brackets; we always print a list."""
    return value if isinstance(value, list) else [value]


def test_everything_is_as_ndctl_recorded_it(case: Case) -> None:
    ours = case.json("pmem-list -BDRNXi -vv --ndctl")
    assert by_name(ours) == by_name(case.truth_json("ndctl.all.json"))


def test_without_idle_devices(case: Case) -> None:
    ours = case.json("pmem-list -BDRN -vv --ndctl")
    assert by_name(ours) == by_name(case.truth_json("ndctl.json"))


def test_sizes_for_people(case: Case) -> None:
    ours = case.json("pmem-list -BDRN -vv -u --ndctl")
    assert by_name(ours) == by_name(as_list(case.truth_json("ndctl.human.txt")))


def test_dax_regions_are_as_daxctl_recorded_them(case: Case) -> None:
    ours = case.json("pmem-list -X -i --ndctl")
    assert by_name(ours) == by_name(case.truth_json("daxctl.json"))


def test_namespaces_are_those_of_ndctl(case: Case) -> None:
    recorded = {
        namespace["dev"]: namespace
        for bus in case.truth_json("ndctl.json")
        for region in bus["regions"]
        for namespace in region.get("namespaces", [])
    }
    ours = {namespace["dev"]: namespace for namespace in case.json("pmem-namespaces")}
    # devices that no namespace made (hmem, volatile CXL) have rows by their names
    without_namespace = dax_without_namespace(case)
    assert set(ours) == set(recorded) | set(without_namespace)
    for dev, device in without_namespace.items():
        assert ours.pop(dev)["daxregion"]["devices"] == [device]
    # ndctl prints the target node since v5.5; v5.1 to v5.4 know it, and do not tell.
    ours_only = (
        {"dump"} if any("target_node" in n for n in recorded.values()) else {"dump", "target_node"}
    )
    for dev, namespace in ours.items():
        theirs = {key: recorded[dev].get(key) for key in namespace if key not in ours_only}
        assert {key: namespace[key] for key in theirs} == theirs


@pytest.mark.parametrize("mode", ["fsdax", "devdax", "sector", "raw"])
def test_mode_filter(case: Case, mode: str) -> None:
    ours = case.json(f"pmem-list -N -m {mode} --ndctl")
    recorded = [
        namespace["dev"]
        for bus in case.truth_json("ndctl.json")
        for region in bus["regions"]
        for namespace in region.get("namespaces", [])
        if namespace["mode"] == mode
    ]
    assert sorted(n["dev"] for n in ours) == sorted(recorded)


def test_region_filter(case: Case) -> None:
    ours = case.json("pmem-list -RN -r region0 --ndctl")
    (recorded,) = (
        region
        for bus in case.truth_json("ndctl.json")
        for region in bus["regions"]
        if region["dev"] == "region0"
    )
    assert [region["dev"] for region in ours] == ["region0"]
    assert {n["dev"] for n in ours[0]["namespaces"]} == {n["dev"] for n in recorded["namespaces"]}


def test_table_shows_every_enabled_namespace_once(case: Case) -> None:
    out, err = run_text(case.prog, "pmem-list -H -o namespace,mode,size")
    recorded = sorted(
        f"{namespace['dev']}\t{namespace['mode']}\t{namespace['size']}"
        for bus in case.truth_json("ndctl.json")
        for region in bus["regions"]
        for namespace in region.get("namespaces", [])
    )
    assert sorted(out.splitlines()) == recorded
    assert err == ""


def test_what_the_firmware_said_of_a_dimm_is_shown_as_ndctl_does() -> None:
    """No sample's firmware said anything, as ndctl recorded (QEMU has no such commands): what the
    kernel would have kept is written into a copy of its structures."""
    case = next(case for case in CASES if str(case) == "6.1-fileload:elf")
    recorded = {dimm["dev"]: dimm for dimm in case.truth_json("ndctl-list-D.json")}
    prog = open_crash(case.sample, case.dump)
    nvdimm = next(d for d in for_each_dimm(prog).value if d.dev == "nmem2").object
    nfit_mem = cast("struct nfit_mem *", nvdimm.provider_data)
    memdev = nfit_mem.memdev_dcr or nfit_mem.memdev_pmem
    bits = [prog.constant(f"NFIT_MEM_DIRTY{name}").value_() for name in ("", "_COUNT")]
    flags = nfit_mem.flags.value_() | sum(1 << bit for bit in bits)
    poke(prog, nfit_mem.flags.address_of_().value_(), flags.to_bytes(8, "little"))
    poke(prog, nfit_mem.dirty_shutdown.address_of_().value_(), (7).to_bytes(4, "little"))
    # ACPI_NFIT_MEM_SAVE_FAILED, ACPI_NFIT_MEM_NOT_ARMED
    poke(prog, memdev.flags.address_of_().value_(), (1 << 0 | 1 << 3).to_bytes(2, "little"))
    health = {"health": {"shutdown_state": "dirty", "shutdown_count": 7}}
    failed = dict.fromkeys(("flag_failed_save", "flag_failed_arm", "flag_failed_flush"), True)
    for dimm in run_json(prog, "pmem-list -D"):
        del dimm["dump"]
        wanted = recorded[dimm["dev"]]
        assert dimm == wanted | (failed | health if dimm["dev"] == "nmem2" else {})
    for dimm in run_json(prog, "pmem-list -D --ndctl"):
        assert dimm == recorded[dimm["dev"]] | (failed if dimm["dev"] == "nmem2" else {})

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every command that takes a namespace takes each of its names, as ndctl recorded them."""

from collections.abc import Iterator
from typing import Any

from drgn import Program
import pytest

from drgn_pmem.analysis.inventory.names import find_namespace
from drgn_pmem.errors import NotFound, PmemError, UsageError
from drgn_pmem.kernel.namespace import for_each_namespace
from drgn_pmem.partial import WalkError

from ..samples import Case, open_crash, pmem_samples, run_json
from ..synthetic import poke, words

COMMANDS = (
    "pmem-list -N -n",
    "pmem-namespaces",
    "pmem-memmap",
    "pmem-coverage",
    "pmem-files",
    "pmem-pages",
)


def names(case: Case) -> dict[str, tuple[str, str]]:
    """Kind of name -> (device of a namespace, its name of that kind)."""
    found: dict[str, tuple[str, str]] = {}
    for bus in case.truth_json("ndctl.json"):
        for region in bus["regions"]:
            for namespace in region.get("namespaces", []):
                for kind, name in _names(namespace):
                    found.setdefault(kind, (namespace["dev"], name))
    return found


def _names(namespace: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "blockdev" in namespace:
        yield f"{namespace['mode']} block device", namespace["blockdev"]
        yield "path", f"/dev/{namespace['blockdev']}"
    for device in namespace.get("daxregion", {}).get("devices", []):
        yield "character device", device["chardev"]
        yield "path of a character device", f"/dev/{device['chardev']}"
    if namespace.get("name"):
        yield "name", namespace["name"]
    if namespace.get("uuid", "0").strip("0-"):
        yield "uuid", namespace["uuid"]
        yield "uuid in capitals", namespace["uuid"].upper()
    if namespace.get("raw_uuid", "0").strip("0-"):
        yield "uuid of its label", namespace["raw_uuid"]


def outcome(prog: Program, line: str, name: str, dev: str) -> Any:
    """An answer, or an error about the namespace."""
    try:
        return run_json(prog, f"{line} {name}")
    except PmemError as error:
        return type(error), str(error).replace(name, dev)


@pytest.mark.parametrize("line", COMMANDS)
def test_each_name_is_understood(case: Case, line: str) -> None:
    if case.format not in ("elf", "qemu-elf"):
        pytest.skip("the names are the same in each format")
    for dev, name in names(case).values():
        assert outcome(case.prog, line, name, dev) == outcome(case.prog, line, dev, dev), name


@pytest.mark.parametrize("line", COMMANDS)
def test_a_name_that_there_is_not_is_answered_with_those_there_are(case: Case, line: str) -> None:
    if case.format not in ("elf", "qemu-elf"):
        pytest.skip("the names are the same in each format")
    known = names(case)
    with pytest.raises(NotFound, match="nowhere") as caught:
        run_json(case.prog, f"{line} nowhere")
    (text,) = str(caught.value).splitlines()
    assert all(dev in text for dev, _ in known.values())


@pytest.fixture
def prog() -> Program:
    sample = pmem_samples()[0]
    return open_crash(sample, sample.dump())


def test_files_of_a_block_device_are_those_of_its_namespace(prog: Program) -> None:
    files = {n.blockdev: run_json(prog, f"pmem-files {n.dev}") for n in for_each_namespace(prog)}
    some = {device: found for device, found in files.items() if device and found}
    assert some
    for device, found in some.items():
        assert run_json(prog, f"pmem-files {device}") == found


@pytest.mark.parametrize("line", COMMANDS)
def test_where_not_all_namespaces_can_be_read_none_is_denied(prog: Program, line: str) -> None:
    devices = [n.object.dev for n in for_each_namespace(prog)]
    for device, link in ((devices[1], "next"), (devices[-1], "prev")):
        node = device.p.knode_bus.n_node
        poke(prog, node.member_(link).address_, words(0xDEAD000000000100))
    missing = devices[3].kobj.name.string_().decode()
    with pytest.raises(WalkError, match="is not known") as caught:
        run_json(prog, f"{line} {missing}")
    assert "0xdead000000000100 is not a kernel address: damaged" in str(caught.value)


def test_a_name_that_two_namespaces_have_is_refused(prog: Program) -> None:
    named = [n for n in for_each_namespace(prog) if n.name]
    assert len(named) > 1
    first, second = named[:2]
    from drgn import container_of

    label = container_of(second.object, "struct nd_namespace_pmem", "nsio.common")
    poke(prog, label.alt_name.value_(), first.name.encode() + b"\0")
    with pytest.raises(UsageError, match=f"{first.dev} and {second.dev}"):
        find_namespace(prog, first.name)

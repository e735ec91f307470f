# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real dump with a few bytes changed: clear messages, the readable part, no traceback."""

from typing import Any

from drgn import Object, Program, sizeof
from drgn.helpers.linux.block import for_each_disk as drgn_disks, for_each_partition
from drgn.helpers.linux.fs import for_each_mount
from drgn.helpers.linux.list import list_for_each_entry
import pytest

from drgn_pmem.analysis.findings.poison import find_poison
from drgn_pmem.analysis.inventory import infoblocks
from drgn_pmem.analysis.inventory.names import find_namespace
from drgn_pmem.dumpfile import State, coverage_of
from drgn_pmem.kernel.badblocks import read_bad_ranges
from drgn_pmem.kernel.dax import for_each_dax_device
from drgn_pmem.kernel.device import device_path, for_each_device
from drgn_pmem.kernel.iomem import for_each_iomem
from drgn_pmem.kernel.kernellog import read_log_records
from drgn_pmem.kernel.memoryblocks import memory_blocks_of
from drgn_pmem.kernel.namespace import for_each_namespace, namespace_of_pfn
from drgn_pmem.kernel.nvdimm import for_each_bus
from drgn_pmem.kernel.partitions import for_each_disk
from drgn_pmem.kernel.paths import path_of_mount
from drgn_pmem.kernel.pgmap import find_pgmap, for_each_pgmap
from drgn_pmem.kernel.region import for_each_region
from drgn_pmem.partial import Cause, Incomplete, WalkError

from ..samples import open_crash, run_json, run_text, samples
from ..synthetic import poke, words

WILD = 0xDEAD000000000100
ESCAPES = b"\x1b]0;owned\x07\x1b[31mred\x9b2J\xe2\x80\xae\0"


@pytest.fixture
def prog() -> Program:
    """The first sample, opened anew: what a test pokes into it is its own."""
    sample = next(iter(samples().values()))
    return open_crash(sample, sample.dump())


def test_terminal_escapes_in_names_never_reach_the_terminal(prog: Program) -> None:
    namespace = next(n for n in for_each_namespace(prog) if n.name)
    target = namespace.object.dev.kobj.name.value_()
    poke(prog, target, ESCAPES)
    poke(prog, for_each_bus(prog).value[0].object.nd_desc.provider_name.value_(), ESCAPES)
    for line in ("pmem-list -BDRNX", "pmem-list -BDRNX -H", "pmem-list -B --json"):
        out, err = run_text(prog, line)
        assert "owned" in out
        assert "\x1b" not in out + err
        assert "\x07" not in out + err
        assert "\x9b" not in out + err
        assert "\u202e" not in out + err


def test_wild_pfn_sb_keeps_the_rest_of_the_namespace(prog: Program) -> None:
    before = {n.dev: n for n in for_each_namespace(prog)}
    victim = next(n for n in before.values() if n.map == "dev" and n.mode == "fsdax")
    assert victim.claim_object is not None
    poke(prog, victim.claim_object.pfn_sb.address_, words(WILD))
    after = {n.dev: n for n in for_each_namespace(prog).value}
    assert set(after) == set(before)
    assert after[victim.dev].size is None
    assert after[victim.dev].blockdev == victim.blockdev
    assert after[victim.dev].uuid == victim.uuid
    _, err = run_text(prog, "pmem-list")
    (note,) = [line for line in err.splitlines() if victim.dev in line]
    assert f"{WILD:#x}" in note
    listed = {n["dev"]: n for n in run_json(prog, "pmem-list -N --ndctl")}
    assert "size" not in listed[victim.dev]
    assert all("size" in n for dev, n in listed.items() if dev != victim.dev)


def test_info_block_that_does_not_fit_gives_no_size(prog: Program) -> None:
    victim = next(n for n in for_each_namespace(prog) if n.map == "dev")
    assert victim.claim_object is not None
    poke(prog, victim.claim_object.pfn_sb.dataoff.address_, words(1 << 50))
    assert find_namespace(prog, victim.dev).size is None
    _, err = run_text(prog, "pmem-namespaces")
    assert "does not fit" in err


def test_bus_list_that_is_cyclic_ends(prog: Program) -> None:
    bus = for_each_bus(prog).value[0].object
    poke(prog, bus.member_("list").next.address_, words(bus.member_("list").address_))
    out, err = run_text(prog, "pmem-list -B")
    assert "ndbus0" in out
    assert "cyclic" in err


def test_device_list_with_a_wild_pointer_is_read_from_both_ends(prog: Program) -> None:
    devices = [n.object.dev for n in for_each_namespace(prog)]
    node = devices[1].p.knode_bus.n_node
    poke(prog, node.next.address_, words(WILD))
    names = {n["dev"] for n in run_json(prog, "pmem-list -Ni --ndctl")}
    assert names == {device.kobj.name.string_().decode() for device in devices}
    _, err = run_text(prog, "pmem-list -Ni")
    assert f"devices of nvdimm_bus_type: {WILD:#x} is not a kernel address: damaged" in err


def test_a_page_is_in_no_namespace_only_where_all_could_be_read(prog: Program) -> None:
    namespaces = for_each_namespace(prog).value
    shift = prog["PAGE_SHIFT"].value_()
    first = namespaces[0].resource >> shift
    outside = namespace_of_pfn(prog, 0)
    assert (outside.value, outside.complete) == (None, True)
    for number, link in ((1, "next"), (-1, "prev")):
        node = namespaces[number].object.dev.p.knode_bus.n_node
        poke(prog, node.member_(link).address_, words(WILD))
    prog.cache.clear()
    assert namespace_of_pfn(prog, first).whole().dev == namespaces[0].dev
    lost = namespaces[3].resource >> shift
    for pfn in (0, lost):
        answer = namespace_of_pfn(prog, pfn)
        assert answer.value is None
        assert not answer.complete
    _, err = run_text(prog, f"pmem-page pfn:{lost:#x}")
    assert "is not a kernel address: damaged" in err


def test_absurd_number_of_mappings_is_refused(prog: Program) -> None:
    namespace = for_each_namespace(prog).value[0]
    region = namespace.object.dev.parent
    from drgn import container_of

    poke(prog, container_of(region, "struct nd_region", "dev").ndr_mappings.address_, b"\xff\xff")
    out, err = run_text(prog, "pmem-list -R")
    assert namespace.region in out
    assert "implausible ndr_mappings 65535" in err


def test_iomem_tree_that_bites_its_tail_ends(prog: Program) -> None:
    root = prog["iomem_resource"]
    first = root.child
    poke(prog, first.sibling.address_, words(first.value_()))
    _, err = run_text(prog, "pmem-memmap")
    assert "cyclic" in err


def test_device_backed_vmemmap_resource_is_compared_with_the_altmap(prog: Program) -> None:
    """
    No kernel at hand has the 2024 series, which names the resource over a namespace's metadata so.
    A devdax namespace has a resource of just that range, under the namespace's name: renamed, it is
    what the series would have made.
    """
    resources = {resource.name: resource for resource in for_each_iomem(prog)}
    devdax = next(n for n in for_each_namespace(prog) if n.mode == "devdax" and n.map == "dev")
    metadata = resources[devdax.dev]
    name = 0xFFFFF00000000000  # where the kernel has nothing
    poke(prog, name, b"Device Backed Vmemmap\0")
    poke(prog, metadata.object.name.address_of_().value_(), words(name))
    memmaps = {m["namespace"]: m for m in run_json(prog, "pmem-memmap")}
    found = memmaps[devdax.dev]
    assert found["iomem"]["start"] == hex(metadata.start)
    assert found["agree"]
    poke(prog, metadata.object.end.address_of_().value_(), words(metadata.end - 4096))
    memmaps = {m["namespace"]: m for m in run_json(prog, "pmem-memmap")}
    found = memmaps[devdax.dev]
    assert not found["agree"]
    assert any("Device Backed Vmemmap" in note for note in found["notes"])


def test_a_page_map_of_all_addresses_is_damaged_and_the_others_are_scanned(prog: Program) -> None:
    """2^52 struct pages would be asked for, block by block."""

    def named() -> set[str]:
        lines = out.splitlines()[1:]
        return {line.split()[0] for line in lines if line.startswith("namespace")}

    out, err = run_text(prog, "pmem-pages")
    before = named()
    first = for_each_pgmap(prog).value[0]
    poke(prog, first.object.range.start.address_, words(0, (1 << 64) - 1))
    prog.cache.clear()
    with pytest.raises(Incomplete, match="is not a range of physical memory"):
        for_each_pgmap(prog).whole()
    out, err = run_text(prog, "pmem-pages")
    assert "0x0-0xffffffffffffffff is not a range of physical memory" in err
    assert named() < before
    assert len(before - named()) == 1


def test_a_region_larger_than_physical_memory_is_left_out(prog: Program) -> None:
    before = run_json(prog, "pmem-infoblocks")
    region = for_each_region(prog).value[0].object
    poke(prog, region.ndr_size.address_, words(1 << 63))
    prog.cache.clear()
    assert run_json(prog, "pmem-infoblocks") == before
    _, err = run_text(prog, "pmem-infoblocks")
    assert "was left out, because physical memory ends at" in err


def test_a_region_of_all_physical_memory_costs_what_the_dump_holds(
    prog: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    region = for_each_region(prog).value[0].object
    poke(prog, region.ndr_start.address_, words(0))
    poke(prog, region.ndr_size.address_, words(1 << 46))
    prog.cache.clear()
    looked: list[int] = []
    find = infoblocks.find_infoblocks

    def counted(read: Any, start: int, *args: Any) -> Any:
        looked.append(start)
        return find(read, start, *args)

    monkeypatch.setattr(infoblocks, "find_infoblocks", counted)
    run_text(prog, "pmem-infoblocks")
    saved = coverage_of(prog).count()[State.SAVED]
    assert len(looked) < 2 * (saved >> 21) + 1000


def test_bad_blocks_after_the_end_of_their_device_are_damaged(prog: Program) -> None:
    region = next(r for r in for_each_region(prog).value if r.object.bb.count)
    before = [bad for bad in read_bad_ranges(prog).value if region.dev not in str(bad.source)]
    poke(prog, region.object.bb.shift.address_, (20).to_bytes(4, "little"))
    prog.cache.clear()
    after = read_bad_ranges(prog)
    assert after.value == before
    assert [p.cause for p in after.problems] == [Cause.DAMAGED]
    assert "after the device's end" in str(after.problems[0])


def test_a_long_bad_range_does_not_hide_the_others(prog: Program) -> None:
    """A length of 2^40 bytes in one entry of the bus's list."""
    before = [page.pfn for page in find_poison(prog).value.pages]
    badrange = for_each_bus(prog).value[0].object.badrange
    (entry, *_) = list_for_each_entry("struct badrange_entry", badrange.list.address_of_(), "list")
    poke(prog, entry.length.address_, words(1 << 40))
    prog.cache.clear()
    found = find_poison(prog)
    assert set(before) <= {page.pfn for page in found.value.pages}
    assert len(found.value.pages) < len(before) + (1 << 13)
    assert Cause.LIMIT in {problem.cause for problem in found.problems}


def test_a_dax_device_of_all_addresses_is_damaged(prog: Program) -> None:
    """Its pages would be listed one by one."""
    victim, *others = [d for d in for_each_dax_device(prog).value if d.ranges]
    poke(prog, victim.object.ranges[0].range.end.address_, words((1 << 64) - 2))
    prog.cache.clear()
    found = for_each_dax_device(prog)
    assert [d.chardev for d in found.value if d.ranges] == [d.chardev for d in others]
    assert any("dev_dax" in str(p) and p.cause is Cause.DAMAGED for p in found.problems)


@pytest.mark.parametrize("field", ["head_id", "tail_id", "count_bits", "size_bits"])
def test_a_damaged_ring_of_the_log_is_not_followed(prog: Program, field: str) -> None:
    """drgn's helper read records until a gigabyte was full."""
    ring = prog["prb"].text_data_ring if field == "size_bits" else prog["prb"].desc_ring
    target = ring.member_(field)
    value = 60 if field.endswith("bits") else target.counter.value_() ^ 1 << 40
    poke(prog, target.address_, value.to_bytes(sizeof(target), "little"))
    whole = find_poison(prog)
    assert any("its ring is damaged" in str(problem) for problem in whole.problems)
    assert whole.value
    with pytest.raises(WalkError, match="its ring is damaged"):
        read_log_records(prog)


def test_chains_of_parents_that_do_not_end(prog: Program) -> None:
    """drgn's helpers would follow them until memory ends."""
    mounts = [m for m in for_each_mount(prog) if m.mnt.mnt_sb.s_bdev and m.mnt_parent != m]
    one, two = mounts[:2]
    poke(prog, one.mnt_parent.address_, words(two.value_()))
    poke(prog, two.mnt_parent.address_, words(one.value_()))
    poke(prog, one.mnt_mountpoint.address_, words(two.mnt.mnt_root.value_()))
    poke(prog, two.mnt_mountpoint.address_, words(one.mnt.mnt_root.value_()))
    with pytest.raises(WalkError, match="its chain of parents does not end"):
        path_of_mount(prog, one)
    _, err = run_text(prog, "pmem-namespaces")
    assert "its chain of parents does not end" in err
    device = for_each_device(prog, "dax_bus_type", "dax").value[0]
    parent = device.parent.read_()
    poke(prog, parent.kobj.parent.address_, words(device.kobj.address_of_().value_()))
    with pytest.raises(WalkError, match="its chain of parents does not end"):
        device_path(device)


def test_disks_in_a_list_of_partitions_that_does_not_end(prog: Program) -> None:
    """Where only partitions are on the cycle, drgn's helper never returns."""
    disks = [disk.value_() for disk in for_each_disk(prog)]
    assert {disk.value_() for disk in drgn_disks(prog)} == set(disks)
    *_, other, part = for_each_partition(prog)
    poke(prog, part.bd_disk.address_, words(other.bd_disk.value_()))
    link = part.bd_device.p.knode_class.n_node
    poke(prog, link.next.address_, words(link.address_of_().value_()))
    with pytest.raises(WalkError, match="the list is cyclic"):
        list(for_each_disk(prog))


@pytest.mark.parametrize("kset", ["bus_kset", "class_kset"])
def test_list_of_buses_or_classes_that_does_not_end(prog: Program, kset: str) -> None:
    """drgn's helpers look for the bus or class in it without a bound."""
    first = prog[kset].list.next.read_()
    poke(prog, first.next.address_, words(first.value_()))
    lost = f"{kset}: stopped after 1 entries: the list is cyclic"
    ask = {
        "bus_kset": lambda: memory_blocks_of(prog, []),
        "class_kset": lambda: [*for_each_disk(prog)],
    }
    with pytest.raises(WalkError, match=lost):
        ask[kset]()
    if kset == "bus_kset":
        (problem,) = for_each_device(prog, "dax_bus_type", "dax").problems
        assert lost in problem.why


def test_page_maps_in_a_tree_that_does_not_end(prog: Program) -> None:
    """drgn's xa_load() never returns from it."""
    root = prog["pgmap_array"]
    pfn = for_each_pgmap(prog).value[0].first_pfn
    assert find_pgmap(prog, pfn) is not None
    head = root.xa_head.value_()
    node = Object(prog, "struct xa_node", address=head - 2)
    for slot in node.slots:
        poke(prog, slot.address_, words(head))
    with pytest.raises(Incomplete, match=r"pgmap_array: .*the tree is cyclic"):
        find_pgmap(prog, pfn)


def test_a_string_that_does_not_end(prog: Program) -> None:
    """drgn would read to the next null byte, however far that is."""
    device = for_each_device(prog, "dax_bus_type", "dax").value[0]
    poke(prog, WILD, b"a" * (1 << 20))
    poke(prog, device.driver.name.address_, words(WILD))
    answer = for_each_dax_device(prog)
    assert f"the text at {WILD:#x} does not end" in str(answer.problems[0])


def test_memory_blocks_of_no_size(prog: Program) -> None:
    poke(prog, prog["sections_per_block"].address_, bytes(4))
    with pytest.raises(WalkError, match="memory_block_size_bytes: 0 is not a number of sections"):
        memory_blocks_of(prog, [])

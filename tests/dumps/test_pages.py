# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Struct pages of real dumps: against plain drgn for every page, and against what the crashed
machine's own pagemap said."""

from collections.abc import Iterator
import contextlib
import functools
import re
from typing import Any

from drgn import FaultError, Object, Program
from drgn.helpers.linux.mm import compound_head, compound_nr, follow_phys
import numpy as np
import pytest

from drgn_pmem.analysis.pages.runs import Kind
from drgn_pmem.analysis.pages.scan import scan_pages
from drgn_pmem.analysis.pages.stream import scan_ranges
from drgn_pmem.analysis.pages.words import parse_page, resolve_page
from drgn_pmem.dumpfile import Coverage, State, coverage_of
from drgn_pmem.errors import NotFound, UsageError
from drgn_pmem.kernel.page import pages_pgmap, read_page
from drgn_pmem.kernel.pagetable import for_each_extent
from drgn_pmem.kernel.pgmap import Pgmap
from drgn_pmem.partial import Incomplete

from ..samples import (
    Case,
    TruthPage,
    dax_without_namespace,
    physical_of_struct_page,
    recorded_pmem,
    run_json,
    run_text,
    samples,
    truth_pages,
    without_debug_info,
)
from .truth_owners import data_starts, iomem, is_pmem, marked_as_reserved, shown_path, sysfs

pytestmark = pytest.mark.holds("pmem-pages", "pmem-page")


@functools.cache
def recorded(name: str) -> list[TruthPage]:
    """Pages of DAX files that processes had mapped."""
    return [page for page in truth_pages(samples()[name]) if page.present]


def pmem_maps(prog: Program) -> list[Pgmap]:
    """Device DAX has no type before v5.3 (``"0"``), and DEVDAX before v5.10."""
    types = ("MEMORY_DEVICE_FS_DAX", "MEMORY_DEVICE_GENERIC", "MEMORY_DEVICE_DEVDAX", "0")
    return [g for g in pages_pgmap(prog).value if g.type in types]


def sets_index(prog: Program) -> bool:
    """DAX sets the index of pages since v4.19, with the ``dax_lock_mapping_entry()`` of then."""
    for name in ("dax_lock_folio", "dax_lock_page", "dax_lock_mapping_entry"):
        with contextlib.suppress(LookupError):
            prog.symbol(name)
            return True
    return False


def skip_without_pmem(case: Case) -> None:
    if not pmem_maps(case.prog):
        pytest.skip("no page map of persistent memory in this sample")


def spread(runs: np.ndarray, name: str) -> np.ndarray:
    """A field of runs, page by page."""
    return np.repeat(runs[name], runs["count"].astype(np.int64))


class PlainDrgn:
    """Words of struct pages as drgn reads them at their virtual addresses."""

    def __init__(self, prog: Program, first: int, count: int) -> None:
        page = prog.type("struct page")
        self.size = page.size
        self.vmemmap = prog["vmemmap"].value_()
        start, length = self.vmemmap + first * self.size, count * self.size
        try:
            data = prog.read(start, length)
        except NotImplementedError:  # it walks no hash page table
            data = b"".join(
                prog.read(physical_of_struct_page(prog, at), self.size, True)
                for at in range(start, start + length, self.size)
            )
        self.words = np.frombuffer(data, "<u1").reshape(count, self.size)
        self._page = page

    def field(self, member: str, type: str) -> np.ndarray:
        offset = self._page.member(member).offset
        size = np.dtype(type).itemsize
        return np.ascontiguousarray(self.words[:, offset : offset + size]).view(type)[:, 0]


def test_scan_is_what_plain_drgn_reads_of_every_page(case: Case) -> None:
    """flags, refcount, mapping and index of every page that is no part of a compound page."""
    skip_without_pmem(case)
    prog = case.prog
    compared = 0
    page = prog.type("struct page")
    index_name = "index" if page.has_member("index") else "__folio_index"
    for pgmap in pmem_maps(prog):
        scan = scan_pages(prog, scan_ranges([pgmap])).value
        for run in scan.runs[scan.runs["kind"] == Kind.PAGE]:
            if run["folio"] != 1:
                continue
            first, count = int(run["pfn"]), int(run["count"])
            plain = PlainDrgn(prog, first, count)
            assert (plain.field("flags", "<u8") == run["flags"]).all()
            assert (plain.field("_refcount", "<i4") == run["refcount"]).all()
            assert (plain.field("mapping", "<u8") == run["mapping"]).all()
            index = plain.field(index_name, "<u8")
            if run["mapping"] > 3 and not sets_index(prog):
                assert run["index"] == first
            elif run["mapping"] > 3:
                assert (index == run["index"] + np.arange(count, dtype=np.uint64)).all()
            elif run["shared"]:
                assert (index == run["index"]).all()
            compared += count
    if not compared:
        pytest.skip("no struct page of a page that is no part of a compound page is in this dump")


def test_folios_are_what_plain_drgn_says_of_their_head_and_tails(case: Case) -> None:
    skip_without_pmem(case)
    prog = case.prog
    for pgmap in pmem_maps(prog):
        runs = scan_pages(prog, scan_ranges([pgmap])).value.runs
        for run in runs[(runs["kind"] == Kind.PAGE) & (runs["folio"] > 1)]:
            folio = int(run["folio"])
            head_pfn = int(run["pfn"]) + (int(run["count"]) // folio - 1) * folio
            head = Object(prog, "struct page *", prog["vmemmap"].value_()) + head_pfn
            assert compound_nr(head).value_() == folio
            assert head._refcount.counter.value_() == run["refcount"]
            assert head.mapping.value_() == run["mapping"]
            for inside in (1, 2, folio // 2, folio - 1):
                assert compound_head(head + inside).value_() == head.value_()


def block_of(case: Case, name: str) -> dict[str, Any]:
    """What ``ndctl read-infoblock`` said, which the lab asks of the files of NVDIMMs; of other
    namespaces (e820, virtio-pmem, CXL) and DAX devices (hmem) what sysfs had."""
    nvdimms = iomem(case.sample.truth, "Persistent Memory") or recorded_pmem(case)
    if (
        any(low <= start_of(case, name) < high for low, high in nvdimms)
        and (case.sample.truth / f"infoblock.{name}.json").exists()
    ):
        block: dict[str, Any] = case.truth_json(f"infoblock.{name}.json")[0]
        return block
    for device, claim in sysfs(case).items():
        if re.match(r"(pfn|dax)\d", device) and claim.get("namespace") == name:
            offset = int(claim["resource"], 16) - start_of(case, name)
            return {"mode": 2 if claim["mode"] == "pmem" else 1, "dataoff": offset, "start_pad": 0}
    return {"mode": 1, "dataoff": 0, "start_pad": 0}


def start_of(case: Case, name: str) -> int:
    """Where a namespace starts; 0 of a DAX device without one."""
    return int(sysfs(case).get(name, {}).get("resource", "0"), 16)


def test_every_page_of_the_page_maps_is_accounted_for(case: Case) -> None:
    """Data pages are what ndctl showed as the namespace's size; the rest is its info block."""
    skip_without_pmem(case)
    sizes = {
        namespace["dev"]: namespace["size"]
        for namespace in case.truth_json("ndctl-list-N.json")
        if namespace["mode"] in ("fsdax", "devdax")
    }
    sizes |= {dev: device["size"] for dev, device in dax_without_namespace(case).items()}
    found: dict[str, dict[str, int]] = {}
    for group in run_json(case.prog, "pmem-pages"):
        if group["memory_block"] is not None:
            continue  # used as RAM: test_ram_blocks.py
        counts = found.setdefault(group["namespace"], {})
        counts[group["status"]] = counts.get(group["status"], 0) + group["pages"]
    shift = case.prog["PAGE_SHIFT"].value_()
    for name, counts in found.items():
        block = block_of(case, name)
        metadata = block["dataoff"] >> shift
        # map=dev: the kernel never wrote the struct pages of the info block, 8 KiB or a page.
        # map=mem: it has struct pages like all others.
        reserve = -(-8192 >> shift) if block["mode"] == 2 else 0
        assert counts.get("uninitialised", 0) == reserve
        lost = sum(counts.get(state.value, 0) for state in State if state is not State.SAVED)
        own = metadata - reserve if block["mode"] == 2 else 0
        memmap = counts.get("memmap", 0) + len(poisoned_memmap(case, name))
        assert memmap <= own <= memmap + lost
        assert sum(counts.values()) == (sizes[name] >> shift) + metadata


def poisoned_memmap(case: Case, namespace: str | None = None) -> set[int]:
    """Pages of the memmap whose struct page the kernel marked, in a namespace if it is named."""
    names = {n["dev"]: n["name"] for n in case.truth_json("ndctl-list-N.json") if "name" in n}
    return {
        int(line["address"], 16) // case.page
        for line in machine_checks(case)
        if line.get("metadata") in (set(names.values()) if namespace is None
                                    else {names.get(namespace)})
    } & marked_as_reserved(case)  # fmt: skip


def machine_checks(case: Case) -> list[dict[str, str]]:
    checks = case.sample.truth / "machine-checks"
    lines = checks.read_text().splitlines() if checks.exists() else []
    return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in lines if line.startswith("MCE ")]


def saved_truth(case: Case) -> Iterator[tuple[TruthPage, Any]]:
    """Recorded pages of persistent memory with what we say of them, if that can be said."""
    maps = pmem_maps(case.prog)
    for truth in recorded(case.sample.name):
        if any(g.has_pfn(truth.pfn) for g in maps):
            yield truth, read_page(case.prog, truth.pfn).value


def inode_of(prog: Program, mapping: int) -> int:
    """What plain drgn says."""
    return Object(prog, "struct address_space *", mapping).host.i_ino.value_()


def test_recorded_pages_name_their_file(case: Case) -> None:
    """Every mapped page's struct page names one of the files that pagemap showed it in, at the
    offset it had there, or says that it is shared or not in the dump."""
    skip_without_pmem(case)
    by_pfn: dict[int, set[tuple[int, int | None]]] = {}
    for truth in recorded(case.sample.name):
        by_pfn.setdefault(truth.pfn, set()).add((truth.inode, truth.offset // case.page))
    named = unknown = 0
    if not sets_index(case.prog):
        by_pfn = {pfn: {(inode, None) for inode, _ in owners} for pfn, owners in by_pfn.items()}
    for truth, page in saved_truth(case):
        if page.reason:
            # Not in the dump, or written anew by a capture kernel.
            assert page.state is not State.SAVED or page.pgmap_known is False
            assert (page.refcount, page.mapping, page.index) == (None, None, None)
            unknown += 1
            continue
        if page.shared:
            assert page.mapping_address is None
            continue
        owners = by_pfn[truth.pfn]
        if page.type != "MEMORY_DEVICE_FS_DAX":
            # The recorded inode of a character device is that of its node in /dev. Before v4.19,
            # device DAX set neither mapping nor index.
            assert page.index in {index for _, index in owners}
            assert (page.mapping_address is not None) == sets_index(case.prog)
            named += 1
            continue
        assert page.mapping_address is not None, f"{truth} has no owner"
        owner = (inode_of(case.prog, page.mapping_address), page.index)
        # A page read through two clones keeps its first owner, which may have no process.
        if owner not in owners:
            assert "clone" in truth.path or any("clone" in t.path for t in same_page(case, truth))
        named += 1
    assert named or unknown


def same_page(case: Case, truth: TruthPage) -> list[TruthPage]:
    return [other for other in recorded(case.sample.name) if other.pfn == truth.pfn]


def recorded_lines(case: Case, what: str) -> list[dict[str, str]]:
    """KEY=VALUE of the lines of the processes' own logs that begin with a word."""
    lines = []
    for log in sorted(case.sample.truth.glob("map.*.txt")):
        for line in log.read_text().splitlines():
            word, _, rest = line.partition(" ")
            if word == what:
                lines.append(dict(re.findall(r"(\w+)=(\S+)", rest)))
    return lines


def readable(case: Case, pfns: set[int]) -> set[int]:
    return {pfn for pfn in pfns if read_page(case.prog, pfn).value.state is State.SAVED}


def ranges(case: Case, options: str) -> set[int]:
    """PFNs of a listing."""
    return {
        pfn
        for entry in run_json(case.prog, f"pmem-pages --ranges {options}")
        for pfn in range(entry["pfn"], entry["pfn"] + entry["pages"])
    }


def test_pmem_page_names_the_file_and_the_place_that_were_recorded(case: Case) -> None:
    """The page of every file at the lowest offset that was mapped, and the place of its data in the
    namespace by ndctl's record of the info block."""
    skip_without_pmem(case)
    lowest: dict[str, TruthPage] = {}
    for truth in sorted(recorded(case.sample.name), key=lambda t: t.offset):
        if is_pmem(case, truth.pfn) and len(same_page(case, truth)) == 1:
            lowest.setdefault(shown_path(truth), truth)
    wanted = {truth.pfn: (path, truth) for path, truth in lowest.items()}
    assert wanted
    answers = run_json(case.prog, "pmem-page " + " ".join(f"{pfn:#x}" for pfn in wanted))
    assert [page["pfn"] for page in answers] == list(wanted)
    starts = data_starts(case)
    devices = {n["dev"]: n.get("blockdev") for n in case.truth_json("ndctl-list-N.json")}
    for page in answers:
        path, truth = wanted[page["pfn"]]
        # RAM on a DAX device (hmem) has no namespace.
        other = page["namespace"] in dax_without_namespace(case)
        device = None if other else devices[page["namespace"]]
        if device is not None:
            assert page["offset"] == truth.pfn * case.page - starts[device]
        if page["state"] != "saved" or page["pgmap_known"] is False:
            assert (page["owner"], page["index"], page["refcount"]) == (None, None, None)
        elif page["type"] == "0":
            assert (page["owner"], page["index"]) == (None, None)  # see sets_index()
        elif not page["shared"]:
            assert page["owner"] == path or page["owner"].endswith(f"(ino {truth.inode})")
            assert page["index"] == (truth.offset // case.page if sets_index(case.prog) else None)


def test_pmem_page_without_debug_info_says_no_more_than_the_struct_page(case: Case) -> None:
    """A number is the PFN of a page that the dump has, or no answer; what the struct page tells
    without debug info is what it tells with."""
    skip_without_pmem(case)
    prog, coverage = without_debug_info(case), coverage_of(case.prog)
    pfns = sorted({t.pfn for t in recorded(case.sample.name) if is_pmem(case, t.pfn)})[::16]
    assert pfns
    for pfn in pfns:
        if coverage.state(pfn * case.page) is State.ABSENT:
            with pytest.raises(Incomplete, match="no page with this PFN"):
                run_text(prog, f"pmem-page {pfn:#x}")
            continue
        (bare,) = run_json(prog, f"pmem-page {pfn:#x}")
        (full,) = run_json(case.prog, f"pmem-page {pfn:#x}")
        assert bare["pfn"] == full["pfn"] == pfn
        assert {k for k in ("owner", "namespace", "pgmap", "pins") if bare[k] is not None} == set()
        known = [k for k in ("flags", "hwpoison", "page_physical") if bare[k] is not None]
        if full["pgmap_known"]:
            known += [k for k in ("refcount", "mapping", "index") if bare[k] is not None]
        assert {k: bare[k] for k in known} == {k: full[k] for k in known}
        assert (bare["state"] == "saved") == (full["state"] == "saved")


def test_poisoned_pages_are_those_that_were_poisoned(case: Case) -> None:
    skip_without_pmem(case)
    expected = {int(line["pfn"], 16) for line in recorded_lines(case, "HWPOISON")
                if line["madvise"] == "0"}  # fmt: skip
    # Of the info block and memmap there is no struct page that the kernel would mark.
    expected |= {
        int(line["address"], 16) // case.page for line in machine_checks(case) if "path" in line
    }
    # But one that takes them for reserved pages does, and marks those for which madvise() fails.
    expected |= {pfn for pfn in marked_as_reserved(case) if is_pmem(case, pfn)}
    assert ranges(case, "--hwpoison") == readable(case, expected)


def test_busy_pages_are_those_that_someone_pinned(case: Case) -> None:
    skip_without_pmem(case)
    pinned = {
        int(line["pfn"], 16)
        for word in ("VMSPLICE", "DIRECT", "IO_URING")
        for line in recorded_lines(case, word)
        if int(line["result"]) >= 0 and "pfn" in line
    }
    pinned |= marked_as_reserved(case) - poisoned_memmap(case)
    maps = pmem_maps(case.prog)
    expected = readable(case, {pfn for pfn in pinned if any(g.has_pfn(pfn) for g in maps)})
    folios = set()
    for pfn in expected:
        page = read_page(case.prog, pfn).value
        folios |= set(range(page.head_pfn or 0, (page.head_pfn or 0) + (1 << (page.order or 0))))
    assert ranges(case, "--busy") == folios


def test_pages_by_owner_are_those_that_plain_drgn_finds_in_the_file(case: Case) -> None:
    skip_without_pmem(case)
    prog = case.prog
    if not scan_pages(prog, scan_ranges(pmem_maps(prog))).value.count(State.SAVED):
        pytest.skip("no struct page of persistent memory is in this dump")
    truth = next((t for t, page in saved_truth(case) if page.mapping_address), None)
    if truth is None:
        pytest.skip("no mapped page's struct page is in this dump")
    mapping = read_page(prog, truth.pfn).value.mapping_address
    assert truth.pfn in ranges(case, f"--owner {mapping:#x}")
    assert truth.pfn in ranges(case, f"--owner '{truth.path}'")
    assert ranges(case, "--owner /no/such/file") == set()


def test_missing_struct_pages_are_counted_and_never_decoded(case: Case) -> None:
    """Coverage by plain arithmetic: where each struct page is, by drgn's own page table walk."""
    skip_without_pmem(case)
    prog = case.prog
    coverage, mm = coverage_of(prog), prog["init_mm"].address_of_()
    vmemmap, size = prog["vmemmap"].value_(), prog.type("struct page").size
    for pgmap in pmem_maps(prog):
        runs = scan_pages(prog, scan_ranges([pgmap])).value.runs
        states, pfns = spread(runs, "state"), spread(runs, "pfn")
        start = int(pfns[0])
        assert len(pfns) == pgmap.end_pfn - start
        for offset in range(0, len(pfns), case.page // size):
            try:
                physical = follow_phys(mm, vmemmap + (start + offset) * size).value_()
            except (FaultError, NotImplementedError):
                continue
            assert states[offset] == Coverage.code(coverage.state(physical))


def test_absent_struct_pages_say_so(case: Case) -> None:
    skip_without_pmem(case)
    groups = run_json(case.prog, "pmem-pages")
    lost = [g for g in groups if g["state"] != "saved"]
    # Those that the kernel never wrote miss nothing.
    missing = [g for g in lost if g["status"] != "uninitialised"]
    for group in missing:
        assert group["status"] == group["state"]
        assert (group["flags"], group["refcount"], group["owner"]) == (None, None, None)
    notes = run_text(case.prog, "pmem-pages")[1]
    said = re.search(r"(not|none of the \d+ struct pages is) in the dump", notes)
    assert bool(missing) == bool(said)


def test_page_tables_are_what_drgn_walks(case: Case) -> None:
    """Every page of the memmaps of all page maps, and the ends of all kernel mappings."""
    skip_without_pmem(case)
    prog = case.prog
    mm = prog["init_mm"].address_of_()
    vmemmap, size = prog["vmemmap"].value_(), prog.type("struct page").size
    page_size = prog["PAGE_SIZE"].value_()
    checked = 0
    for pgmap in pmem_maps(prog):
        start = vmemmap + (pgmap.ranges[0].start // page_size) * size
        end = vmemmap + pgmap.end_pfn * size
        for extent in for_each_extent(prog, start, end):
            for virtual in range(extent.virtual, extent.end, page_size):
                try:
                    physical = follow_phys(mm, virtual).value_()
                except NotImplementedError:
                    pytest.skip("drgn does not translate addresses of this machine")
                except FaultError:
                    assert extent.physical is None
                    continue
                assert extent.physical is not None
                assert physical == extent.physical + virtual - extent.virtual
                checked += 1
    assert checked


def test_what_users_type_for_a_page(case: Case) -> None:
    skip_without_pmem(case)
    prog = case.prog
    page_size = prog["PAGE_SIZE"].value_()
    resources = dict(
        re.findall(r"^(namespace\d+\.\d+)/resource=(0x\w+)", case.truth("sysfs.nd"), re.MULTILINE)
    )
    checked = 0
    for namespace in case.truth_json("ndctl-list-N.json"):
        name = namespace["dev"]
        if namespace["mode"] not in ("fsdax", "devdax") or name not in resources:
            continue
        block = block_of(case, name)
        start = int(resources[name], 16) + block["start_pad"] + block["dataoff"]
        pfn = start // page_size + 3
        assert parse_page(prog, f"{name}+{3 * page_size:#x}") == pfn
        assert parse_page(prog, f"{name}+{3 * page_size + 5}") == pfn
        assert parse_page(prog, f"{pfn}") == parse_page(prog, f"{pfn:#x}") == pfn
        assert parse_page(prog, f"{pfn * page_size + 17:#x}") == pfn
        page = prog["vmemmap"] + pfn
        assert parse_page(prog, f"{page.value_():#x}") == pfn
        assert parse_page(prog, f"{page.value_() + 8}") == pfn
        if "blockdev" in namespace:
            sector = 3 * page_size // 512
            assert parse_page(prog, f"{namespace['blockdev']}:{sector}") == pfn
            assert parse_page(prog, f"{namespace['blockdev']}+{3 * page_size}") == pfn
        with pytest.raises(NotFound, match="ends at byte"):
            parse_page(prog, f"{name}+{namespace['size']}")
        checked += 1
    assert checked


def test_a_reading_that_had_a_choice_is_named(case: Case) -> None:
    skip_without_pmem(case)
    pfn = pmem_maps(case.prog)[0].first_pfn
    assert "taken as a PFN" in (resolve_page(case.prog, hex(pfn)).value.note or "")
    address = pfn * case.prog["PAGE_SIZE"].value_()
    assert "taken as a physical address" in (resolve_page(case.prog, hex(address)).value.note or "")


@pytest.mark.parametrize(
    ("text", "error"),
    [("", UsageError), ("alpha", UsageError), ("0x", UsageError), ("-1", UsageError),
     ("1" * 5000, UsageError), ("0x1" + 20 * "0", UsageError), ("0xffffffff81000008", UsageError),
     ("namespace99.9+0", NotFound), ("pmem99:0", NotFound), (str(1 << 40), NotFound)],
)  # fmt: skip
def test_text_that_names_no_page_is_one_clear_line(
    case: Case, text: str, error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        parse_page(case.prog, text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_place_that_is_no_memory_is_named(case: Case) -> None:
    if "fee00000-fee00fff : Local APIC" not in case.truth("iomem"):
        pytest.skip("this machine's iomem had no local APIC at this address")
    with pytest.raises(NotFound, match='as a physical address "Local APIC"'):
        parse_page(case.prog, "0xfee00000")

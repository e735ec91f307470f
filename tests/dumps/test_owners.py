# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Page to file to process, and file to page: as /proc/PID/pagemap, fiemap and smaps said."""

from collections.abc import Iterable
import functools
import json
from typing import Any

import pytest

from drgn_pmem.commands import load_commands
from drgn_pmem.errors import NotFound
from drgn_pmem.partial import Cause, Partial, Problem
from drgn_pmem.spec import SPECS, parse_arguments

from ..samples import Case, program, run_answer, run_json, run_text
from .truth_owners import (
    data_starts,
    events,
    extents,
    is_pmem,
    pages,
    physical_of_sector,
    recorded,
    recorded_extents,
    shown_path,
)

pytestmark = pytest.mark.holds("pmem-rmap", "pmem-file", "pmem-files")

Answers = dict[int, dict[str, Any]]


@pytest.fixture(autouse=True)
def _recorded(case: Case) -> None:
    recorded(case)


@functools.lru_cache(maxsize=4)
def asked(name: str, format: str, pfns: "frozenset[int]") -> Answers:
    line = "pmem-rmap " + " ".join(f"{pfn:#x}" for pfn in sorted(pfns))
    return {answer["pfn"]: answer for answer in run_json(program(name, format), line)}


def answers(case: Case, pfns: Iterable[int]) -> Answers:
    wanted = frozenset(pfns)
    found = asked(case.sample.name, case.format, wanted) if wanted else {}
    assert set(found) == wanted
    return found


def mapped(case: Case) -> Answers:
    """Answers for every page that some process had in its page tables."""
    return answers(case, (page.pfn for page in pages(case, present=True)))


def test_every_mapped_page_leads_to_its_file_and_its_process(case: Case) -> None:
    found = mapped(case)
    wanted = pages(case, present=True)
    assert wanted
    for page in wanted:
        owners = [
            owner
            for owner in found[page.pfn]["owners"]
            if owner["inode"] == page.inode
            and shown_path(page) in owner["paths"]
            and owner["offset"] == page.offset
        ]
        assert len(owners) == 1, page
        mappings = [
            (m["comm"], m["proof"])
            for m in owners[0]["mappings"]
            if (m["pid"], int(m["address"], 16)) == (page.pid, page.address)
        ]
        assert mappings == [(page.comm, "pte")], page


def test_no_process_is_said_to_map_what_it_does_not(case: Case) -> None:
    recorded: dict[int, set[tuple[int, int]]] = {}
    for page in pages(case, present=True):
        recorded.setdefault(page.pfn, set()).add((page.pid, page.address))
    for pfn, answer in mapped(case).items():
        proven = {
            (m["pid"], int(m["address"], 16))
            for owner in answer["owners"]
            for m in owner["mappings"]
            if m["proof"] == "pte"
        }
        assert proven == recorded[pfn], hex(pfn)


def test_every_owner_is_where_fiemap_puts_the_page(case: Case) -> None:
    where: dict[tuple[str, int], int] = {}
    for path, offset, physical, length in extents(case):
        for at in range(0, length, case.page):
            where[path, offset + at] = (physical + at) // case.page
    checked = 0
    for pfn, answer in mapped(case).items():
        for owner in answer["owners"]:
            recorded = where.get((owner["path"], owner["offset"]))
            if recorded is None or owner["private_copy"]:
                continue
            assert recorded == pfn, owner
            checked += 1
    assert checked


def test_the_sector_is_the_one_that_fiemap_counts(case: Case) -> None:
    """Of the file system's own device: also through dm-linear."""
    where = {
        (path, offset + at): sector + at // 512
        for path, offset, sector, length in recorded_extents(case)
        for at in range(0, length, case.page)
    }
    checked = set()
    for answer in mapped(case).values():
        for owner in answer["owners"]:
            key = (owner["path"], owner["offset"])
            if key in where and not owner["private_copy"]:
                assert owner["sector"] == where[key], owner
                checked.add(owner["device"])
    assert checked
    if "linear" in case.truth("mounts"):
        assert "dm-0" in checked


def test_pages_of_a_reflinked_extent_name_every_file(case: Case) -> None:
    files: dict[int, set[str]] = {}
    for path, _, physical, length in extents(case):
        for at in range(0, length, case.page):
            files.setdefault((physical + at) // case.page, set()).add(path)
    shared = {pfn: paths for pfn, paths in files.items() if len(paths) > 1}
    mapped_through: dict[int, set[str]] = {}
    for page in pages(case, present=True):
        mapped_through.setdefault(page.pfn, set()).add(page.path)
    seen = [pfn for pfn in shared if len(mapped_through.get(pfn, ())) > 1]
    found = mapped(case)
    for pfn in seen:
        answer = found[pfn]
        assert {owner["path"] for owner in answer["owners"]} >= mapped_through[pfn]
        assert {owner["path"] for owner in answer["owners"]} <= shared[pfn]
        assert answer["shared"] is True


def test_shared_is_the_same_word_everywhere(case: Case) -> None:
    """By pmem-rmap and pmem-page of each page, and in numbers by pmem-files and pmem-pages."""
    shared = {
        pfn: answer["shared"]
        for pfn, answer in mapped(case).items()
        if is_pmem(case, pfn)
        and len([o for o in answer["owners"] if "i_pages" in o["sources"]]) > 1
    }
    assert all(shared.values())
    for pfn in [*shared, *list(mapped(case))[:5]]:
        (page,) = run_json(case.prog, f"pmem-page {pfn:#x}")
        assert page["shared"] == mapped(case)[pfn]["shared"]
    if shared:
        assert sum(file["shared"] or 0 for file in run_json(case.prog, "pmem-files")) >= len(shared)
        marked = sum(group["pages"] for group in run_json(case.prog, "pmem-pages --shared"))
        _, notes = run_text(case.prog, "pmem-pages --shared")
        assert marked >= len(shared) or "DAX entries of several files name" in notes


def test_an_offset_in_a_device_dax_follows_from_its_range(case: Case) -> None:
    starts = {
        line.partition("/")[0]: int(line.partition("=")[2].rstrip("|"), 0)
        for line in case.truth("sysfs.dax").splitlines()
        if "/resource=" in line and "/mapping" not in line
    }
    found = mapped(case)
    for page in pages(case, present=True):
        device = page.path.removeprefix("/dev/")
        if device in starts:
            assert page.pfn * case.page == starts[device] + page.offset
            (owner,) = found[page.pfn]["owners"]
            assert owner["device"] == device
            assert "range" in owner["sources"]


def test_a_file_and_an_offset_lead_back_to_the_page(case: Case) -> None:
    checked = 0
    for page in pages(case, present=True):
        if not is_pmem(case, page.pfn):
            continue  # the zero page of a hole, a private copy: not the file's
        if page.pfn % 16 and page.offset >= 0x10000:
            continue  # of large entries every sixteenth page
        found = run_json(case.prog, f"pmem-file {shown_path(page)}:{page.offset:#x}")
        assert [(f["inode"], f["offset"], f["pfn"]) for f in found] == [
            (page.inode, page.offset, page.pfn)
        ]
        checked += 1
    assert checked


def test_a_page_that_was_taken_away_is_not_proven(case: Case) -> None:
    """Poisoned, unmapped for a layout break, zapped by 7.x: the VMA is there, the PTE is not."""
    for page in pages(case, present=False):
        try:
            found = run_json(case.prog, f"pmem-file {shown_path(page)}:{page.offset:#x}")
        except NotFound:
            continue  # never touched: no DAX entry
        (entry,) = found
        if entry["pfn"] is None:
            continue
        answer = answers(case, [entry["pfn"]])[entry["pfn"]]
        proofs = {
            m["proof"]
            for owner in answer["owners"]
            for m in owner["mappings"]
            if (m["pid"], int(m["address"], 16)) == (page.pid, page.address)
        }
        assert proofs == {"vma"}, page


def test_a_page_of_ram_in_a_dax_mapping_is_said_to_be_none_of_the_file(case: Case) -> None:
    found = mapped(case)
    for page in pages(case, present=True):
        if is_pmem(case, page.pfn):
            continue
        for owner in found[page.pfn]["owners"]:
            assert owner["private_copy"] != owner["hole"]
            assert "page" not in owner["sources"]


def test_nothing_is_said_of_a_struct_page_that_is_not_in_the_dump(case: Case) -> None:
    for answer in mapped(case).values():
        if answer["state"] == "saved" and answer["reason"] is None:
            continue
        assert answer["reason"]
        assert [answer[k] for k in ("hwpoison", "refcount", "pinned")] == [None] * 3
        assert all("page" not in owner["sources"] for owner in answer["owners"])
        assert answer["owners"]
        assert any("come from i_pages" in note for note in answer["notes"])


def test_both_sources_agree_where_both_were_saved(case: Case) -> None:
    """Every file's page whose struct page is in the dump and that is not shared."""
    blocks = data_starts(case)
    for answer in mapped(case).values():
        trusted = answer["state"] == "saved" and answer["reason"] is None
        if not trusted or answer["device"] not in blocks or answer["shared"]:
            continue
        if is_pmem(case, answer["pfn"]):
            assert [o["sources"] for o in answer["owners"]] == [["page", "i_pages"]], answer
            assert not [note for note in answer["notes"] if "disagree" in note]


def test_dirty_entries_are_those_written_after_the_last_write_back(case: Case) -> None:
    dirty: dict[str, set[int]] = {}
    for event in events(case, "DIRTY"):
        start = event.number("fileoff")
        offsets = range(start, start + event.number("len"), case.page)
        dirty.setdefault(event.values["path"], set()).update(offsets)
    for event in events(case, "DIRECT"):
        dirty.setdefault(event.values["path"], set()).add(event.number("fileoff"))
    if not dirty:
        pytest.skip("this sample's processes wrote nothing after the last write-back")
    for file in run_json(case.prog, "pmem-files"):
        if file["pages"] is None:
            continue
        found = run_json(case.prog, f"pmem-file ino:{file['inode']}")
        offsets = {
            entry["offset"] for entry in found if entry["dirty"] and entry["path"] == file["path"]
        }
        assert offsets == dirty.get(file["path"], set()), file["path"]
        assert file["dirty"] == len(offsets)


def test_the_list_of_files_is_that_of_the_processes_maps(case: Case) -> None:
    listed = {path: file for file in run_json(case.prog, "pmem-files") for path in file["paths"]}
    users: dict[int, set[int]] = {}
    for page in [*pages(case, present=True), *pages(case, present=False)]:
        file = listed[shown_path(page)]
        assert file["inode"] == page.inode
        users.setdefault(id(file), set()).add(page.pid)
    files = {id(file): file for file in listed.values()}
    for number, pids in users.items():
        assert {task["pid"] for task in files[number]["mapped_by"]} == pids


def test_an_unlinked_file_is_shown_with_who_holds_it(case: Case) -> None:
    listed = {path: f for f in run_json(case.prog, "pmem-files -a") for path in f["paths"]}
    for event in events(case, "MAP", "OPEN"):
        file = listed[event.values["path"]]
        # map.c: "u" unlinks the file once it is mapped.
        unlinked = event.what == "MAP" and "u" in event.values["flags"]
        assert file["deleted"] is unlinked
        assert file["path"].endswith(" (deleted)") is unlinked
        holders = {t["pid"] for t in file["mapped_by"]} | {o["pid"] for o in file["open_by"]}
        assert event.number("pid") in holders
        if unlinked:
            pfns = {p.pfn for p in pages(case, present=True) if p.inode == event.number("ino")}
            for answer in answers(case, pfns).values():
                for owner in answer["owners"]:
                    if owner["deleted"]:
                        assert {o["pid"] for o in owner["open_by"]} <= holders


def test_who_has_a_file_open_is_the_same_by_page_and_by_file(case: Case) -> None:
    listed = {(f["device"], f["inode"]): f["open_by"] for f in run_json(case.prog, "pmem-files -a")}
    some = 0
    for answer in mapped(case).values():
        for owner in answer["owners"]:
            assert owner["open_by"] == listed[owner["device"], owner["inode"]]
            some += len(owner["open_by"])
    assert some


def test_every_mount_shows_a_file_and_the_plain_one_comes_first(case: Case) -> None:
    files = run_json(case.prog, "pmem-files -a")
    beta = [f for f in files if "/mnt/ext4/sub/dir/beta" in f["paths"]]
    mounts = [line.split()[1] for line in case.truth("mounts").splitlines()]
    if "/mnt/bind" not in mounts or not beta:
        pytest.skip("no file of a bind mount is in memory in this sample")
    (file,) = beta
    assert file["paths"] == ["/mnt/ext4/sub/dir/beta", "/mnt/bind/dir/beta"]
    assert run_json(case.prog, "pmem-file /mnt/bind/dir/beta") == run_json(
        case.prog, "pmem-file /mnt/ext4/sub/dir/beta"
    )


def test_a_sector_of_a_device_leads_to_the_file_that_fiemap_names(case: Case) -> None:
    starts = data_starts(case)
    for path, offset, physical, _ in list(extents(case))[:20]:
        for device, start in starts.items():
            sector = (physical - start) // 512
            if sector < 0 or physical_of_sector(case, device, sector) != physical:
                continue
            try:
                (answer,) = run_json(case.prog, f"pmem-rmap {device}:{sector}")
            except NotFound:
                continue  # after the end of this device
            assert answer["pfn"] == physical // case.page
            for owner in answer["owners"]:
                if owner["path"] == path:
                    assert owner["offset"] == offset // case.page * case.page


def test_a_sector_of_a_dm_disk_leads_to_the_file_on_it(case: Case) -> None:
    """Sectors as fiemap counts them, on the dm disk; where they lie by ``dmsetup table``."""
    mounts = {line.split()[1]: line.split()[0] for line in case.truth("mounts").splitlines()}
    if "/mnt/dm" not in mounts:
        with pytest.raises(NotFound, match="no device dm-0"):
            run_json(case.prog, "pmem-rmap dm-0:0")
        return
    checked = 0
    for path, offset, sector, length in recorded_extents(case):
        if not path.startswith("/mnt/dm/"):
            continue
        for within in (0, length - 512):
            at = sector + within // 512
            (answer,) = run_json(case.prog, f"pmem-rmap dm-0:{at}")
            assert answer["pfn"] == physical_of_sector(case, mounts["/mnt/dm"], at) // case.page
            assert [(owner["path"], owner["offset"]) for owner in answer["owners"]] in (
                [(path, (offset + within) // case.page * case.page)],
                [],  # on the disk only: nobody has read or written it
            )
            checked += 1
    assert checked
    _, notes = run_text(case.prog, f"pmem-rmap dm-0:{sector}")
    assert "of dm-0 is sector" in notes
    with pytest.raises(NotFound, match="is on no target of device mapper"):
        run_json(case.prog, "pmem-rmap dm-0:999999999")


def test_several_pages_come_from_standard_input(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    pfns = sorted({page.pfn for page in pages(case, present=True)})[:3]
    text = "".join(f"{pfn:#x}\n" for pfn in pfns)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert [a["pfn"] for a in run_json(case.prog, "pmem-rmap -")] == pfns


def test_one_bad_page_among_several_costs_only_itself(case: Case) -> None:
    pfn = pages(case, present=True)[0].pfn
    out, err = run_text(case.prog, f"pmem-rmap namespace9.9+0 {pfn:#x}")
    assert f"{pfn:#x}" in out
    assert "namespace9.9" in err
    _, out, _ = run_answer(case.prog, f"pmem-rmap namespace9.9+0 {pfn:#x} --json=full")
    answer = json.loads(out)
    assert [page["query"] for page in answer["answer"]] == [f"{pfn:#x}"]
    found = [(p["cause"], p["query"]) for p in answer["problems"] if p["query"] is not None]
    assert found == [("not found", "namespace9.9+0")]


@pytest.mark.parametrize(
    "name", ["pmem-rmap", "pmem-files", "pmem-file", "pmem-poison", "pmem-pins"]
)
def test_the_code_that_drgn_prints_gives_the_same_answer(case: Case, name: str) -> None:
    page = next(p for p in pages(case, present=True) if is_pmem(case, p.pfn))
    words = {"pmem-rmap": [f"{page.pfn:#x}"], "pmem-file": [shown_path(page)]}.get(name, [])
    load_commands()
    args = parse_arguments(SPECS[name], words)
    assert args is not None
    scope: dict[str, Any] = {"prog": case.prog}
    exec(compile(SPECS[name].drgn_code(args), name, "exec"), scope)
    answer = scope["files"] if name == "pmem-files" else scope["pages"]
    from drgn_pmem.output.json import to_json

    expected = run_json(case.prog, " ".join([name, *words]))
    if name == "pmem-rmap":
        # The code asks for a PFN; what the command's user typed is in the command's answer.
        assert [record.pop("query") for record in expected] == words
        answer = to_json(list(answer))
        assert [record.pop("query") for record in answer] == [None]
    assert to_json(list(answer)) == expected


def test_a_file_that_is_not_there_is_named(case: Case) -> None:
    with pytest.raises(NotFound, match="/mnt/no/such"):
        run_json(case.prog, "pmem-file /mnt/no/such:0x1000")


def test_files_are_found_without_the_debug_info_of_dax_and_xfs(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a distribution with vmlinux alone: VFS structures and i_pages lead to every file."""
    from drgn_pmem.analysis.owners import daxfiles
    from drgn_pmem.kernel import daxfs

    def names() -> set[tuple[str | None, int | None]]:
        monkeypatch.delitem(case.prog.cache, "drgn_pmem.dax_files", raising=False)
        files = daxfiles.dax_files_of(case.prog).value.files
        return {(f.names.value.path, f.entries.value.pages()) for f in files if f.entries.value}

    unknown: Partial[dict[int, int]] = Partial(
        {}, (Problem(cause=Cause.NO_DEBUG_INFO, why="no debug info", module="dax"),)
    )
    everything = names()
    with monkeypatch.context() as patch:
        patch.setattr(daxfs, "dax_disks", lambda prog: unknown)
        patch.setattr(daxfs, "has_type", lambda prog, name: False)
        assert names() == everything
    monkeypatch.delitem(case.prog.cache, "drgn_pmem.dax_files")
    assert everything

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Owners, paths and holders of a dump that lacks one page: unknown is never nothing."""

from collections.abc import Callable
from dataclasses import replace
import json
from typing import Any

from drgn import Program
from drgn.helpers.linux.mm import follow_phys
import pytest

from drgn_pmem.analysis.owners import rampages
from drgn_pmem.analysis.owners.daxfiles import DaxFile, dax_files_of
from drgn_pmem.kernel import badblocks
from drgn_pmem.kernel.namespace import for_each_namespace
from drgn_pmem.kernel.tasks import openers_of, tasks_of
from drgn_pmem.partial import Cause, State

from ..samples import CASES, open_crash, run_answer, truth_pages
from ..taken.memory import page_size_of, take_away
from ..taken.trial import forked

case = next(case for case in CASES if str(case) == "6.1-fileload:elf")

PATH = "/mnt/ext4/alpha"

Answer = tuple[bool, Any]


@pytest.fixture(scope="module")
def prog() -> Program:
    """Never asked anything in this process: forks find nothing cached."""
    return open_crash(case.sample, case.dump)


def file_of(prog: Program, path: str = PATH) -> DaxFile:
    files = dax_files_of(prog).value.files
    return next(file for file in files if path in file.names.value.paths)


def asked(prog: Program, line: str) -> Answer:
    answer, out, _ = run_answer(prog, f"{line} --json")
    assert answer is not None
    return answer.whole, json.loads(out)


def without(prog: Program, find: Callable[[Program], "int | list[int]"], line: str) -> Answer:
    """
    The answer of a dump that lacks the page of a kernel address.

    :param find: Finds the address, or several of them, in a process of its own.
    :return: Whether the answer is whole; its JSON.
    """
    found = forked(lambda: find(prog))
    assert isinstance(found, int | list), found

    def ask() -> Answer:
        for address in [found] if isinstance(found, int) else found:
            physical = follow_phys(prog["init_mm"].address_of_(), address).value_()
            take_away(prog, physical // page_size_of(prog) * page_size_of(prog), State.ABSENT)
        return asked(prog, line)

    answer = forked(ask)
    assert isinstance(answer, tuple), answer
    return answer


def a_mapper(prog: Program) -> int:
    return file_of(prog).mapped_by.value[0].address


def a_table(prog: Program) -> int:
    """The array of descriptors of a process that has a DAX file open."""
    inodes = {file.inode.address for file in dax_files_of(prog).value.files}
    openers = openers_of(prog).value
    task = next(openers[inode][0].task for inode in inodes if inode in openers)
    return int(task.object.files.fdt.fd.value_())


def the_inode(prog: Program) -> int:
    return file_of(prog).inode.mapping


def the_dentry(prog: Program) -> int:
    inode = file_of(prog).inode.object
    first = inode.i_dentry.first.value_()
    return int(first) - prog.type("struct dentry").member("d_u").offset


def the_mount(prog: Program) -> int:
    super_ = file_of(prog).inode.object.i_sb
    return int(super_.s_mounts.next.value_())


def the_namespace(prog: Program) -> int:
    first = next(task for task in tasks_of(prog).value.tasks if task.pid == 1)
    return int(first.object.nsproxy.value_())


@pytest.mark.parametrize("find", [a_mapper, the_inode])
def test_processes_that_map_a_file_are_not_fewer_in_silence(
    prog: Program, find: Callable[[Program], int]
) -> None:
    _, full = forked(lambda: asked(prog, "pmem-files --all"))
    whole, files = without(prog, find, "pmem-files --all")
    assert sum(len(f["mapped_by"]) for f in files) < sum(len(f["mapped_by"]) for f in full)
    assert not whole


def test_openers_are_not_fewer_in_silence(prog: Program) -> None:
    _, full = forked(lambda: asked(prog, "pmem-files --all"))
    whole, files = without(prog, a_table, "pmem-files --all")
    assert sum(len(f["open_by"]) for f in files) < sum(len(f["open_by"]) for f in full)
    assert not whole


@pytest.mark.parametrize("find", [the_dentry, the_mount])
def test_a_name_that_cannot_be_read_is_neither_deleted_nor_none(
    prog: Program, find: Callable[[Program], int]
) -> None:
    inode = forked(lambda: file_of(prog).inode.ino)
    whole, files = without(prog, find, "pmem-files --all")
    assert not whole
    for file in files:
        if file["inode"] == inode:
            assert file["deleted"] is not True
            # A bind mount's path is not presented as the first one.
            assert file["path"] in (None, PATH)


def test_which_mount_comes_first_is_not_guessed(prog: Program) -> None:
    whole, _ = without(prog, the_namespace, "pmem-files --all")
    assert not whole


def test_that_no_file_has_a_page_is_said_only_where_all_files_were_read(prog: Program) -> None:
    """A page of a file whose inode cannot be read."""
    pfn = forked(lambda: int(file_of(prog).entries.value.with_pfn()["pfn"][0]))
    line = f"pmem-rmap {pfn:#x}"
    _, (full,) = forked(lambda: asked(prog, line))
    assert full["owners"]
    whole, (answer,) = without(prog, the_inode, line)
    assert not whole
    assert not any(
        note.startswith("no DAX file in memory has this page") for note in answer["notes"]
    )


def test_a_struct_page_that_was_not_saved_makes_the_answer_incomplete(prog: Program) -> None:
    from drgn_pmem.kernel.page import page_layout

    pfn = forked(lambda: int(file_of(prog).entries.value.with_pfn()["pfn"][0]))
    whole, (answer,) = without(
        prog, lambda prog: page_layout(prog).address(pfn), f"pmem-rmap {pfn:#x}"
    )
    assert not whole
    assert answer["owners"]
    assert answer["refcount"] is None


def test_badblocks_of_a_disk_without_a_name_are_nobodys(
    prog: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask() -> tuple[bool, Any]:
        namespaces = badblocks.for_each_namespace(prog)
        nameless = namespaces.map(lambda found: [replace(n, blockdev=None) for n in found])
        monkeypatch.setattr(badblocks, "for_each_namespace", lambda prog: nameless)
        return asked(prog, "pmem-poison")

    answer = forked(ask)
    assert isinstance(answer, tuple), answer
    whole, pages = answer
    assert not whole
    (page,) = (page for page in pages if page["pfn"] == 0x1009F3)
    assert page["sources"] == ["unknown"]
    assert page["ranges"][0]["source"] is None


def test_more_ram_in_dax_mappings_than_is_kept_is_a_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hostile page table may map RAM everywhere; each page costs memory and time."""
    prog = case.prog
    whole = rampages._find(prog)
    assert whole.complete
    assert whole.value
    monkeypatch.setattr(rampages, "_MAX_RAM_PAGES", 1)
    part = rampages._find(prog)
    assert len(part.value) < len(whole.value)
    assert [problem.cause for problem in part.problems] == [Cause.LIMIT]


def the_sections(prog: Program) -> list[int]:
    """From which drgn finds the struct pages."""
    return [prog["mem_section"].value_()]


def the_place_of_struct_pages(prog: Program) -> list[int]:
    """All that says where they are."""
    return [*the_sections(prog), prog.symbol("vmemmap_base").address]


@pytest.mark.parametrize("line", ["pmem-rmap pmem2:45064", "pmem-page pmem2:45064"])
def test_struct_pages_are_found_without_the_sections(prog: Program, line: str) -> None:
    assert without(prog, the_sections, line) == forked(lambda: asked(prog, line))


def test_without_the_place_of_struct_pages_the_other_sources_answer(prog: Program) -> None:
    (page,) = [p for p in truth_pages(case.sample) if p.path == PATH and p.offset == 0][:1]
    for line in (f"pmem-rmap pfn:{page.pfn:#x}", f"pmem-page pfn:{page.pfn:#x}"):
        _, (full,) = forked(lambda line=line: asked(prog, line))
        whole, (part,) = without(prog, the_place_of_struct_pages, line)
        assert not whole
        assert (part["page"], part["state"], part["refcount"]) == (None, "unknown", None)
        for key in ("pfn", "physical", "namespace", "query"):
            assert part[key] == full[key]
        if "owners" in full:
            (owner,) = part["owners"]
            assert owner["sources"] == ["i_pages"]
            assert (owner["path"], owner["offset"]) == (PATH, 0)
            assert owner["mappings"] == full["owners"][0]["mappings"]
    for line, key in (("pmem-namespaces", "dev"), ("pmem-coverage", "namespace")):
        _, full = forked(lambda line=line: asked(prog, line))
        whole, part = without(prog, the_place_of_struct_pages, line)
        assert not whole
        assert [item[key] for item in part] == [item[key] for item in full]
        assert not any(" with -s" in item.get("advice", "") for item in part)


def test_bad_pages_are_found_without_their_struct_pages(prog: Program) -> None:
    _, full = forked(lambda: asked(prog, "pmem-poison"))
    whole, part = without(prog, the_place_of_struct_pages, "pmem-poison")
    assert not whole
    others = [p for p in full if p["sources"] != ["HWPoison"]]
    assert [p["pfn"] for p in part] == [p["pfn"] for p in others] != []
    for one, other in zip(part, others, strict=True):
        assert {o["path"] for o in one["owners"]} == {o["path"] for o in other["owners"]}


def a_device(prog: Program) -> int:
    """What the bus has of namespace2.0 in its list of devices."""
    found = next(n for n in for_each_namespace(prog).value if n.dev == "namespace2.0")
    return int(found.object.dev.p.value_())


def the_devices(prog: Program) -> int:
    """The head of their list."""
    return int(prog["nvdimm_bus_type"].p.klist_devices.k_list.address_of_().value_())


def the_bus(prog: Program) -> int:
    found = next(n for n in for_each_namespace(prog).value if n.dev == "namespace2.0")
    return int(found.object.dev.parent.parent.value_())


@pytest.mark.parametrize("find", [a_device, the_devices, the_bus])
def test_namespaces_beside_what_is_lost_are_found(
    prog: Program, find: Callable[[Program], int]
) -> None:
    """The list of the bus goes both ways, and iomem has an outline of those that are lost."""
    for line in ("pmem-namespaces", "pmem-list"):
        _, full = forked(lambda line=line: asked(prog, line))
        whole, part = without(prog, find, line)
        assert not whole
        are_rows_of(part, full)


def are_rows_of(part: list[dict[str, Any]], full: list[dict[str, Any]]) -> None:
    rows, wanted = ({item["dev"]: item for item in items} for items in (part, full))
    # Others share the page that was lost.
    assert {item["dev"] for item in full if item["mode"] == "fsdax"} <= set(rows) <= set(wanted)
    for dev, row in rows.items():
        for key, value in row.items():
            assert value in (None, wanted[dev].get(key)) or key == "dump"

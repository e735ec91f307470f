# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files of a split dump, opened together, are the dump that makedumpfile would reassemble."""

from dataclasses import replace
import itertools
from pathlib import Path
import random
import struct

import pytest

from drgn_pmem.dumpfile import State, open_dump
from drgn_pmem.dumpfile.split import open_split
from drgn_pmem.errors import DumpFileError, PmemError, UsageError
from drgn_pmem.shell.options import parse
from drgn_pmem.shell.target import open_target
from tests.samples import CASES, run_json
from tests.unit.dumpfile.test_kdump import LAYOUTS
from tests.unit.dumpfile.writers import PAGE, Kdump, flatten

EXISTS = set(range(1, 620))
DUMPED = set(range(3, 40)) | set(range(98, 130)) | {200, 300, 301, 302} | set(range(500, 600))
RANGES = [(0, 20), (20, 100), (100, 301), (301, 620)]


def parts_of(kdump: Kdump, folder, ranges=RANGES) -> list[str]:
    """The files of a dump, split."""
    paths = []
    for number, part in enumerate(ranges):
        path = folder / f"part{number}"
        replace(kdump, split=1, part=part).write(path)
        paths.append(str(path))
    return paths


def same(dump, whole) -> None:
    assert dump.coverage.to_json() == whole.coverage.to_json()
    assert dump.vmcoreinfo == whole.vmcoreinfo
    assert dump.truncated == whole.truncated
    for item in whole.coverage.extent():
        if item.state is State.SAVED:
            data = whole.memory.read(item.start, item.size)
            assert dump.memory.read(item.start, item.size) == data
            for at in range(item.start, item.end, PAGE):
                assert dump.memory.read(at + 8, 8) == data[at - item.start + 8 :][:8]


@pytest.mark.parametrize(("bits", "order", "packed", "machine"), LAYOUTS)
@pytest.mark.parametrize("version", [2, 3, 4, 5, 6])
def test_every_version_and_machine(tmp_path, version, bits, order, packed, machine):
    kdump = Kdump(
        EXISTS, DUMPED, 620, version=version, bits=bits, order=order, packed=packed,
        machine=machine, how="mixed",
    )  # fmt: skip
    paths = parts_of(kdump, tmp_path)
    random.Random(version).shuffle(paths)
    dump = open_split(paths)
    same(dump, open_dump(kdump.write(tmp_path / "whole")))
    assert dump.joined
    assert "4 files of a split dump" in dump.description


def test_flattened_files_are_files_of_a_split_dump_too(tmp_path):
    kdump = Kdump(EXISTS, DUMPED, 620, shared=True)
    paths = parts_of(kdump, tmp_path)
    for path in paths[1:3]:
        with open(path, "r+b") as file:
            data = file.read()
            file.seek(0)
            file.write(flatten(data))
    same(open_split(paths), open_dump(kdump.write(tmp_path / "whole")))


@pytest.mark.parametrize("missing", range(4))
def test_pages_of_a_file_that_is_not_given_are_truncated(tmp_path, missing):
    kdump = Kdump(EXISTS, DUMPED, 620)
    paths = parts_of(kdump, tmp_path)
    del paths[missing]
    dump = open_split(paths)
    first, end = RANGES[missing]
    whole = open_dump(kdump.write(tmp_path / "whole"))
    for pfn in range(620):
        expected = whole.coverage.state(pfn * PAGE)
        if first <= pfn < end and pfn in DUMPED:
            expected = State.TRUNCATED
        assert dump.coverage.state(pfn * PAGE) is expected, pfn
        if expected is State.SAVED:
            assert dump.memory.read(pfn * PAGE, PAGE) == whole.memory.read(pfn * PAGE, PAGE)
    assert dump.truncated


def test_the_missing_file_is_named(tmp_path):
    paths = parts_of(Kdump(EXISTS, DUMPED, 620), tmp_path)
    for missing in ([1], [0, 2], [3]):
        dump = open_split([path for number, path in enumerate(paths) if number not in missing])
        assert dump.missing == tuple(RANGES[number] for number in missing)
    assert open_split(paths).missing == ()


def test_files_of_two_dumps_with_equal_headers_are_not_mixed(tmp_path):
    for name, dumped in (("one", DUMPED), ("two", DUMPED ^ {110})):
        (tmp_path / name).mkdir()
        parts_of(Kdump(EXISTS, dumped, 620), tmp_path / name)
    paths = [str(tmp_path / name / f"part{number}") for number, name in enumerate(
        ("one", "one", "two", "one"))]  # fmt: skip
    with pytest.raises(DumpFileError, match=r"two/part2: not of the same dump as .*one/part0"):
        open_split(paths)


def test_a_file_that_was_cut_short_loses_its_pages_only(tmp_path):
    kdump = Kdump(EXISTS, DUMPED, 620)
    paths = parts_of(kdump, tmp_path)
    whole = open_dump(kdump.write(tmp_path / "whole"))
    with open(paths[1], "r+b") as file:
        file.truncate(file.seek(0, 2) - 300)
    dump = open_split(paths)
    lost = 0
    for pfn in sorted(DUMPED):
        state = dump.coverage.state(pfn * PAGE)
        if state is State.SAVED:
            assert dump.memory.read(pfn * PAGE, PAGE) == whole.memory.read(pfn * PAGE, PAGE)
        else:
            assert (state, 20 <= pfn < 100) == (State.TRUNCATED, True)
            lost += 1
    assert lost > 0


@pytest.mark.parametrize("offset", [(1 << 64) - 1, 1 << 63, 1 << 40, 0, 5 * PAGE])
def test_no_offset_of_one_file_reaches_into_another(tmp_path, offset):
    kdump = Kdump(EXISTS, DUMPED, 620)
    paths = parts_of(kdump, tmp_path)
    with open(paths[2], "r+b") as file:
        file.seek(4 * PAGE)  # its first descriptor: of page 100
        file.write(struct.pack("<Q", offset))
    dump = open_split(paths)
    if dump.coverage.saved(100 * PAGE, PAGE):
        with pytest.raises(DumpFileError, match="damaged page"):
            dump.memory.read(100 * PAGE, PAGE)
    assert dump.memory.read(99 * PAGE, PAGE)
    assert dump.memory.read(101 * PAGE, PAGE)


def test_files_that_are_not_of_one_split_dump_are_refused(tmp_path):
    kdump = Kdump(EXISTS, DUMPED, 620)
    paths = parts_of(kdump, tmp_path)
    with pytest.raises(DumpFileError, match="give each file of the split dump once"):
        open_split([*paths, paths[1]])
    (tmp_path / "other").mkdir()
    other = parts_of(replace(kdump, machine="i686"), tmp_path / "other")
    with pytest.raises(DumpFileError, match="not of the same dump"):
        open_split([paths[0], other[1]])
    whole = str(kdump.write(tmp_path / "whole"))
    with pytest.raises(UsageError, match="give it alone"):
        open_split([paths[0], whole])
    (tmp_path / "text").write_text("no dump")
    with pytest.raises(UsageError, match="one dump is one file, or the files of a split one"):
        open_split([paths[0], str(tmp_path / "text")])
    wrong = parts_of(kdump, tmp_path / "other", [(30, 20), (40, 620)])
    with pytest.raises(DumpFileError, match="its range of page frames"):
        open_split(wrong)
    with pytest.raises(DumpFileError, match=r"-c FILE1 -c FILE2.*--reassemble"):
        open_dump(paths[0])


def test_any_bytes_of_a_file_give_a_dump_or_an_error(tmp_path):
    paths = parts_of(Kdump(EXISTS, DUMPED, 620), tmp_path)
    one = Path(paths[1])
    whole = one.read_bytes()
    generator = random.Random(5)
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(generator.randrange(1, 6)):
            data[generator.randrange(PAGE + 120)] = generator.randrange(256)
        one.write_bytes(data[: generator.choice([len(data), 9000, 3 * PAGE])])
        try:
            dump = open_split(paths)
            for item in itertools.islice(dump.coverage.ranges(), 50):
                if item.state is State.SAVED:
                    dump.memory.read(item.start, min(item.size, 10 * PAGE))
        except PmemError:
            continue


def split_in_two(source, folder) -> list[str]:
    """A real dump as makedumpfile --split writes it."""
    dump = open_dump(source)
    header, data = dump.kdump, source.read_bytes()
    table = (1 + header.sub_header_blocks + header.bitmap_blocks) * header.block_size
    held = [item for item in dump.coverage.extent() if item.state is State.SAVED]
    count = sum(item.size for item in held) // header.block_size
    cut = held[len(held) // 2].start // header.block_size
    before = sum(i.size for i in held[: len(held) // 2]) // header.block_size
    paths = []
    for first, end, low, high in ((0, cut, 0, before), (cut, header.max_mapnr, before, count)):
        head = bytearray(data[:table])
        struct.pack_into("<I", head, header.block_size + 12, 1)
        struct.pack_into("<QQ", head, header.block_size + 80, first, end)
        rows = data[table + 24 * low : table + 24 * high]
        shift = 24 * (high - low) - 24 * count
        moved = b"".join(
            struct.pack("<QIIQ", offset + shift, *rest)
            for offset, *rest in struct.iter_unpack("<QIIQ", rows)
        )
        path = folder / f"part{first}"
        path.write_bytes(bytes(head) + moved + data[table + 24 * count :])
        paths.append(str(path))
    return paths


def test_commands_answer_on_a_split_dump_as_on_the_whole_one(tmp_path):
    (case,) = [c for c in CASES if (c.sample.name, c.format) == ("6.1-fileload", "lzo")]
    vmlinux = str(case.sample.debug_info()[0])
    paths = split_in_two(case.dump, tmp_path)
    target = open_target(parse(["-c", paths[1], "-c", paths[0], "-s", vmlinux]))
    for line in ("pmem-list -R", "pmem-pages", "pmem-rmap 0x129800"):
        assert run_json(target.prog, line) == run_json(case.prog, line)

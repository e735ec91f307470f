# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A file told apart from others comes out whole, or is one clear error."""

from collections.abc import Sequence
import contextlib
import hashlib
import io
import json
import lzma
from pathlib import Path
import runpy
import struct
import tracemalloc

from hypothesis import given, settings, strategies as st
import pytest

from drgn_pmem.errors import DumpFileError, FormatError
from drgn_pmem.shell.delta import LONGEST, MAGIC, RECORD, Kind, read_delta, xor
from drgn_pmem.shell.sample import find_sample, load_index

LAB = runpy.run_path(str(Path(__file__).parents[2] / "vmcores" / "lab" / "delta.py"))
PAGE = LAB["PAGE"]


def record(kind: int, length: int, offset: int = 0, base: int = 0, data: bytes = b"") -> bytes:
    return RECORD.pack(kind, base, length, offset) + data


def delta(contents: bytes, *records: bytes) -> bytes:
    return MAGIC + hashlib.sha256(contents).digest() + b"".join(records)


def read(stream: bytes, size: int, *bases: bytes) -> bytes:
    return b"".join(read_delta(io.BytesIO(stream), [io.BytesIO(base) for base in bases], size))


def dump(loads: Sequence[tuple[int, bytes]], gap: int = 0) -> bytes:
    """An ELF64 file with these PT_LOADs (physical address, contents)."""
    offset = 64 + 56 * len(loads) + gap
    table = body = b""
    for physical, contents in loads:
        size = len(contents)
        table += struct.pack("<IIQQQQQQ", 1, 7, offset + len(body), 0, physical, size, size, 0)
        body += contents
    head = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        4,
        62,
        1,
        0,
        64,
        0,
        0,
        64,
        56,
        len(loads),
        0,
        0,
        0,
    )
    return head + table + b"note".ljust(gap, b".")[:gap] + body


def told_apart(folder: Path, target: bytes, *bases: bytes) -> bytes:
    """The delta that the lab writes."""
    paths = []
    for number, contents in enumerate((target, *bases)):
        paths.append(folder / f"dump{number}")
        paths[-1].write_bytes(contents)
    out = io.BytesIO()
    LAB["write_delta"](paths[0], out, paths[1:])
    return out.getvalue()


PAGES = st.sampled_from([bytes(PAGE), b"a" * PAGE, b"b" * PAGE, bytes(100) + b"c" * (PAGE - 100)])
MEMORY = st.lists(PAGES, max_size=6).map(b"".join)
DUMPS = st.builds(
    dump,
    st.lists(
        st.tuples(
            st.integers(0, 8).map(lambda page: page * PAGE),
            st.builds(bytes.__add__, MEMORY, st.binary(max_size=300)),
        ),
        max_size=4,
    ),
    st.integers(0, 3000),
)


@settings(max_examples=50)
@given(target=DUMPS, bases=st.lists(DUMPS, min_size=1, max_size=3))
def test_what_the_lab_writes_comes_out_again(
    tmp_path_factory: pytest.TempPathFactory, target: bytes, bases: list[bytes]
) -> None:
    stream = told_apart(tmp_path_factory.mktemp("delta"), target, *bases)
    assert read(stream, len(target), *bases) == target


def test_a_dump_of_the_same_memory_costs_next_to_nothing(tmp_path: Path) -> None:
    memory = b"".join(hashlib.sha256(struct.pack("<I", n)).digest() * 128 for n in range(256))
    changed = bytearray(memory)
    changed[5000] ^= 1
    base = dump([(0, memory)])
    target = dump([(0x80000, b"only here" * 1000), (0, bytes(changed) + bytes(1 << 20))], gap=17)
    stream = told_apart(tmp_path, target, base)
    assert read(stream, len(target), base) == target
    kinds = set()
    position = len(MAGIC) + 32
    while position < len(stream):
        kind, _, length, _ = RECORD.unpack_from(stream, position)
        kinds.add(Kind(kind))
        position += RECORD.size + (length if kind in (Kind.LITERAL, Kind.XOR) else 0)
    assert kinds == set(Kind)
    assert len(lzma.compress(stream)) < 2000 < len(lzma.compress(target))


BASE = bytes(range(256)) * 32


def test_every_kind_of_record() -> None:
    changes = b"\x01" * 16
    contents = BASE[100:300] + bytes(3 << 20) + b"literal" + xor(BASE[:16], changes) + b"other"
    stream = delta(
        contents,
        record(Kind.COPY, 200, 100),
        record(Kind.ZEROES, 3 << 20),
        record(Kind.LITERAL, 7, data=b"literal"),
        record(Kind.XOR, 16, data=changes),
        record(Kind.COPY, 5, 2, base=1),
    )
    assert read(stream, len(contents), BASE, b"another") == contents


@pytest.mark.parametrize(
    ("records", "size", "message"),
    [
        ([record(4, 10)], 10, "kind 4"),
        ([record(Kind.ZEROES, 0)], 10, "record of 0 bytes"),
        ([record(Kind.ZEROES, 11)], 10, "record of 11 bytes at 0x0 of 0xa"),
        ([record(Kind.ZEROES, 1 << 63)], 10, "record of 9223372036854775808 bytes"),
        ([record(Kind.ZEROES, 6), record(Kind.ZEROES, 6)], 10, "record of 6 bytes at 0x6 of 0xa"),
        ([record(Kind.ZEROES, 9)], 10, "makes 9 bytes, not 10"),
        ([record(Kind.COPY, 10, len(BASE) - 9)], 10, "the base ends before"),
        ([record(Kind.COPY, 10, (1 << 64) - 5)], 10, "the base ends before"),
        ([record(Kind.XOR, 10, len(BASE), data=bytes(10))], 10, "the base ends before"),
        ([record(Kind.COPY, 10, base=1)], 10, "base that there is not"),
        ([record(Kind.LITERAL, 10, data=b"short")], 10, "ends within a record"),
        ([record(Kind.LITERAL, 10)[:-1]], 10, "ends within a record"),
        ([record(Kind.LITERAL, LONGEST + 1)], LONGEST + 1, "bytes of its own"),
        ([record(Kind.COPY, 10, 1)], 10, "another base"),
    ],
)
def test_a_broken_delta_is_told(records: list[bytes], size: int, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read(delta(BASE[:size], *records), size, BASE)


def test_what_is_no_delta_is_told() -> None:
    for stream in (b"", MAGIC, b"\x7fELF" + bytes(100)):
        with pytest.raises(FormatError):
            read(stream, 10, BASE)


@given(st.data())
def test_any_damage_is_an_error_or_the_file(data: st.DataObject) -> None:
    contents = BASE[:300] + bytes(50) + b"own" + BASE[40:90]
    stream = bytearray(
        delta(
            contents,
            record(Kind.COPY, 300),
            record(Kind.ZEROES, 50),
            record(Kind.LITERAL, 3, data=b"own"),
            record(Kind.COPY, 50, 40),
        )
    )
    for _ in range(data.draw(st.integers(1, 3))):
        stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(FormatError):
        assert read(bytes(stream), len(contents), BASE) == contents


def test_memory_does_not_grow_with_the_file() -> None:
    size = 256 << 20
    stream = delta(b"", record(Kind.ZEROES, size // 2), record(Kind.ZEROES, size // 2))
    longest = 0
    tracemalloc.start()
    with contextlib.suppress(FormatError):
        for piece in read_delta(io.BytesIO(stream), [], size):
            longest = max(longest, len(piece))
    assert longest == LONGEST
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


# In a sample


CONTENTS = {"one": b"first" + bytes(1 << 18) + BASE, "two": BASE + bytes(1 << 20) + b"last"}


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two samples: the second's raw is a delta against the first's, its elf against both."""
    elf = CONTENTS["one"][:5] + CONTENTS["two"][-4:]
    streams = {
        "one/raw": (CONTENTS["one"], CONTENTS["one"], None),
        "two/raw": (
            CONTENTS["two"],
            delta(
                CONTENTS["two"],
                record(Kind.COPY, len(BASE), 5 + (1 << 18)),
                record(Kind.ZEROES, 1 << 20),
                record(Kind.LITERAL, 4, data=b"last"),
            ),
            ["one:raw"],
        ),
        "two/elf": (
            elf,
            delta(
                elf,
                record(Kind.COPY, 5, 0, base=1),
                record(Kind.COPY, 4, len(CONTENTS["two"]) - 4, base=0),
            ),
            ["raw", "one:raw"],
        ),
    }
    index: dict[str, object] = {"version": 1, "default": "one", "samples": {}}
    entries: dict[str, dict[str, object]] = {"one": {}, "two": {}}
    for place, (contents, stream, bases) in streams.items():
        name, format = place.split("/")
        packed = lzma.compress(stream)
        path = tmp_path / "vmcores" / name / f"{format}.xz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(packed)
        entries[name][format] = {
            "file": f"{place}.xz",
            "size": len(contents),
            "sha256": hashlib.sha256(packed).hexdigest(),
            **({"base": bases} if bases else {}),
        }
    for name, formats in entries.items():
        index["samples"][name] = {  # type: ignore[index]
            "release": "6.1",
            "formats": formats,
            "vmlinux": entries["one"]["raw"],
        }
    (tmp_path / "vmcores" / "index.json").write_text(json.dumps(index))
    monkeypatch.setenv("DRGN_PMEM_VMCORES", str(tmp_path / "vmcores"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "vmcores"


def change(samples: Path, sample: str, format: str, stream: bytes) -> None:
    """Another packed file, and its digest in the index."""
    packed = lzma.compress(stream)
    (samples / sample / f"{format}.xz").write_bytes(packed)
    index = json.loads((samples / "index.json").read_text())
    entry = index["samples"][sample]["formats"][format]
    entry["sha256"] = hashlib.sha256(packed).hexdigest()
    (samples / "index.json").write_text(json.dumps(index))


def unfinished(samples: Path) -> list[Path]:
    return list((samples.parent / "cache").rglob("*.part"))


def test_a_sample_is_made_out_of_its_bases(samples: Path) -> None:
    path = find_sample("two").dump("elf")
    assert path.read_bytes() == b"firstlast"
    assert find_sample("two").dump("raw").read_bytes() == CONTENTS["two"]
    assert find_sample("two").dump("raw").stat().st_blocks * 512 < len(CONTENTS["two"]) // 4


def test_debug_info_is_a_base_too(samples: Path) -> None:
    """The kernel's read-only data is in vmlinux and in the dump; here vmlinux is one:raw."""
    index = json.loads((samples / "index.json").read_text())
    assert index["samples"]["two"]["vmlinux"]["file"] == "one/raw.xz"
    index["samples"]["two"]["formats"]["raw"]["base"] = ["vmlinux"]
    (samples / "index.json").write_text(json.dumps(index))
    assert find_sample("two").dump("raw").read_bytes() == CONTENTS["two"]
    assert find_sample("two").formats["raw"].depth == 1


def test_debug_info_is_no_base_of_itself(samples: Path) -> None:
    index = json.loads((samples / "index.json").read_text())
    index["samples"]["two"]["vmlinux"]["base"] = ["vmlinux"]
    (samples / "index.json").write_text(json.dumps(index))
    with pytest.raises(FormatError, match="cannot be understood"):
        load_index()


def test_a_made_sample_needs_its_bases_no_more(samples: Path) -> None:
    path = find_sample("two").dump("raw")
    find_sample("one").dump().unlink()
    (samples / "one" / "raw.xz").unlink()
    assert find_sample("two").dump("raw") == path


def test_a_base_made_anew_is_told(samples: Path) -> None:
    change(samples, "one", "raw", CONTENTS["one"].replace(b"\x07", b"\x08"))
    with pytest.raises(DumpFileError, match=r"raw\.xz cannot be unpacked: .* another base"):
        find_sample("two").dump("raw")
    assert unfinished(samples) == []
    assert not list((samples.parent / "cache" / "drgn-pmem" / "two").rglob("raw"))


def test_a_hostile_delta_is_one_line(samples: Path) -> None:
    change(samples, "two", "raw", delta(b"", record(Kind.COPY, 100, 1 << 62)))
    with pytest.raises(DumpFileError, match=r"cannot be unpacked: 100 bytes at 0x40+") as error:
        find_sample("two").dump("raw")
    assert "\n" not in str(error.value)
    assert unfinished(samples) == []


@pytest.mark.parametrize("cut", [0, 40, 100])
def test_a_damaged_delta_is_damage(samples: Path, cut: int) -> None:
    packed = samples / "two" / "raw.xz"
    packed.write_bytes(packed.read_bytes()[:cut])
    with pytest.raises(DumpFileError, match="damaged"):
        find_sample("two").dump("raw")


@pytest.mark.parametrize("base", ["raw", "elf", "two:raw", "three:raw", "one:zlib", 3, ""])
def test_a_base_must_stand_before(samples: Path, base: object) -> None:
    index = json.loads((samples / "index.json").read_text())
    index["samples"]["two"]["formats"]["raw"]["base"] = [base]
    (samples / "index.json").write_text(json.dumps(index))
    with pytest.raises(FormatError, match="cannot be understood"):
        load_index()

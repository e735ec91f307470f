# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What takes bytes or text from anyone, as functions of bytes for a coverage-guided fuzzer, and bytes
to begin with: headers of the samples' own files, and structures as the tests build them.
"""

from collections.abc import Callable, Iterator
import contextlib
from dataclasses import dataclass
import io
import itertools
import os
import struct

from drgn_pmem.errors import PmemError

from .limits import raw_characters

__all__ = ("TARGETS", "Target")

_HEAD = 12 << 10
"""Bytes of a sample's file: its headers."""


@dataclass(frozen=True)
class Target:
    """One reader."""

    run: Callable[[bytes], object]
    """Raises anything but :class:`PmemError` where it fails."""
    seeds: Callable[[], Iterator[bytes]]


def _each(*readers: Callable[[bytes], object]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        for reader in readers:
            with contextlib.suppress(PmemError):
                reader(data)

    return run


def _piece(data: bytes, start: int, size: int) -> bytes | None:
    return data[start : start + size] if 0 <= start <= len(data) else None


def _run_blocks(data: bytes) -> None:
    from drgn_pmem.formats import btt, infoblock, refusal

    def block(data: bytes) -> None:
        found = infoblock.parse_infoblock(data, verify=False)
        list(map(str, refusal.check_infoblock(found, 1 << 32, 1 << 30)))
        infoblock.memmap_size(found)
        infoblock.data_range(found, 1 << 32)
        found.to_json()

    def arena(data: bytes) -> None:
        found = btt.parse_btt(data, verify=False)
        btt.check_btt(found, 1 << 30)
        found.to_json()

    def read(start: int, size: int) -> bytes | None:
        return _piece(data, start, size)

    _each(block, arena, lambda _: btt.walk_btt(read, 1 << 40).to_json())(data)
    for hit in infoblock.find_infoblocks(read, 0, len(data), 4096):
        hit.to_json()


def _block_seeds() -> Iterator[bytes]:
    from drgn_pmem.formats.infoblock import InfoBlock

    from ..builders import build_infoblock

    for signature in ("NVDIMM_PFN_INFO", "NVDIMM_DAX_INFO"):
        yield build_infoblock(
            InfoBlock(
                signature=signature, uuid="0a57c7e2-5b37-4bd1-8a1f-6c3d0c2b9b11",
                parent_uuid="0a57c7e2-5b37-4bd1-8a1f-6c3d0c2b9b11", flags=0, version_major=1,
                version_minor=4, dataoff=1 << 21, npfns=512, mode=2, align=1 << 21,
                page_size=4096, page_struct_size=64,
            )
        )  # fmt: skip
    yield b"BTT_ARENA_INFO\0\0" + bytes(4080)


def _run_labels(data: bytes) -> None:
    from drgn_pmem.formats.label import parse_label
    from drgn_pmem.formats.labelarea import parse_label_area

    _each(lambda d: parse_label(d).to_json(), lambda d: parse_label_area(d).to_json())(data)


def _label_seeds() -> Iterator[bytes]:
    from drgn_pmem.formats.label import EfiLabel

    from ..builders import build_label_area

    label = EfiLabel(
        uuid="0a57c7e2-5b37-4bd1-8a1f-6c3d0c2b9b11", name=b"one", flags=0, nlabel=1, position=0,
        isetcookie=5, lbasize=512, dpa=0, rawsize=1 << 20, slot=0,
    )  # fmt: skip
    yield build_label_area([label], 32 << 10, 128)


def _run_elfcorehdr(data: bytes) -> None:
    from drgn_pmem.formats.elfcompare import compare_elfcorehdr
    from drgn_pmem.formats.elfcorehdr import imply_elfcorehdr, parse_elfcorehdr

    def both(data: bytes) -> None:
        header = parse_elfcorehdr(data)
        header.to_json()
        compare_elfcorehdr(header, imply_elfcorehdr(header, join=True))

    _each(both)(data)


def _run_fadump(data: bytes) -> None:
    from drgn_pmem.formats import fadump, fadump_check, fadump_rtas

    def header(data: bytes) -> None:
        for lenient in (False, True):
            found = fadump.parse_fadump_header(data, lenient=lenient)
            fadump_check.fadump_header_problems(found, 4096)
            found.to_json()

    def memory(data: bytes) -> None:
        fadump_rtas.check_rtas_fadump_mem(fadump_rtas.parse_rtas_fadump_mem(data))

    _each(header, memory)(data)
    list(fadump.find_fadump_headers(lambda a, n: _piece(data, a, n), 0, len(data)))


def _fadump_seeds() -> Iterator[bytes]:
    yield struct.pack("<QQII", 0x4641444D50494E46, 0x1000, 0, 0) + bytes(3000)
    yield struct.pack(">QQII", 0x4641444D50534947, 0x1000, 0, 0) + bytes(3000)
    yield struct.pack(">IHHI", 1, 3, 0, 0) + bytes(500)


def _run_dump(data: bytes) -> None:
    from drgn_pmem.dumpfile import open_dump
    from drgn_pmem.dumpfile.locate import find_vmcoreinfo

    number = os.memfd_create("dump")
    try:
        os.write(number, data)
        with contextlib.suppress(PmemError):
            dump = open_dump(f"/proc/self/fd/{number}")
            for segment in itertools.islice(dump.segments, 100):
                segment.to_json()
            for note in dump.notes[:100]:
                dump.note_data(note)
            for part in dump.coverage.extent()[:50]:
                with contextlib.suppress(PmemError):
                    if dump.memory is not None:
                        dump.memory.read(part.start, 16)
                        dump.memory.read(part.start, min(part.size, 1 << 18))
            find_vmcoreinfo(dump)
            dump.to_json()
    finally:
        os.close(number)


def _seeds_of(*formats: str) -> Callable[[], Iterator[bytes]]:
    """Headers of the samples' own files, and small files of the format."""

    def seeds() -> Iterator[bytes]:
        from ..samples import FLATTENED, Case, samples
        from ..unit.dumpfile.test_hostile import FILES

        first = list(samples().values())[:3]
        dumps = [sample.dump(f) for sample in first for f in sample.formats if f in formats]
        if "flattened" in formats:
            dumps.append(Case(first[0], "lzo" + FLATTENED).dump)
        for path in dumps:
            with open(path, "rb") as file:
                yield file.read(_HEAD)
        kind = {"elf": "elf", "zlib": "kdump", "flattened": "flat"}[formats[0]]
        yield from (data for name, data in FILES.items() if name.startswith(kind))

    return seeds


def _run_vmcoreinfo(data: bytes) -> None:
    from drgn_pmem.dumpfile.vmcoreinfo import Vmcoreinfo

    info = Vmcoreinfo.parse(data)
    info.to_json()
    for name in ("osrelease", "build_id", "page_size", "crash_time", "kernel_offset"):
        getattr(info, name)


def _vmcoreinfo_seeds() -> Iterator[bytes]:
    from ..unit.dumpfile.writers import VMCOREINFO

    yield VMCOREINFO
    yield b"OSRELEASE=6.1\nSYMBOL(a)=ff\nNUMBER(b)=-0x5\nCRASHTIME=1\nKERNELOFFSET=0\n\0X=1"


def _run_delta(data: bytes) -> None:
    from drgn_pmem.shell.delta import read_delta

    base = io.BytesIO(bytes(range(256)) * 64)
    with contextlib.suppress(PmemError):
        made = sum(len(piece) for piece in read_delta(io.BytesIO(data), [base], 1 << 22))
        assert made == 1 << 22


def _delta_seeds() -> Iterator[bytes]:
    from drgn_pmem.shell.delta import MAGIC, RECORD

    head = MAGIC + bytes(32)
    yield head + RECORD.pack(0, 0, 256, 0) + RECORD.pack(1, 0, 1 << 20, 0)
    yield head + RECORD.pack(2, 0, 4, 0) + b"abcd" + RECORD.pack(3, 0, 4, 8) + b"wxyz"


def _run_words(data: bytes) -> None:
    """A command line, as it is typed: parsed, not run."""
    from drgn_pmem.analysis.owners.files import split_offset
    from drgn_pmem.analysis.pages.filter import parse_refcount
    from drgn_pmem.commands import load_commands
    from drgn_pmem.shell.words import words_before
    from drgn_pmem.spec import parse_arguments

    text = data.decode("utf-8", "surrogateescape")
    words = list(words_before(text))
    _each(lambda _: parse_refcount(text), lambda _: split_offset(text))(data)
    commands = load_commands()
    with contextlib.suppress(PmemError), contextlib.redirect_stdout(io.StringIO()):
        parse_arguments(commands[len(data) % len(commands)], words[:8])


def _word_seeds() -> Iterator[bytes]:
    yield from (b"-o a,b -s -pages --limit 3 --json", b"pfn:0x100 phys:0x1000", b"/mnt/a:0x1000")
    yield from (b"'a b' \"c", b"2-5", b"--flags dirty,!locked --refcount 2-", b"pmem0:8+1")


def _run_escape(data: bytes) -> None:
    from drgn_pmem.output.html import page
    from drgn_pmem.output.text import cell, escape, escape_lines

    for text in (data, data.decode("utf-8", "replace")):
        once = escape(text)
        assert not raw_characters(once.replace("\n", "\x01").replace("\t", "\x01"))
        assert escape(once) == once
        assert not raw_characters(cell(text))
    assert not raw_characters(escape_lines(data.decode("latin-1")))
    text = data.decode("latin-1").replace("<", "(")
    assert "<script" not in page("<script" + text, [("<script", text)], [])


def _escape_seeds() -> Iterator[bytes]:
    yield b"\x1b]0;owned\x07\x1b[31mred\x9b2J\xe2\x80\xae\0"
    yield "\u202e\u200b\ufeff<script>&amp;'\"".encode()


TARGETS = {
    "blocks": Target(_run_blocks, _block_seeds),
    "labels": Target(_run_labels, _label_seeds),
    "elfcorehdr": Target(_run_elfcorehdr, _seeds_of("elf")),
    "fadump": Target(_run_fadump, _fadump_seeds),
    "elf": Target(_run_dump, _seeds_of("elf", "qemu-elf")),
    "kdump": Target(_run_dump, _seeds_of("zlib", "lzo")),
    "flattened": Target(_run_dump, _seeds_of("flattened")),
    "vmcoreinfo": Target(_run_vmcoreinfo, _vmcoreinfo_seeds),
    "delta": Target(_run_delta, _delta_seeds),
    "words": Target(_run_words, _word_seeds),
    "escapes": Target(_run_escape, _escape_seeds),
}

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""VMCOREINFO found in memory, and dumps opened with it."""

import drgn
import pytest

from drgn_pmem.dumpfile import coverage_of, dump_of, open_dump
from drgn_pmem.dumpfile.locate import MAX_CANDIDATES, find_vmcoreinfo, search
from drgn_pmem.dumpfile.program import open_program
from drgn_pmem.dumpfile.segments import CHUNK
from drgn_pmem.errors import DumpFileError
from tests.unit.dumpfile import writers
from tests.unit.dumpfile.writers import PAGE, VMCOREINFO, Elf, Kdump, Load, flatten, note

QEMU = note(b"CORE", 1, bytes(336)) + note(b"QEMU", 0, bytes(440))
BIG = note(b"CORE", 1, bytes(504), ">") + note(b"QEMU", 0, bytes(440), ">")
UTS = 0x40000
BASE = 0xFFFFFFFF80000000


def text(
    release: str = "6.1.0-test", crashed: bool = False, extra: bytes = b"", symbol=None
) -> bytes:
    uts = BASE + UTS if symbol is None else symbol
    head = f"OSRELEASE={release}\nPAGESIZE=4096\nSYMBOL(init_uts_ns)={uts:x}\n".encode()
    head += f"SYMBOL(swapper_pg_dir)={BASE + 0x50000:x}\nOFFSET(uts_namespace.name)=0\n".encode()
    head += extra or b"NUMBER(phys_base)=0\nNUMBER(pgtable_l5_enabled)=0\nKERNELOFFSET=0\n"
    return head + (b"CRASHTIME=1700000000\n" if crashed else b"")


def uts(release: str = "6.1.0-test") -> bytes:
    names = ["Linux", "node", release, "#1", "x86_64", "(none)"]
    return b"".join(name.encode().ljust(65, b"\0") for name in names)


def memory(size: int, *parts: tuple[int, bytes]) -> bytes:
    data = bytearray(size)
    for at, part in parts:
        data[at : at + len(part)] = part
    return bytes(data[:size])


def guest(path, *parts, size=0x80000, order="<", machine="x86_64", notes=QEMU, flags=0):
    """A dump with no VMCOREINFO note: a page at 4 GiB, memory from 0."""
    data = memory(size, *parts)
    loads = [Load(0, size, data, flags=flags), Load(1 << 32, PAGE, bytes(PAGE))]
    return Elf(loads, notes, order=order, machine=machine).write(path / "guest")


def in_memory(info: bytes, order: str = "<") -> bytes:
    return note(b"VMCOREINFO", 0, info, order)


@pytest.mark.parametrize("at", [0, 0x1000, 0x1004, 0x20000, 0x7F000])
def test_the_note_is_found_wherever_it_is(tmp_path, at):
    found = find_vmcoreinfo(open_dump(guest(tmp_path, (at, in_memory(text())), (UTS, uts()))))
    assert (found.address, found.text, found.verified) == (at, text(), True)
    assert found.to_json() == {
        "address": hex(at),
        "size": len(text()),
        "osrelease": "6.1.0-test",
        "verified": True,
    }


@pytest.mark.parametrize("shift", [0, 4, 12, 16, 20, 24, 28])
def test_a_note_across_two_pieces_is_found(tmp_path, shift):
    at = CHUNK - shift
    path = guest(tmp_path, (at, in_memory(text())), (UTS, uts()), size=CHUNK + 0x4000)
    assert [item.address for item in search(open_dump(path))] == [at]


def test_the_note_that_describes_the_kernel_in_memory_is_preferred(tmp_path):
    stale = text("5.4.0-old", crashed=True, extra=b"NUMBER(phys_base)=0\n" + b"X=1\n" * 40)
    path = guest(tmp_path, (0x1000, in_memory(stale)), (0x9000, in_memory(text())), (UTS, uts()))
    found = find_vmcoreinfo(open_dump(path))
    assert (found.address, found.verified) == (0x9000, True)


def test_of_notes_that_cannot_be_verified_the_one_of_a_crash_then_the_longest(tmp_path):
    long = text("5.4.0", extra=b"NUMBER(phys_base)=0\n" + b"X=1\n" * 40)
    crash = text("5.5.0", crashed=True)
    parts = [(0x1000, in_memory(text())), (0x3000, in_memory(long))]
    found = find_vmcoreinfo(open_dump(guest(tmp_path, *parts)))
    assert (found.address, found.verified) == (0x3000, False)
    found = find_vmcoreinfo(open_dump(guest(tmp_path, *parts, (0x6000, in_memory(crash)))))
    assert (found.address, found.verified) == (0x6000, False)


@pytest.mark.parametrize(
    ("order", "machine", "extra", "symbol"),
    [
        ("<", "aarch64", b"NUMBER(kimage_voffset)=0xffff800008000000\n", 0xFFFF800008000000 + UTS),
        ("<", "ppc64", b"SYMBOL(vmemmap_list)=c000000000000000\n", 0xC000000000000000 + UTS),
        (">", "ppc64", b"SYMBOL(vmemmap_list)=c000000000000000\n", 0xC000000000000000 + UTS),
        ("<", "x86_64", b"NUMBER(phys_base)=-4096\n", BASE + UTS + 4096),
    ],
)
def test_verified_on_each_machine(tmp_path, order, machine, extra, symbol):
    info = text(extra=extra, symbol=symbol)
    parts = [(0x2000, in_memory(info, order)), (UTS, uts())]
    dump = open_dump(guest(tmp_path, *parts, order=order, machine=machine))
    assert find_vmcoreinfo(dump).verified
    dump = open_dump(guest(tmp_path, parts[0], (UTS, uts("6.9.9")), order=order, machine=machine))
    assert not find_vmcoreinfo(dump).verified


@pytest.mark.parametrize(
    "fake",
    [
        b"VMCOREINFO\0\0",
        in_memory(b"x" * 80),
        in_memory(text().replace(b"PAGESIZE", b"PAGESIGH")),
        in_memory(text().replace(b"PAGESIZE=4096", b"PAGESIZE=none")),
        in_memory(text())[1:],
        in_memory(text())[:4] + b"\xff\xff\xff\x7f" + in_memory(text())[8:],
        in_memory(text())[:4] + b"\x02\0\0\0" + in_memory(text())[8:],
        in_memory(text(), ">"),
    ],
)
def test_what_only_looks_like_a_note_is_not_taken(tmp_path, fake):
    path = guest(tmp_path, (0x1000, fake), (UTS, uts()))
    assert find_vmcoreinfo(open_dump(path)) is None
    with pytest.raises(DumpFileError, match=r"no VMCOREINFO note.*--vmcoreinfo"):
        open_program(path)


def test_a_note_whose_text_is_not_saved_is_not_taken(tmp_path):
    data = memory(0x1000, (0xFF0, in_memory(text())))
    path = Elf([Load(0, 0x2000, data), Load(1 << 32, PAGE, bytes(PAGE))], QEMU).write(
        tmp_path / "guest"
    )
    assert find_vmcoreinfo(open_dump(path)) is None


def test_a_saved_dump_on_pmem_comes_last(tmp_path):
    pmem = memory(0x4000, (0x1000, in_memory(text("5.0.0", crashed=True))))
    ram = memory(0x4000, (0x1000, in_memory(text())))
    loads = [Load(0, 0x4000, pmem, flags=0x10), Load(0x100000, 0x4000, ram)]
    dump = open_dump(Elf(loads, QEMU).write(tmp_path / "guest"))
    assert [item.address for item in search(dump)] == [0x101000, 0x1000]


def test_the_search_is_bounded(tmp_path):
    size = 2 * MAX_CANDIDATES * 0x200
    parts = [(at, in_memory(text())) for at in range(0, size, 0x200)]
    dump = open_dump(guest(tmp_path, *parts, size=size))
    assert len(list(search(dump))) == MAX_CANDIDATES
    far = guest(tmp_path, (3 * CHUNK, in_memory(text())), (UTS, uts()), size=4 * CHUNK)
    assert list(search(open_dump(far), limit=CHUNK)) == []
    assert len(list(search(open_dump(far)))) == 1


def test_a_guest_without_the_note_opens(tmp_path):
    path = guest(tmp_path, (0x2000, in_memory(text())), (UTS, uts()))
    prog, lines = open_program(path)
    assert prog["VMCOREINFO"].string_() == text()
    assert prog["UTS_RELEASE"].string_() == b"6.1.0-test"
    assert prog.flags == drgn.ProgramFlags.IS_LINUX_KERNEL
    assert len(lines) == 1
    assert "using the one in memory at 0x2000 (Linux 6.1.0-test)" in lines[0]
    assert prog.read(UTS, 5, physical=True) == b"Linux"
    assert dump_of(prog).path == str(path)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_guest_with_one_segment_at_0_opens(tmp_path, order):
    info = text(extra=b"SYMBOL(vmemmap_list)=c000000000000000\n", symbol=0xC000000000000000 + UTS)
    data = memory(0x80000, (0x2000, in_memory(info, order)), (UTS, uts()))
    elf = Elf([Load(0, 0x90000, data)], BIG if order == ">" else QEMU, order=order, machine="ppc64")
    path = elf.write(tmp_path / "guest")
    prog, lines = open_program(path)
    assert prog.platform.arch is drgn.Architecture.PPC64
    assert len(lines) == 2
    assert "the only segment begins at physical address 0" in lines[1]
    assert prog.read(UTS, 5, physical=True) == b"Linux"
    assert prog.read(0x7FFFF, 1, physical=True) == b"\0"
    assert coverage_of(prog).saved(0, 0x80000)
    # More honest than drgn, which reads zeroes here.
    for address in (0x80000, 0x90000):
        with pytest.raises(drgn.FaultError):
            prog.read(address, 1, physical=True)


@pytest.mark.parametrize("second", [0x100000, 1 << 32])
def test_a_guest_of_power_with_several_segments_has_its_linear_mapping(tmp_path, second):
    """QEMU's dump of a hash guest with NVDIMMs: every command ended in NotImplementedError."""
    linear = 0xC000000000000000
    info = text(extra=b"SYMBOL(vmemmap_list)=c000000000000000\n", symbol=linear + UTS)
    data = memory(0x80000, (0x2000, in_memory(info, ">")), (UTS, uts()))
    loads = [Load(0, len(data), data), Load(second, PAGE, b"\x5a" * PAGE)]
    prog, _ = open_program(Elf(loads, BIG, order=">", machine="ppc64").write(tmp_path / "guest"))
    for base, physical in ((0, True), (linear, False)):
        assert prog.read(base + UTS, 5, physical) == b"Linux"
        assert prog.read(base + second, 4, physical) == b"\x5a" * 4


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("status", [1, 2])
def test_a_kdump_form_that_names_neither_kernel_nor_machine_opens(
    tmp_path, monkeypatch, flat, status
):
    content = {2: in_memory(text()).ljust(PAGE, b"\0"), UTS // PAGE: uts().ljust(PAGE, b"\0")}
    monkeypatch.setattr(writers, "page_bytes", lambda pfn, size=PAGE: content.get(pfn, bytes(size)))
    kdump = Kdump(
        set(range(128)),
        set(range(128)),
        128,
        sysname="",
        vmcoreinfo=None,
        status=status,
        stored=status == 2,
    )
    path = tmp_path / "guest"
    path.write_bytes(flatten(kdump.bytes()) if flat else kdump.bytes())
    prog, lines = open_program(path)
    assert prog["VMCOREINFO"].string_() == text()
    assert prog.platform.arch is drgn.Architecture.X86_64
    assert prog.read(UTS, 5, physical=True) == b"Linux"
    assert ["VMCOREINFO" in line for line in lines] == [True, False]
    assert "taken as X86_64" in lines[1]


def test_a_text_given_by_the_user_is_used_without_a_search(tmp_path):
    path = guest(tmp_path, (0x2000, in_memory(text())), (UTS, uts()))
    given = text(crashed=True)
    prog, lines = open_program(path, vmcoreinfo=given)
    assert prog["VMCOREINFO"].string_() == given
    assert lines == []


@pytest.mark.parametrize("phys_base", [b"2097152", b"4096", b"-4096"])
@pytest.mark.parametrize("given", [True, False])
def test_a_text_that_does_not_fit_the_memory_gives_way_to_the_one_in_memory(
    tmp_path, phys_base, given
):
    wrong = text(crashed=True).replace(b"phys_base)=0", b"phys_base)=" + phys_base)
    notes = QEMU if given else QEMU + in_memory(wrong)
    path = guest(tmp_path, (0x2000, in_memory(text())), (UTS, uts()), notes=notes)
    prog, lines = open_program(path, vmcoreinfo=wrong if given else None)
    assert prog["VMCOREINFO"].string_() == text()
    what = "vmcoreinfo that was given" if given else "VMCOREINFO note"
    assert len(lines) == 1
    assert f"the {what} (Linux 6.1.0-test) does not fit this memory; using the one" in lines[0]
    path = guest(tmp_path, (UTS, uts()), notes=notes)
    prog, lines = open_program(path, vmcoreinfo=wrong if given else None)
    assert prog["VMCOREINFO"].string_() == wrong
    # 2 MiB up there is no memory: nothing shows that the text is wrong.
    assert ["memory holds none that does" in line for line in lines] == (
        [] if phys_base == b"2097152" else [True]
    )


@pytest.mark.parametrize(
    ("part", "damage"), [(b"OSRELEASE=", "OSRELEASE"), (b"PAGESIZE=4096", "PAGESIZE")]
)
def test_a_note_that_drgn_refuses_gives_way_to_the_one_in_memory(tmp_path, part, damage):
    wrong = text().replace(part, b"#" * len(part))
    notes = QEMU + in_memory(wrong)
    path = guest(tmp_path, (0x2000, in_memory(text())), (UTS, uts()), notes=notes)
    prog, lines = open_program(path)
    assert prog["VMCOREINFO"].string_() == text()
    (line,) = lines
    assert f"the VMCOREINFO note is damaged: it has no valid {damage}; using the one" in line
    with pytest.raises(DumpFileError, match=f"does not contain valid {damage}"):
        open_program(guest(tmp_path, (UTS, uts()), notes=notes))


def test_a_note_without_the_padding_of_its_end_is_found(tmp_path):
    """drgn does not find it, and takes the dump for the core of a process."""
    info = text() + b"X=1\n"
    info += b"#" * (1 - len(info) % 4 + (4 if len(info) % 4 > 1 else 0))
    assert len(info) % 4 == 1
    unpadded = in_memory(info)[:-3]
    assert unpadded.endswith(info[-8:])
    path = guest(tmp_path, (UTS, uts()), notes=QEMU + unpadded)
    prog, lines = open_program(path)
    assert prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL
    assert prog["VMCOREINFO"].string_() == info
    assert lines == []


def test_an_architecture_given_by_the_user_is_used(tmp_path):
    kdump = Kdump({1}, {1}, 100, sysname="", machine="", vmcoreinfo=VMCOREINFO)
    kdump.vmcoreinfo = VMCOREINFO.replace(b"phys_base", b"other")
    path = kdump.write(tmp_path / "guest")
    with pytest.raises(DumpFileError, match="give it with --architecture"):
        open_program(path)
    prog, lines = open_program(path, architecture=drgn.Architecture.X86_64)
    assert prog.platform.arch is drgn.Architecture.X86_64
    assert lines == []


def test_a_text_that_drgn_cannot_use_is_one_line(tmp_path):
    path = guest(tmp_path, (UTS, uts()))
    with pytest.raises(DumpFileError, match="VMCOREINFO does not contain"):
        open_program(path, vmcoreinfo=b"OSRELEASE=6.1\nPAGESIZE=4096\n")


def test_an_ordinary_dump_opens_without_a_word(tmp_path):
    for path in (
        Elf([Load(0x1000, PAGE, bytes(PAGE))], in_memory(VMCOREINFO)).write(tmp_path / "a"),
        Kdump({1}, {1}, 100).write(tmp_path / "b"),
    ):
        prog, lines = open_program(path)
        assert prog["VMCOREINFO"].string_() == VMCOREINFO
        assert lines == []


def test_a_dump_cut_short_says_so(tmp_path):
    path = tmp_path / "vmcore"
    path.write_bytes(Elf([Load(0x1000, PAGE, bytes(PAGE))], in_memory(VMCOREINFO)).bytes()[:-100])
    _, lines = open_program(path)
    assert len(lines) == 1
    assert "truncated" in lines[0]


def test_what_drgn_refuses_is_one_line(tmp_path):
    path = tmp_path / "vmcore"
    path.write_bytes(flatten(Kdump({1}, {1}, 100).bytes())[:-16])
    prog, lines = open_program(path)
    assert prog.read(PAGE, PAGE, True) == writers.page_bytes(1)
    assert any("cut short" in line for line in lines)
    process = Elf([Load(0, PAGE, bytes(PAGE)), Load(0, PAGE, bytes(PAGE))]).write(tmp_path / "p")
    with pytest.raises(DumpFileError, match="core of a process"):
        open_program(process)
    with pytest.raises(DumpFileError, match="no such file"):
        open_program(tmp_path / "missing")

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
VMCOREINFO that does not belong to the memory of the dump: a hypervisor's wrong note, phys_base
2 MiB off, KERNELOFFSET zero, the text of another boot. The right one is found in memory or, if
there is none, nothing is answered that needs an address translated; and never "unmapped".
"""

import os
from pathlib import Path
import re
import subprocess
import sys

import pytest

import drgn_pmem
from drgn_pmem.dumpfile import open_dump
from drgn_pmem.dumpfile.program import open_program
from drgn_pmem.errors import PmemError
from drgn_pmem.kernel.pagetable import for_each_extent
from drgn_pmem.kernel.root import Verdict, refuse_unfit, root_of
from drgn_pmem.partial import State
from tests.samples import Case, run_answer, run_json, samples

MiB2 = 0x200000


def shifted(text: bytes, key: bytes, by: int) -> bytes:
    """A NUMBER of vmcoreinfo changed by so much, the length of the text kept."""
    found = re.search(rb"NUMBER\(" + key + rb"\)=(-?(?:0x)?[0-9a-f]+)", text)
    assert found is not None
    value = int(found[1], 0) + by
    new = b"%#x" % value if found[1].startswith(b"0x") else b"%d" % value
    return text[: found.start(1)] + new.rjust(len(found[1]), b"0") + text[found.end(1) :]


def other_boot(text: bytes) -> bytes:
    """Another boot of the same build: every symbol and the image are elsewhere."""

    def moved(match: "re.Match[bytes]") -> bytes:
        return b"SYMBOL(%s)=%x" % (match[1], (int(match[2], 16) + 0x4000000) % (1 << 64))

    offset = re.search(rb"KERNELOFFSET=([0-9a-f]+)", text)
    assert offset is not None
    text = text.replace(offset[0], b"KERNELOFFSET=%x" % (int(offset[1], 16) + 0x4000000))
    return re.sub(rb"SYMBOL\((\w+)\)=([0-9a-f]+)", moved, text)


def damaged(text: bytes, machine: str) -> bytes:
    """2 MiB off."""
    if machine == "x86_64":
        return shifted(text, b"phys_base", MiB2)
    return shifted(text, b"kimage_voffset", MiB2)


class Patched:
    """A copy of a sample's dump whose holes stay holes."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.path = folder / source.name
        subprocess.run(
            ["cp", "--reflink=auto", "--sparse=always", os.fspath(source), os.fspath(self.path)],
            check=True,
        )

    def note(self, change: "object") -> None:
        """Change the text of the VMCOREINFO note."""
        dump = open_dump(self.path)
        note = next(item for item in dump.notes if item.name == b"VMCOREINFO")
        old = dump.note_data(note)
        new = change(old.rstrip(b"\0"))  # type: ignore[operator]
        assert len(new) <= len(old)
        with self.path.open("r+b") as file:
            file.seek(note.offset)
            file.write(new.ljust(len(old), b"\0"))

    def forget_memory(self) -> None:
        """Overwrite every note that memory holds."""
        dump = open_dump(self.path)
        kept = {note.offset for note in dump.notes}
        assert dump.memory is not None
        with self.path.open("r+b") as file:
            data = file.read()
            for match in re.finditer(rb"VMCOREINFO\0.{1,16}OSRELEASE=", data, re.DOTALL):
                if not any(match.start() <= at <= match.end() for at in kept):
                    file.seek(match.start())
                    file.write(b"overwritten")


CASES = [
    pytest.param("6.1-fileload", "elf", id="x86_64"),
    pytest.param("arm64-6.12", "elf", id="arm64"),
]


def test_the_samples_fit() -> None:
    for sample in samples().values():
        prog = open_program(sample.dump(next(iter(sample.formats))))[0]
        assert root_of(prog).verdict is Verdict.VERIFIED
        assert refuse_unfit(prog) is None


@pytest.mark.parametrize(("name", "format"), CASES)
@pytest.mark.parametrize("way", ["2 MiB off", "another boot"])
def test_a_wrong_note_is_replaced_by_the_one_in_memory(
    tmp_path: Path, name: str, format: str, way: str
) -> None:
    sample = samples()[name]
    case = Case(sample, format)
    patched = Patched(tmp_path, sample.dump(format))
    machine = sample.architecture
    patched.note(other_boot if way == "another boot" else lambda text: damaged(text, machine))
    prog, lines = open_program(patched.path)
    assert len(lines) == 1
    assert re.search(r"VMCOREINFO note .* does not fit this memory; using the one in", lines[0])
    assert root_of(prog).verdict is Verdict.VERIFIED
    prog = drgn_pmem.open(
        patched.path,
        sample.debug_info(),
        debug_directories=sample.debug_directories,
        kernel_directories=sample.kernel_directories,
    )
    assert run_json(prog, "pmem-memmap") == case.json("pmem-memmap")


@pytest.mark.parametrize(("name", "format"), CASES)
def test_without_a_right_note_nothing_is_translated(
    tmp_path: Path, name: str, format: str, caplog: pytest.LogCaptureFixture
) -> None:
    sample = samples()[name]
    patched = Patched(tmp_path, sample.dump(format))
    patched.note(lambda text: damaged(text, sample.architecture))
    patched.forget_memory()
    prog = drgn_pmem.open(
        patched.path,
        sample.debug_info(),
        debug_directories=sample.debug_directories,
        kernel_directories=sample.kernel_directories,
    )
    assert "memory holds none that does" in caplog.text
    nothing_is_translated(prog)
    # What needs no translation is answered.
    assert run_json(prog, "pmem-segments") != []


def without_legend(text: str) -> str:
    return re.sub(r"[¿?] unmapped", "", text)


def nothing_is_translated(prog: "object") -> None:
    start = 0xFFFFEA0000000000
    (extent,) = for_each_extent(prog, start, start + (1 << 30))  # type: ignore[arg-type]
    assert extent.state is State.UNKNOWN
    assert "does not fit this memory" in (extent.reason or "")
    for command in ("pmem-coverage", "pmem-memmap", "pmem-pages", "pmem-list", "pmem-files"):
        try:
            answer, out, notes = run_answer(prog, command)  # type: ignore[arg-type]
        except PmemError as error:
            out, notes = "", str(error)
        else:
            assert answer is not None
            assert not answer.whole, (command, out, notes)
        assert "does not fit this memory" in notes + out, (command, out, notes)
        assert "not in use" not in out, command
        assert "unmapped" not in without_legend(out), command


@pytest.mark.parametrize(("name", "format"), CASES)
def test_the_text_of_another_boot_given_by_the_user(
    tmp_path: Path, name: str, format: str, caplog: pytest.LogCaptureFixture
) -> None:
    sample = samples()[name]
    text = open_dump(sample.dump(format)).vmcoreinfo
    assert text is not None
    file = tmp_path / "vmcoreinfo"
    file.write_bytes(other_boot(text))
    prog = drgn_pmem.open(
        sample.dump(format),
        sample.debug_info(),
        debug_directories=sample.debug_directories,
        kernel_directories=sample.kernel_directories,
        vmcoreinfo=file,
    )
    assert "the vmcoreinfo that was given" in caplog.text
    assert root_of(prog).verdict is Verdict.VERIFIED


def test_ppc64_text_of_a_boot_with_the_other_mmu(tmp_path: Path) -> None:
    for name in ("ppc64le-6.12", "ppc64le-6.12-hash"):
        sample = samples()[name]
        path = sample.dump("raw")
        text = open_dump(path).vmcoreinfo
        assert text is not None
        wrong = re.sub(
            rb"(RADIX_MMU\)=)(\d)", lambda m: m[1] + (b"0" if m[2] == b"1" else b"1"), text
        )
        assert wrong != text
        prog, _ = open_program(path, vmcoreinfo=wrong)
        assert root_of(prog).verdict is Verdict.WRONG
        (extent,) = for_each_extent(prog, 0xC00C000000000000, 0xC00C000010000000)
        assert extent.state is State.UNKNOWN


@pytest.mark.parametrize(("name", "format"), CASES)
def test_kernel_offset_zero_is_corrected_by_the_debug_info(
    tmp_path: Path, name: str, format: str, caplog: pytest.LogCaptureFixture
) -> None:
    sample = samples()[name]
    patched = Patched(tmp_path, sample.dump(format))
    patched.note(lambda text: re.sub(rb"KERNELOFFSET=[0-9a-f]+", b"KERNELOFFSET=0", text))
    prog = drgn_pmem.open(
        patched.path,
        sample.debug_info(),
        debug_directories=sample.debug_directories,
        kernel_directories=sample.kernel_directories,
    )
    assert "KERNELOFFSET of vmcoreinfo (0) does not fit this memory" in caplog.text
    assert prog["init_uts_ns"].name.sysname.string_() == b"Linux"
    assert run_json(prog, "pmem-memmap") == Case(sample, format).json("pmem-memmap")


@pytest.mark.parametrize("way", ["2 MiB off", "KERNELOFFSET zero"])
def test_drgn_itself_with_the_plugin(tmp_path: Path, way: str) -> None:
    """drgn has been set up with the wrong note: say so, and answer nothing that is translated."""
    sample = samples()["6.1-fileload"]
    patched = Patched(tmp_path, sample.dump("elf"))
    if way == "2 MiB off":
        patched.note(lambda text: damaged(text, "x86_64"))
    else:
        patched.note(lambda text: re.sub(rb"KERNELOFFSET=[0-9a-f]+", b"KERNELOFFSET=0", text))
    code = (
        "import drgn, sys\n"
        "from drgn_pmem.spec import run, SPECS\n"
        "from drgn_pmem.commands import load_commands\n"
        "load_commands()\n"
        f"prog = drgn.program_from_core_dump({os.fspath(patched.path)!r})\n"
        f"prog.load_debug_info({[os.fspath(f) for f in sample.debug_info()]!r})\n"
        "for name in ('pmem-memmap', 'pmem-coverage'):\n"
        "    try:\n"
        "        print(run(SPECS[name], prog, []).whole)\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__, error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    out = result.stdout + result.stderr
    assert "does not fit this memory" in out
    assert "unmapped" not in without_legend(out)
    assert "not in use" not in out
    assert "True\n" not in result.stdout

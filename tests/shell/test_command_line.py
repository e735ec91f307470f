# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``drgn-pmem -c VMCORE COMMAND``: answers, exit status, and one line for what is wrong."""

import json
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import time

import pytest

from drgn_pmem.errors import UsageError
from drgn_pmem.shell import cli, options

Dump = tuple[str, str]

SLEEP = "import time; print('ready', flush=True); time.sleep(60)"


def one_line(result: "subprocess.CompletedProcess[str]", status: int) -> str:
    """The only line of standard error, after checking that it is one and the exit status."""
    assert result.returncode == status, result.stderr
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("drgn-pmem: ")
    return lines[0].removeprefix("drgn-pmem: ")


def test_a_command_answers_and_exits_0(drgn_pmem, dump: Dump, sample) -> None:
    result = drgn_pmem("-c", dump[0], "-s", dump[1], "pmem-namespaces", "--json")
    assert result.returncode == 0
    # Of a complete answer, only why namespaces are raw or disabled.
    assert all(re.match(r"note: namespace\d", line) for line in result.stderr.splitlines())
    names = {entry["dev"] for entry in json.loads(result.stdout)}
    truth = (sample.truth / "ndctl.json").read_text()
    assert names <= set(re.findall(r'"dev":\s*"(namespace\d+\.\d+)"', truth))
    assert len(names) >= 5


def test_the_sample_needs_no_path(drgn_pmem, dump: Dump, sample) -> None:
    expected = drgn_pmem("-c", dump[0], "-s", dump[1], "pmem-list", "-H")
    for arguments in (["--sample"], ["--sample", sample.name], [f"--sample={sample.name}", "-q"]):
        result = drgn_pmem(*arguments, "pmem-list", "-H")
        assert (result.returncode, result.stdout) == (0, expected.stdout)


def test_help_needs_no_dump_where_one_is_named(sample, capsys) -> None:
    helps = []
    for words in (["help"], ["--sample", sample.name, "help"], ["--sample", "help"],
                  ["-c", "/none", "help"]):  # fmt: skip
        assert cli._main(words) == 0
        helps.append(capsys.readouterr().out)
    assert "pmem-rmap" in helps[0]
    assert helps[1:] == helps[:1] * 3
    assert cli._main(["--sample", sample.name, "help", "pmem-list"]) == 0
    assert capsys.readouterr().out.startswith("usage: pmem-list")


def test_every_format_of_the_sample_can_be_named(drgn_pmem, sample) -> None:
    small = [format for format, file in sample.formats.items() if file.size < 50 << 20]
    assert len(small) > 1
    for format in small[:2]:
        result = drgn_pmem("--sample", f"{sample.name}:{format}", "pmem-list", "-H")
        assert result.returncode == 0, result.stderr
        assert "namespace1.0" in result.stdout
    assert "has no format 'tar'" in one_line(
        drgn_pmem("--sample", f"{sample.name}:tar", "pmem-list"), 1
    )


def test_an_unknown_sample_lists_the_known_ones(drgn_pmem, sample) -> None:
    message = one_line(drgn_pmem("--sample", sample.name[:-1], "pmem-list"), 2)
    assert f"did you mean {sample.name}" in message


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (None, "No such file"),
        ("directory", "is a directory"),
        (b"", "is empty"),
        (b"hello\n" * 100, "not a dump"),
        ("elf", "not a dump: a program"),
        ("truncated", ""),
    ],
)
def test_a_file_that_is_no_dump_is_one_line(
    drgn_pmem, tmp_path: Path, dump: Dump, contents: object, message: str
) -> None:
    path = tmp_path / "vmcore"
    if contents == "directory":
        path.mkdir()
    elif contents == "elf":
        path = Path(sys.executable).resolve()
    elif contents == "truncated":
        with open(dump[0], "rb") as file:
            path.write_bytes(file.read(1024))
    elif isinstance(contents, bytes):
        path.write_bytes(contents)
    line = one_line(drgn_pmem("-c", str(path), "pmem-list"), 1)
    assert str(path) in line
    assert message in line


def test_a_vmlinux_of_another_build_is_one_line_with_both_build_ids(
    drgn_pmem, dump: Dump, tmp_path: Path
) -> None:
    from drgn_pmem.formats.build_id import build_id_of_file

    right, _ = build_id_of_file(dump[1])
    assert right is not None
    data = Path(dump[1]).read_bytes()
    wrong = bytes([data[0]]) + data[1:].replace(bytes.fromhex(right), bytes(20))
    path = tmp_path / "vmlinux"
    path.write_bytes(wrong)
    line = one_line(drgn_pmem("-c", dump[0], "-s", str(path), "pmem-list"), 1)
    assert right in line
    assert "00" * 20 in line


def test_symbols_that_are_no_elf_file_are_one_line(drgn_pmem, dump: Dump, tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_text("not ELF")
    line = one_line(drgn_pmem("-c", dump[0], "-s", str(path), "pmem-list"), 1)
    assert "is not an ELF file" in line


def test_no_vmlinux_is_one_line_that_says_what_to_load(drgn_pmem, dump: Dump) -> None:
    line = one_line(drgn_pmem("-c", dump[0], "--no-default-symbols", "pmem-list"), 1)
    assert "debug info" in line


def test_wrong_usage_exits_2_before_anything_is_opened(drgn_pmem, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    assert "did you mean pmem-list" in one_line(drgn_pmem("-c", missing, "pmem-lst"), 2)
    assert "--jsn" in one_line(drgn_pmem("-c", missing, "pmem-list", "--jsn"), 2)
    assert "-c VMCORE" in one_line(drgn_pmem("pmem-list"), 2)
    assert "not allowed with" in one_line(drgn_pmem("-c", missing, "-k", "pmem-list"), 2)


def test_a_dump_where_a_command_belongs_is_told(drgn_pmem, dump: Dump) -> None:
    assert f"did you mean -c {dump[0]}" in one_line(drgn_pmem(dump[0]), 2)


def test_help_needs_no_dump(drgn_pmem) -> None:
    assert "usage: pmem-list" in drgn_pmem("pmem-list", "-h").stdout
    assert "usage: pmem-list" in drgn_pmem("help", "pmem-list").stdout
    assert "pmem-namespaces" in drgn_pmem("help").stdout
    assert "--no-default-debug-link-directories" in drgn_pmem("--help").stdout
    assert "drgn 0." in drgn_pmem("--version").stdout


def test_an_option_of_a_field_that_does_not_exist_exits_2(drgn_pmem, dump: Dump) -> None:
    result = drgn_pmem("-c", dump[0], "-s", dump[1], "pmem-list", "-o", "nonsense")
    assert "no field 'nonsense'" in one_line(result, 2)


def test_commands_of_drgn_run_too(drgn_pmem, dump: Dump) -> None:
    result = drgn_pmem("-c", dump[0], "-s", dump[1], "crash", "sys")
    assert result.returncode == 0, result.stderr
    assert "RELEASE: " in result.stdout


def test_a_reader_that_leaves_early_is_no_error(dump: Dump) -> None:
    # Far more text than a pipe holds, read by someone who takes a line.
    command = (
        f"{sys.executable} -m drgn_pmem -c {dump[0]} -s {dump[1]} -e 'print(\"x\\n\" * 10**6)'"
    )
    result = subprocess.run(
        ["bash", "-c", f"{command} | head -n 1; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.stdout == f"x\n{128 + signal.SIGPIPE}\n"
    assert result.stderr == ""


def test_ctrl_c_is_quiet(dump: Dump) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "drgn_pmem", "-c", dump[0], "-s", dump[1], "-e", SLEEP],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    start = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert errors == ""
    assert time.monotonic() - start < 30


def test_options_have_drgns_names_and_meanings() -> None:
    """Every debug info option of drgn's own parser is one of ours."""
    import argparse
    import importlib
    from unittest import mock

    cli = importlib.import_module("drgn.cli")
    parsers: list[argparse.ArgumentParser] = []

    class Stop(Exception):
        pass

    def capture(self: argparse.ArgumentParser, *args: object) -> None:
        parsers.append(self)
        raise Stop

    with mock.patch.object(argparse.ArgumentParser, "parse_args", capture), pytest.raises(Stop):
        cli._main()
    ours = {option for action in options.make_parser()._actions for option in action.option_strings}
    theirs = {option for action in parsers[0]._actions for option in action.option_strings}
    # A process is not what this program is about.
    assert theirs - ours == {"-p", "--pid"}


def test_symbols_by_takes_what_drgn_takes() -> None:
    parsed = options.parse(["-c", "x", "--try-symbols-by", "build-id,kmod=walk,debuginfod"])
    assert parsed.debug_info_options["try_build_id"] is True
    assert parsed.debug_info_options["try_kmod"].name == "WALK"
    assert parsed.finders == {"debuginfod": True}
    parsed = options.parse(["-c", "x", "--no-symbols-by", "kmod,standard"])
    assert parsed.debug_info_options["try_kmod"].name == "NONE"
    assert parsed.finders == {"standard": False}
    with pytest.raises(UsageError, match="invalid option"):
        options.parse(["--no-symbols-by", "kmod=walk"])


def test_directories_come_before_the_default_ones_or_instead() -> None:
    import drgn

    prog = drgn.Program()
    default = prog.debug_info_options.directories
    parsed = options.parse(["--debug-directory", "/a", "--debug-directory", "/b"])
    assert options.apply_debug_info_options(prog, parsed) == []
    assert prog.debug_info_options.directories == ("/a", "/b", *default)
    prog = drgn.Program()
    parsed = options.parse(["--kernel-directory", "/k", "--no-default-kernel-directories"])
    options.apply_debug_info_options(prog, parsed)
    assert prog.debug_info_options.kernel_directories == ("/k",)


def test_a_finder_that_does_not_exist_is_told(drgn_pmem, dump: Dump) -> None:
    result = drgn_pmem("-c", dump[0], "--try-symbols-by", "magic", "pmem-list")
    assert "'magic'" in one_line(result, 2)


def test_build_ids_are_those_that_pyelftools_reads(dump: Dump) -> None:
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import NoteSection

    from drgn_pmem.formats.build_id import build_id_of_file

    for path in (dump[1], "/bin/sh", str(Path(sys.executable).resolve())):
        with open(path, "rb") as file:
            notes = [
                note["n_desc"]
                for section in ELFFile(file).iter_sections()
                if isinstance(section, NoteSection)
                for note in section.iter_notes()
                if note["n_type"] == "NT_GNU_BUILD_ID"
            ]
        assert build_id_of_file(path) == (notes[0] if notes else None, False)


def test_a_damaged_file_of_symbols_is_told(dump: Dump, tmp_path: Path) -> None:
    from drgn_pmem.errors import DumpFileError
    from drgn_pmem.formats.build_id import build_id_of_file

    with open(dump[1], "rb") as file:
        start = file.read(4096)
    path = tmp_path / "vmlinux"
    for size in (4, 19, 40, 64, 4096):
        path.write_bytes(start[:size])
        with pytest.raises(DumpFileError, match="vmlinux is"):
            build_id_of_file(path)


def test_every_readable_sample_opens_as_the_program_of_the_library_does(dump: Dump) -> None:
    """The quick way to open the usual dump gives what the thorough one gives."""
    from drgn_pmem.dumpfile.program import open_program
    from drgn_pmem.formats.elfcore import is_whole_elf
    from drgn_pmem.session import _open_plainly

    assert is_whole_elf(dump[0])
    quick = _open_plainly(dump[0])
    thorough, notes = open_program(dump[0])
    assert quick is not None
    assert notes == []
    assert quick["VMCOREINFO"].string_() == thorough["VMCOREINFO"].string_()
    assert (quick.flags, quick.platform) == (thorough.flags, thorough.platform)
    assert not is_whole_elf("/bin/sh")


def test_an_elf_header_whose_table_is_beyond_any_file_is_one_line(
    drgn_pmem, dump: Dump, tmp_path: Path
) -> None:
    header = bytearray(Path(dump[0]).read_bytes()[:64])
    header[32:40] = b"\xff" * 8  # e_phoff
    path = tmp_path / "vmcore"
    path.write_bytes(header)
    assert str(path) in one_line(drgn_pmem("-c", str(path), "pmem-list"), 1)


def test_open_at_the_prompt_is_pythons_own(drgn_pmem, dump: Dump) -> None:
    result = drgn_pmem("-c", dump[0], "-s", dump[1], "-e", "print(open('/dev/null').read() == '')")
    assert result.stdout == "True\n", result.stderr


def test_a_script_that_there_is_not_is_one_line(drgn_pmem, dump: Dump) -> None:
    result = drgn_pmem("-c", dump[0], "nosuch.py")
    assert one_line(result, 2) == "script nosuch.py: No such file or directory"


def test_lines_of_several_e_run_one_after_the_other(drgn_pmem, dump: Dump) -> None:
    lines = ["-e", "x = 1", "-e", "pmem-list -H | wc -l", "-e", "print(x, 'end')"]
    result = drgn_pmem("-c", dump[0], "-s", dump[1], *lines)
    assert (result.stdout, result.returncode) == ("10\n1 end\n", 0), result.stderr


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["-e", "pmem-usage", "pmem-list"], 2, "'pmem-list' after -e is not run: quote a whole"),
        (["-e", "print(1)", "pmem-list"], 2, "'pmem-list' after -e is not run: quote a whole"),
        (["-e", "pmem-usage", "anything"], 2, "'anything' after -e is not run: quote a whole"),
        (["pmem-pages", "--csv", "--json"], 2, "pmem-pages: --csv has no effect on --json, which"),
        (["pmem-list", "-H", "-o", "name", "--json"], 2, "pmem-list: -o, -H have no effect on"),
        (["pmem-namespaces", "-o", ""], 2, "-o '' has an empty name; -o FIELD,FIELD shows these"),
        (["pmem-report", "-o", "nosuch/x"], 1, "pmem-report: nosuch/x: No such file or directory"),
        (["elfcorehdr", "--write", "nosuch/x"], 1, "elfcorehdr: nosuch/x: No such file"),
        (["pmem-trim", "-o", "nosuch/x"], 1, "pmem-trim: nosuch/x: No such file or directory"),
        (["pmem-\udcff"], 2, "no command 'pmem-\\xff'"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    drgn_pmem, dump: Dump, words: list[str], status: int, message: str
) -> None:
    result = drgn_pmem("-c", dump[0], "-s", dump[1], *words)
    assert one_line(result, status).startswith(message)


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_a_name_that_is_no_text_is_one_line_in_any_locale(drgn_pmem, locale: str) -> None:
    environment = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = drgn_pmem("-c", "/nosuch/\udcff", "pmem-list", env=environment)
    assert one_line(result, 1) == "/nosuch/\\xff: No such file or directory"
    assert one_line(drgn_pmem("-c", "", "pmem-list"), 1) == "'' names no file"


def test_words_after_e_are_those_of_its_python(drgn_pmem, dump: Dump) -> None:
    result = drgn_pmem("-c", dump[0], "-s", dump[1], "-e", "import sys; print(sys.argv)", "a", "b")
    assert (result.returncode, result.stdout) == (0, "['-e', 'a', 'b']\n")


def test_a_block_is_one_e(drgn_pmem, dump: Dump) -> None:
    block = "for number in range(2):\n    print(number)\npmem-namespaces -H -o namespace --limit 1"
    result = drgn_pmem("-c", dump[0], "-s", dump[1], "-e", block)
    assert (result.returncode, result.stdout) == (0, "0\n1\nnamespace0.0\n")
    apart = drgn_pmem("-c", dump[0], "-e", "for number in range(2):", "-e", "    print(number)")
    assert apart.returncode == 1
    assert apart.stderr.endswith("a block is one input: give all its lines together (one -e)\n")


NUMPY_FOR_NEWER_PROCESSORS = """\
import builtins
if hasattr(builtins, "tried"):
    raise ImportError("cannot load module more than once per process")
builtins.tried = True
raise RuntimeError(
    "NumPy was built with baseline optimizations: (X86_V2) but your machine does not support:"
    " (X86_V2)."
)
"""


@pytest.mark.parametrize("words", [["pmem-list"], ["-e", "pmem-list"], ["pmem-usage"]])
def test_a_processor_that_numpy_does_not_run_on_is_one_line(
    drgn_pmem, dump: Dump, tmp_path: Path, words: list[str]
) -> None:
    """As its builds for x86-64-v2 fail on older processors; the list of samples needs none."""
    package = tmp_path / "numpy"
    package.mkdir()
    (package / "__init__.py").write_text(NUMPY_FOR_NEWER_PROCESSORS)
    environment = {"PYTHONPATH": str(tmp_path)}
    result = drgn_pmem("-c", dump[0], "-s", dump[1], *words, env=environment)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "numpy does not run on this machine" in result.stderr
    assert "your machine does not support: (X86_V2)" in result.stderr
    assert "pip install 'numpy<2.3'" in result.stderr
    assert drgn_pmem("--list-samples", env=environment).returncode == 0


NUMPY_IN_DRGN = """\
import sys
from drgn import Program
from drgn.commands import run_command
import drgn_pmem
from drgn_pmem.errors import PmemError
prog = Program()
prog.set_core_dump(sys.argv[1])
for ask in (lambda: run_command(prog, "pmem-list"), lambda: drgn_pmem.for_each_namespace):
    try:
        ask()
    except PmemError as error:
        print(error)
"""


def test_numpy_that_does_not_run_is_one_line_at_drgns_prompt_and_in_a_script(
    dump: Dump, tmp_path: Path
) -> None:
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text("raise RuntimeError('(X86_V2) is missing.')\n")
    done = subprocess.run(
        [sys.executable, "-c", NUMPY_IN_DRGN, dump[0]],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert (done.stderr, len(lines)) == ("", 2)
    for line in lines:
        assert "every command needs it to know what the dump holds ((X86_V2) is missing)" in line


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_error(dump: Dump, closed: str) -> None:
    program = [str(Path(sys.executable).parent / "drgn-pmem"), "-c", dump[0], "-s", dump[1]]
    script = f'"$@" {closed}'
    done = subprocess.run(
        ["bash", "-c", script, "-", *program, "pmem-namespaces", "-H"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stdout + done.stderr
    assert ("namespace1.0" in done.stdout) == (">&-" not in closed or closed == "2>&-")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_half_file(dump: Dump, number: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import time\n"
        "from drgn_pmem.output.files import replacing\n"
        f"with replacing({str(tmp_path / 'new')!r}) as file:\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    program = str(Path(sys.executable).parent / "drgn-pmem")
    # The tests may have been started with nohup, and a program inherits that.
    start = (
        f"import os, signal; signal.signal({int(number)}, signal.SIG_DFL); os.execv({program!r}, "
    )
    words = [program, "-q", "-c", dump[0], "-s", dump[1], str(script)]
    python = [sys.executable, "-c", f"{start}{words!r})"]
    with subprocess.Popen(python, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    assert sorted(p.name for p in tmp_path.iterdir()) == ["script.py"]

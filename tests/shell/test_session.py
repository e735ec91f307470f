# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Lines that are run: answers, ``_``, pipes, files, errors in one line, favourites, the log."""

import builtins
import json
from pathlib import Path

import drgn
import pytest

from drgn_pmem.errors import PmemError
from drgn_pmem.shell.batch import run_texts
from drgn_pmem.shell.builtin import BUILTINS
from drgn_pmem.shell.failures import Leave
from drgn_pmem.shell.help import DESCRIPTIONS, KEYS, TOUR
from drgn_pmem.shell.journal import Journal
from drgn_pmem.shell.output import Output
from drgn_pmem.shell.session import Session
from drgn_pmem.spec import SPECS, Answer, Spec

Capture = pytest.CaptureFixture[str]


def test_the_answer_of_a_command_is_its_records(session: Session, capfd: Capture) -> None:
    assert session.run("pmem-list -H")
    assert session.run("print([n.dev for n in _])")
    lines = capfd.readouterr().out.splitlines()
    assert lines[-1] == str([line.split("\t")[0] for line in lines[:-1]])


def test_a_percent_sign_changes_nothing(session: Session, capfd: Capture) -> None:
    session.run("pmem-list -H")
    plain = capfd.readouterr().out
    session.run("%pmem-list -H")
    assert capfd.readouterr().out == plain != ""


def test_pipes_and_files(session: Session, capfd: Capture, tmp_path: Path) -> None:
    session.run("pmem-list -H")
    lines = capfd.readouterr().out.splitlines()
    assert session.run("pmem-list -H | sort -r | head -n 1")
    assert capfd.readouterr().out.splitlines() == [max(lines)]
    file = tmp_path / "out file"
    assert session.run(f"pmem-list -H > '{file}'")
    assert session.run(f"pmem-list -H >> '{file}'")
    assert capfd.readouterr().out == ""
    assert file.read_text().splitlines() == lines * 2


@pytest.mark.parametrize("into", ["> '{file}'", "| cat > '{file}'"])
def test_notes_go_with_the_text_into_a_file_or_pipe(
    session: Session, capfd: Capture, tmp_path: Path, into: str
) -> None:
    file = tmp_path / "answer"
    session.run("pmem-namespaces")
    expected = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note: ")]
    assert expected
    for options, kept in (("", True), ("--json", False), ("-H", False)):
        assert session.run(f"pmem-namespaces {options} {into.format(file=file)}")
        notes = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note: ")]
        # With a pipe, what it ends in shows them: on the terminal they would be there twice.
        assert bool(notes) is not (kept and "|" in into)
        assert all((note in file.read_text()) is kept for note in expected if note in notes or kept)


def test_a_filter_at_the_end_of_a_pipe_does_not_hide_that_an_answer_is_incomplete(
    session: Session, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answer, "whole", False)
    assert session.run("pmem-namespaces | grep -c namespace1.0")
    result = capfd.readouterr()
    assert result.err == "note: incomplete: the notes at the end of the answer say why\n"


def test_a_reader_that_leaves_early_is_no_error(session: Session, capfd: Capture) -> None:
    assert session.run("pmem-list --json | head -n 1")
    result = capfd.readouterr()
    assert (result.out, result.err) == ("[\n", "")


def test_a_file_that_cannot_be_written_is_one_line(session: Session, capfd: Capture) -> None:
    assert not session.run("pmem-list > /nonexistent/file")
    assert capfd.readouterr().err == "pmem-list: /nonexistent/file: No such file or directory\n"


def test_commands_of_drgn_run_with_and_without_percent(session: Session, capfd: Capture) -> None:
    for line in ("%crash sys | grep RELEASE", "crash sys | grep RELEASE"):
        assert session.run(line)
        assert capfd.readouterr().out.split() == ["RELEASE:", release(session)]
    assert session.run("!echo hello")
    assert session.run("%sh echo hello")
    assert capfd.readouterr().out == "hello\nhello\n"


def release(session: Session) -> str:
    return session.prog["init_uts_ns"].name.release.string_().decode()


def test_python_sees_drgns_names_and_ours(session: Session, capfd: Capture) -> None:
    assert session.run("prog['init_uts_ns'].name.release")
    assert capfd.readouterr().out == f'(char [65])"{release(session)}"\n'
    for name in ("Object", "pfn_to_page", "for_each_task", "drgn_pmem"):
        assert name in session.python.names
    assert session.run("def count():\n    return len(list(for_each_namespace(prog)))\n")
    assert session.run("count() >= 5")
    assert capfd.readouterr().out == "True\n"
    assert session.run("len(list(for_each_namespace(prog))) >= 5")
    assert capfd.readouterr().out == "True\n"
    assert builtins._ is True  # type: ignore[attr-defined]


def test_python_of_several_lines(session: Session, capfd: Capture) -> None:
    assert session.run("def double(x):\n    return 2 * x\n")
    assert session.run("for i in (1, 2):\n    print(double(i))\n\ndouble(4)")
    assert capfd.readouterr().out == "2\n4\n8\n"


def test_an_error_of_python_shows_its_own_lines_only(session: Session, capfd: Capture) -> None:
    assert not session.run("def broken():\n    return 1 / 0\n\nbroken()")
    error = capfd.readouterr().err
    assert "return 1 / 0" in error
    assert "ZeroDivisionError" in error
    assert "drgn_pmem/shell" not in error
    assert not session.run("x = = 1")
    assert "SyntaxError" in capfd.readouterr().err
    assert session.run("1")


def test_a_typo_gets_a_suggestion(session: Session, capfd: Capture) -> None:
    assert not session.run("pmem-lsit")
    assert "did you mean pmem-list" in capfd.readouterr().err
    assert not session.run("%namespaces")
    assert "did you mean pmem-namespaces" in capfd.readouterr().err
    assert not session.run("\\tming")
    assert "did you mean \\timing" in capfd.readouterr().err


def broken_command(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(prog: drgn.Program, args: object) -> Answer:
        raise error

    spec = Spec(name="pmem-broken", description="fails", function=fail)
    monkeypatch.setitem(SPECS, "pmem-broken", spec)


def test_a_crash_inside_a_command_is_one_line_and_debug_shows_where(
    target, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    broken_command(monkeypatch, RuntimeError("a\nb \x1b[31m"))
    session = Session(target)
    session.output.interactive = True
    assert not session.run("pmem-broken")
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert "pmem-broken: failed: RuntimeError: a b \\x1b[31m at test_session.py" in error
    assert "\\debug" in error
    assert session.run("\\debug")
    assert "in fail\n    raise error" in capfd.readouterr().out
    assert session.run("pmem-list -H")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PmemError("no pmem"), "pmem-broken: no pmem\n"),
        (drgn.FaultError("gone", 0x1000), "does not hold what this needs"),
        (LookupError("could not find 'struct page'"), "could not find 'struct page'"),
        (OSError(5, "Input/output error", "vmcore"), "pmem-broken: vmcore: Input/output error\n"),
        (RecursionError("too deep"), "RecursionError"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_every_error_is_one_line(
    target, monkeypatch: pytest.MonkeyPatch, capfd: Capture, error: Exception, text: str
) -> None:
    broken_command(monkeypatch, error)
    session = Session(target)
    assert not session.run("pmem-broken")
    shown = capfd.readouterr().err
    assert text in shown
    assert shown.count("\n") == 1


def test_ctrl_c_in_a_command_keeps_the_session(
    target, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    broken_command(monkeypatch, KeyboardInterrupt())
    session = Session(target)
    assert not session.run("pmem-broken")
    assert capfd.readouterr().err == ""  # in a script, the exit status tells
    session.output.interactive = True
    assert not session.run("pmem-broken")
    assert capfd.readouterr().err == "interrupted\n"
    assert session.run("pmem-list -H")


def test_timing(session: Session, capfd: Capture) -> None:
    assert session.run("\\timing on")
    assert session.run("1")
    assert "time: 0." in capfd.readouterr().err
    assert session.run("\\timing")
    assert "timing is off" in capfd.readouterr().out
    assert not session.run("\\timing perhaps")


@pytest.mark.parametrize("line", ["exit", "quit", "\\q", "exit()", "raise SystemExit(0)"])
def test_ways_to_leave(session: Session, line: str) -> None:
    with pytest.raises(Leave) as leave:
        session.run(line)
    assert leave.value.args[0] == 0


def test_the_exit_status_of_python_is_kept(session: Session) -> None:
    with pytest.raises(Leave) as leave:
        session.run("import sys; sys.exit(7)")
    assert leave.value.args[0] == 7


# Favourites


def test_favourites_with_parameters(session: Session, capfd: Capture) -> None:
    assert session.run("\\fs one pmem-list -H -n $1")
    capfd.readouterr()
    assert session.run("\\f one namespace1.0")
    out = capfd.readouterr().out.splitlines()
    assert out[0] == ">>> pmem-list -H -n namespace1.0"
    assert [line.split("\t")[0] for line in out[1:]] == ["namespace1.0"]
    assert session.run("\\f")
    assert capfd.readouterr().out == "one: pmem-list -H -n $1\n"
    assert session.run("\\fd one")
    assert not session.run("\\f one x")
    assert "no favourite 'one'" in capfd.readouterr().err


def test_a_favourite_takes_the_words_it_wants(session: Session, capfd: Capture) -> None:
    session.run("\\fs two print('$1', '$2')")
    session.run("\\fs all pmem-list $*")
    assert not session.run("\\f two a")
    assert "takes 2 words, not 1" in capfd.readouterr().err
    assert not session.run("\\f two a b c")
    assert session.run("\\f two a b")
    assert session.run("\\f all -H -n namespace1.0")
    assert not session.run("\\f all 'unclosed")


def test_favourites_outlive_the_session(target, session: Session, capfd: Capture) -> None:
    session.run("\\fs kept 1 + 1")
    assert Session(target).run("\\f kept")
    assert capfd.readouterr().out.splitlines()[-1] == "2"


def test_favourites_in_a_circle_end(session: Session, capfd: Capture) -> None:
    session.run("\\fs round \\f round")
    assert not session.run("\\f round")
    assert "deep" in capfd.readouterr().err
    assert session.run("1")


@pytest.mark.parametrize("text", ["[1]", "{", '{"a": 1}', "\xff"])
def test_a_damaged_file_of_favourites_is_told(session: Session, capfd: Capture, text: str) -> None:
    session.run("\\fs x 1")
    session.favourites._path.write_text(text, encoding="latin-1")
    assert not session.run("\\f x")
    assert str(session.favourites._path) in capfd.readouterr().err


def test_names_of_favourites_are_simple(session: Session) -> None:
    assert not session.run("\\fs a/b 1")
    assert not session.run("\\fs a")
    assert not session.run("\\fs")


# The log


def test_the_log_is_markdown_with_inputs_and_answers(
    session: Session, tmp_path: Path, capfd: Capture
) -> None:
    log = tmp_path / "log.md"
    assert session.run(f"\\log {log}")
    assert session.run("pmem-list -H -n namespace1.0")
    assert session.run("pmem-list -H | head -n 1")
    assert session.run("for i in (1, 2):\n    print(i)\n")
    assert session.run("'``` x'")
    assert not session.run("1/0")
    assert session.run("\\log")
    assert session.run("print('not logged')")
    text = log.read_text()
    blocks = [block.strip("\n") for block in text.split("\n\n")[2:]]
    assert blocks[0].startswith("```\n>>> pmem-list -H -n namespace1.0\nnamespace1.0\tfsdax")
    assert blocks[1].startswith("```\n>>> pmem-list -H | head -n 1\nnamespace")
    assert blocks[2] == "```\n>>> for i in (1, 2):\n...     print(i)\n1\n2\n```"
    assert blocks[3] == "````\n>>> '``` x'\n'``` x'\n````"
    assert "ZeroDivisionError" in blocks[4]
    assert "not logged" not in text
    out = capfd.readouterr().out
    assert out.count("namespace") == 2  # the terminal has them, too


def test_a_log_is_its_owners_and_its_title_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "log.md"
    Journal(path, "vmcore\n# of\x1b[31m someone").close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().splitlines()[0] == "# vmcore\\x0a# of\\x1b[31m someone"


def test_a_log_that_cannot_be_written_is_told(session: Session, capfd: Capture) -> None:
    assert not session.run("\\log /nonexistent/log.md")
    assert capfd.readouterr().err == ("\\log /nonexistent/log.md: No such file or directory\n")
    assert not session.run("\\log")


# Help


def test_help_lists_every_command(session: Session, capfd: Capture) -> None:
    assert session.run("help")
    out = capfd.readouterr().out
    for name, spec in SPECS.items():
        assert name in out
        assert spec.description in out
    assert session.run("help shell")
    out = capfd.readouterr().out
    assert all(name in out for name in BUILTINS)
    assert DESCRIPTIONS.keys() == BUILTINS.keys()
    assert session.run("help keys")
    out = capfd.readouterr().out
    assert all(key in out and text in out for key, text in KEYS)


@pytest.mark.parametrize(
    "line", ["help pmem-list", "pmem-list -h", "pmem-list?", "%pmem-list?", "pmem-list -v ?"]
)
def test_every_way_to_a_commands_help(session: Session, capfd: Capture, line: str) -> None:
    assert session.run(line)
    out = capfd.readouterr().out
    assert out.startswith("usage: pmem-list")
    assert "examples:" in out


def test_help_about_objects(session: Session, capfd: Capture) -> None:
    assert session.run("prog['init_task'].mm?")
    assert "struct mm_struct *" in capfd.readouterr().out
    assert session.run("pfn_to_page?")
    assert "page frame number" in capfd.readouterr().out
    assert session.run("help crash")
    assert capfd.readouterr().out
    assert not session.run("help nonsense")
    assert "no help about 'nonsense'" in capfd.readouterr().err


def test_help_can_be_piped(session: Session, capfd: Capture) -> None:
    assert session.run("help pmem-list | grep -c json")
    assert int(capfd.readouterr().out) > 0


def test_every_line_of_the_tour_runs_on_the_sample(session: Session, capfd: Capture) -> None:
    assert session.run("help tour")
    shown = capfd.readouterr().out
    for _, line in TOUR:
        assert line in shown
        assert session.run(line), line
        assert capfd.readouterr().out.strip(), line


def test_json_is_whole_and_uncoloured_in_a_pipe(session: Session, capfd: Capture) -> None:
    session.run("pmem-list --json | cat")
    assert json.loads(capfd.readouterr().out)


def test_the_bars_have_a_legend(session: Session, capfd: Capture) -> None:
    from drgn_pmem.output.bars import legend, use_ascii

    assert session.run("help legend")
    assert legend(use_ascii()) in capfd.readouterr().out


def test_a_text_of_several_inputs_runs_as_if_typed(session: Session, capfd: Capture) -> None:
    text = "pmem-list -H\nfor n in _:\n    print(n.dev)\npmem-list -H | wc -l\n'en' + 'd'"
    assert session.run(text)
    pasted = capfd.readouterr().out
    for line in session.split(text):
        assert session.run(line)
    assert capfd.readouterr().out == pasted
    assert pasted.endswith("'end'\n")
    # Inside a string a line that looks like a command is none.
    assert session.run('x = """\npmem-list\n"""\nprint(x.split())')
    assert capfd.readouterr().out == "['pmem-list']\n"


def test_a_text_ends_at_the_input_that_fails(target, capfd: Capture) -> None:
    session = Session(target, Output(interactive=True))
    assert not session.run("pmem-list --nosuch\nprint('one')\npmem-pins\nprint('two')")
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()[1:] == ["not run: 3 inputs, from \"print('one')\" on"]


@pytest.mark.parametrize(
    ("texts", "status"),
    [
        (["pmem-list -H", "1 + 1"], 0),
        (["pmem-list --nosuch"], 2),
        (["pmem-list -o nosuch"], 2),
        (["%nosuch"], 2),
        (["pmem-rmap nonsense"], 2),
        (["crash kmem --nosuch"], 2),
        (["pmem-list -n nonsense"], 1),
        (["pmem-namespaces namespace99.0"], 1),
        (["1 / 0", "exit(3)"], 1),
        (["exit(3)", "1 / 0"], 3),
        (["pmem-list | grep -q nonsense"], 1),
        (["x = 1", "exit(x)"], 1),
    ],
)
def test_the_exit_status_follows_one_rule(target, texts: list[str], status: int) -> None:
    assert run_texts(target, texts, ["-e"]) == status


def test_quit_leaves_the_prompt_of_crash(session: Session, capfd: Capture, monkeypatch) -> None:
    typed = iter(["sys -t", "quit"])
    monkeypatch.setattr(builtins, "input", lambda prompt: next(typed))
    assert session.run("%crash")
    assert next(typed, "all was read") == "all was read"
    out = capfd.readouterr().out
    assert "%crash> begins; exit, quit or Ctrl-D comes back here\n" in out
    assert "TAINTED" in out


def test_records_field_by_field(session: Session, capfd: Capture) -> None:
    assert session.run("\\x on")
    assert "field by field" in capfd.readouterr().out
    assert session.run("pmem-list -n namespace1.0 -o mode,device")
    assert capfd.readouterr().out == "MODE    fsdax\nDEVICE  pmem1\n"
    for word in ("off", "auto"):
        assert session.run(f"\\x {word}")
        capfd.readouterr()
        assert session.run("pmem-list -n namespace1.0 -o mode,device")
        assert capfd.readouterr().out == "MODE   DEVICE\nfsdax  pmem1\n"
    assert session.run("\\x")
    assert session.expanded is True
    assert session.run("\\x")
    assert session.expanded is None
    assert not session.run("\\x maybe")


def test_rows_are_filtered_in_tables_json_csv_and_what_is_returned(
    session: Session, capfd: Capture
) -> None:
    where = "--where 'mode = devdax and size > 150M'"
    assert session.run(f"pmem-list -H -o namespace {where}")
    names = capfd.readouterr().out.split()
    assert names == ["namespace1.1", "namespace4.0"]
    assert session.run("print([n.dev for n in _])")
    assert capfd.readouterr().out == f"{names}\n"
    assert session.run(f"pmem-list --json {where}")
    assert [n["dev"] for n in json.loads(capfd.readouterr().out)] == names
    assert session.run(f"pmem-namespaces --json {where}")
    assert [n["dev"] for n in json.loads(capfd.readouterr().out)] == names
    assert session.run(f"pmem-list --csv -o namespace,size {where}")
    assert (
        capfd.readouterr().out == "namespace,size\nnamespace1.1,197132288\nnamespace4.0,266338304\n"
    )
    assert session.run("pmem-pins --where 'mapcount > 0'")
    out, err = capfd.readouterr()
    assert out == ""
    assert "note: --where: 3 rows left out whose MAPCOUNT is not known" in err
    assert session.run("pmem-pins --where 'pfn > 0 and mapcount > 0'")
    assert "left out whose MAPCOUNT is not known" in capfd.readouterr().err  # PFN is
    assert not session.run("elfcorehdr --json --where 'what = pmem'")
    assert session.run("elfcorehdr -H -o what --where 'what = pmem'")
    assert set(capfd.readouterr().out.split("\n")) == {"pmem", ""}


def test_sizes_are_bytes_but_on_a_terminal(session: Session, capfd: Capture, monkeypatch) -> None:
    line = "pmem-list -n namespace1.0 -o size"
    assert session.run(line)
    assert capfd.readouterr().out == "    SIZE\n65011712\n"
    assert session.run(f"{line} -u")
    assert capfd.readouterr().out == "  SIZE\n62 MiB\n"
    monkeypatch.setattr("drgn_pmem.output.terminal.terminal_width", lambda stream: 100)
    assert session.run(line)
    assert capfd.readouterr().out == "  SIZE\n62 MiB\n"
    for option in ("--bytes", "--bytes -u"):
        assert session.run(f"{line} {option}")
        assert capfd.readouterr().out == "    SIZE\n65011712\n"
    for option in ("-H", "--csv -H"):
        assert session.run(f"{line} {option}")
        assert capfd.readouterr().out == "65011712\n"


def test_the_legend_is_there_where_the_bars_are(
    session: Session, capfd: Capture, monkeypatch
) -> None:
    for width, there in ((120, True), (60, False), (0, False)):
        monkeypatch.setattr("drgn_pmem.output.terminal.terminal_width", lambda stream, w=width: w)
        assert session.run("pmem-namespaces")
        assert ("info block" in capfd.readouterr().out) is there


def test_namespaces_are_in_one_order(session: Session, capfd: Capture) -> None:
    orders = []
    for name in ("pmem-list", "pmem-namespaces", "pmem-memmap", "pmem-coverage", "pmem-pages"):
        assert session.run(f"{name} -H -o namespace")
        names = [line for line in capfd.readouterr().out.split() if line.startswith("namespace")]
        orders.append([name for name in dict.fromkeys(names) if name != "namespace0.2"])
    assert len(orders[0]) == 10
    for order in orders[1:]:
        assert order == [name for name in orders[0] if name in order]

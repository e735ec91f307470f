# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The prompt, driven through prompt_toolkit's pipe input: keys, history, multi-line, Vi."""

from collections.abc import Callable, Iterator
import contextlib
from pathlib import Path
import subprocess
import sys

from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
import pytest

from drgn_pmem.shell import history as history_module
from drgn_pmem.shell.config import Config, load_config
from drgn_pmem.shell.folders import config_directory, state_directory
from drgn_pmem.shell.keys import next_indent
from drgn_pmem.shell.lexer import ShellLexer
from drgn_pmem.shell.loop import Shell
from drgn_pmem.shell.session import Session
from drgn_pmem.shell.toolbar import _warning

ENTER, ESCAPE, CTRL_C, CTRL_D, CTRL_R = "\r", "\x1b", "\x03", "\x04", "\x12"
UP, TAB, F2, F4 = "\x1b[A", "\t", "\x1bOQ", "\x1bOS"
Type = Callable[..., list[str]]


@contextlib.contextmanager
def shell_with(target, keys: str, config: Config) -> Iterator[Shell]:
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        pipe.send_text(keys)
        yield Shell(target, config)


@pytest.fixture
def type_keys(target) -> Type:
    def run(typed: str, **settings: object) -> list[str]:
        """Texts that the prompt returns for what is typed; Ctrl-D ends them."""
        texts: list[str] = []
        config = Config(banner=False, **settings)  # type: ignore[arg-type]
        with shell_with(target, typed + CTRL_D, config) as shell:
            shell.session.run = lambda text: not texts.append(text)  # type: ignore[method-assign]
            assert shell.run() == 0
        return texts

    return run


def test_lines_until_ctrl_d(type_keys: Type) -> None:
    assert type_keys(f"pmem-list{ENTER}1 + 1{ENTER}") == ["pmem-list", "1 + 1"]


def test_ctrl_c_at_the_prompt_drops_the_line(type_keys: Type) -> None:
    assert type_keys(f"pmem-li{CTRL_C}{CTRL_C}1{ENTER}") == ["1"]


def test_enter_goes_on_inside_unfinished_python_and_indents(type_keys: Type) -> None:
    keys = f"for i in range(2):{ENTER}print(i){ENTER}{ENTER}"
    assert type_keys(keys) == ["for i in range(2):\n    print(i)\n    "]
    assert type_keys(f"call(1,{ENTER}2){ENTER}") == ["call(1,\n2)"]
    assert type_keys(f"if a:{ENTER}pass{ENTER}else:{ENTER}b{ENTER}{ENTER}") == [
        "if a:\n    pass\nelse:\n    b\n    "
    ]
    assert type_keys(f"x = = 1{ENTER}") == ["x = = 1"]  # running it tells what is wrong


def test_a_finished_line_runs_at_once(type_keys: Type) -> None:
    assert type_keys(f"x = (1, 2){ENTER}") == ["x = (1, 2)"]
    assert type_keys(f'pmem-list "unclosed{ENTER}') == ['pmem-list "unclosed']


def test_alt_enter_makes_a_line_anywhere(type_keys: Type) -> None:
    assert type_keys(f"a = 1{ESCAPE}{ENTER}b = 2{ENTER}") == ["a = 1\nb = 2"]


def test_pasted_lines_stay_together(type_keys: Type) -> None:
    pasted = "def f(x):\n    return x\n\nf(1)"
    assert type_keys(f"\x1b[200~{pasted}\x1b[201~{ENTER}") == [pasted]


def test_of_pasted_inputs_the_last_may_go_on(type_keys: Type) -> None:
    pasted = "pmem-list\nfor i in range(2):\n    print(i)"
    keys = f"\x1b[200~{pasted}\x1b[201~{ENTER}{ENTER}"
    assert type_keys(keys) == [f"{pasted}\n    "]
    for whole in ("pmem-list\npmem-pins", "x = 1\npmem-list", "if x:\n    pass\npmem-list"):
        assert type_keys(f"\x1b[200~{whole}\x1b[201~{ENTER}") == [whole]


def test_what_was_typed_is_kept_for_the_next_session(type_keys: Type) -> None:
    assert type_keys(f"print('kept'){ENTER} secret = 1{ENTER}") == ["print('kept')", " secret = 1"]
    # Up, in a new session: the last line that did not begin with a space.
    assert type_keys(f"{UP}{ENTER}") == ["print('kept')"]
    path = state_directory() / "history"
    assert path.stat().st_mode & 0o777 == 0o600
    assert "secret" not in path.read_text()


def test_history_can_be_searched(type_keys: Type) -> None:
    type_keys(f"first = 1{ENTER}second = 2{ENTER}")
    assert type_keys(f"{CTRL_R}FIRST{ENTER}{ENTER}") == ["first = 1"]


def test_the_end_of_a_line_is_suggested_from_the_history(target) -> None:
    config = Config(banner=False)
    with shell_with(target, f"pmem-list -BDR{ENTER}{CTRL_D}", config) as shell:
        shell.session.run = lambda text: True  # type: ignore[method-assign]
        shell.run()
        history = list(shell.prompt.history.get_strings())
    assert history == ["pmem-list -BDR"]
    suggest = shell.prompt.auto_suggest
    assert suggest is not None
    from prompt_toolkit.buffer import Buffer
    from prompt_toolkit.document import Document

    buffer = Buffer(history=shell.prompt.history)
    found = suggest.get_suggestion(buffer, Document("pmem-li"))
    assert found is not None
    assert found.text == "st -BDR"


def test_history_of_a_damaged_or_foreign_file_is_no_obstacle(
    type_keys: Type, caplog: pytest.LogCaptureFixture
) -> None:
    path = state_directory() / "history"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\xfe+\x00garbage")
    assert type_keys(f"1{ENTER}") == ["1"]
    path.unlink()
    path.mkdir()
    assert type_keys(f"2{ENTER}") == ["2"]
    assert "history is not kept" in caplog.text


def test_a_long_history_is_cut_to_its_newer_half() -> None:
    path = state_directory() / "history"
    path.parent.mkdir(parents=True)
    entry = "\n# 2026-01-01 00:00:00.000000\n+print(%06d)\n"
    path.write_text("".join(entry % number for number in range(30000)))
    kept = list(history_module.open_history(path).load_history_strings())
    assert kept[0] == "print(029999)"
    assert 5000 < len(kept) < 20000
    assert path.stat().st_size <= history_module._MAX_BYTES


def test_vi_keys(type_keys: Type) -> None:
    assert type_keys(f"pmem-lisx{ESCAPE}xat{ENTER}", keys="vi") == ["pmem-list"]
    # The same keys in Emacs mode are text.
    assert type_keys(f"ab{F2}{ESCAPE}0xi{ENTER}") == ["b"]


def test_tab_indents_python(type_keys: Type) -> None:
    keys = f"if x:{ENTER}\x7f{TAB}pass{ENTER}{ENTER}"
    assert type_keys(keys) == ["if x:\n    pass\n"]


@pytest.mark.parametrize(
    ("line", "indent"),
    [("if x:", "    "), ("    if x: # why", "        "), ("    return 1", ""), ("  y = 1", "  ")],
)
def test_indentation_of_the_next_line(line: str, indent: str) -> None:
    assert next_indent(line) == indent


# Toolbar and banner


def test_banner_and_toolbar_say_what_the_dump_is(target, sample, capsys) -> None:
    with shell_with(target, CTRL_D, Config()) as shell:
        assert shell.run() == 0
        banner = capsys.readouterr().out
        assert target.name in banner
        assert sample.release in banner
        assert "panic   " in banner
        shell.idle.run_all()
        shown = "".join(text for _, text, *_ in shell._toolbar())
    assert sample.release in shown
    assert f"{len(enabled_namespaces(target))} namespaces" in shown
    assert "struct pages saved" in shown


def test_the_worst_findings_come_when_nothing_is_typed(target, capsys) -> None:
    """The first prompt waits for none of them; then they are those of pmem-diagnose."""
    from drgn_pmem import findings

    worst = findings(target.prog).value[:3]
    with shell_with(target, CTRL_D, Config()) as shell:
        assert shell.run() == 0
        assert not any(item.finding in capsys.readouterr().out for item in worst)
        shell.idle.run_all()
        lines, narrow = shell.summary.worst(), shell.summary.worst(80)
        shown = "".join(text for _, text, *_ in shell._toolbar())
    for line, item in zip(lines, worst, strict=False):
        assert line == f"{item.severity.value:<9} {item.text}  [{item.more}]"
    for line, item in zip(narrow, worst, strict=False):
        assert len(line) <= 80
        assert line.endswith(f"  [{item.more}]"), "the command can be copied"
    assert lines[:3] == shell.summary.banner()[-len(lines) :][:3]
    critical = [item for item in shell.summary.findings if item.severity is worst[0].severity]
    assert f" {len(critical)} critical: F4 " in shown  # 80 columns
    wide = _warning(shell.summary, 200)
    assert wide == f" critical: {worst[0].text} (+{len(shell.summary.findings) - 1}) F4 all "


def test_f4_shows_all_warnings_and_findings(target, capsys) -> None:
    with shell_with(target, "", Config()) as shell:
        shell.idle.run_all()
        everything = shell.summary.everything()
    assert len(everything) == len(shell.summary.findings) > 3
    with shell_with(target, F4 + CTRL_D, Config()) as other:
        other.summary = shell.summary
        other.config.banner = False
        capsys.readouterr()
        assert other.run() == 0
        shown = capsys.readouterr().out
    for line in everything:
        assert line in shown


def enabled_namespaces(target) -> list[object]:
    from drgn_pmem import for_each_namespace

    return [n for n in for_each_namespace(target.prog) if n.enabled and n.size]


def test_warnings_are_shown_with_what_helps(dump, tmp_path: Path) -> None:
    from drgn_pmem.shell.options import parse
    from drgn_pmem.shell.target import open_target

    cut = tmp_path / "vmcore-incomplete"
    with open(dump[0], "rb") as file:
        cut.write_bytes(file.read(1 << 20))
    target = open_target(parse(["-c", str(cut), "--no-default-symbols"]))
    with shell_with(target, CTRL_D, Config()) as shell:
        warnings = "\n".join(line for line in shell.summary.banner() if line.startswith("warning"))
        assert "truncated" in warnings
        assert "give its vmlinux with \\symbols FILE" in warnings
        shown = "".join(text for _, text, *_ in shell._toolbar())
        assert "the file is truncated" in shown


# Config


def test_the_config_file_is_made_with_comments_and_reads_as_the_defaults() -> None:
    path = config_directory() / "config"
    assert load_config() == Config()
    text = path.read_text()
    for name in Config.__dataclass_fields__:
        assert name == "warnings" or f"\n#{name} =" in text, name
    assert load_config() == Config()
    # Each setting as it is shown is the default.
    uncommented = "\n".join(
        line.removeprefix("#") if line[:1] == "#" and line[1:2] != " " else line
        for line in text.splitlines()
        if not line.startswith("#    ")
    )
    path.write_text(uncommented)
    assert load_config() == Config()


def test_settings_are_read() -> None:
    path = config_directory() / "config"
    path.parent.mkdir(parents=True)
    path.write_text(
        "[shell]\nkeys = Vi\npager = never\nsuggest = off\nprompt = 100%>\n"
        "start =\n    import collections\n    x = 1\n"
    )
    config = load_config()
    assert (config.keys, config.pager, config.suggest) == ("vi", "never", False)
    assert config.prompt == "100%>"
    assert config.start_lines == ["import collections", "x = 1"]
    assert config.warnings == []


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("[shell]\nkeys = pico\n", "is emacs or vi, not 'pico'"),
        ("[shell]\ntiming = perhaps\n", "is yes or no"),
        ("[shell]\nnonsense = 1\n", "no such setting"),
        ("keys = vi\n", "no section headers"),
        ("[shell\n", "config"),
    ],
)
def test_a_mistake_in_the_config_is_a_warning(text: str, warning: str) -> None:
    path = config_directory() / "config"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    config = load_config()
    assert len(config.warnings) == 1
    assert warning in config.warnings[0]
    assert (config.keys, config.timing) == ("emacs", False)


def test_no_config_neither_reads_nor_makes_it(drgn_pmem, dump) -> None:
    result = drgn_pmem("-c", dump[0], "-s", dump[1], "--no-config", input="1 + 1\n")
    assert result.stdout == "2\n"
    assert not config_directory().exists()


# Colours of what is typed


def test_what_is_typed_is_coloured_by_what_it_is(session: Session) -> None:
    from prompt_toolkit.document import Document

    lexer = ShellLexer(session.names)

    def styles(text: str) -> dict[str, str]:
        get_line = lexer.lex_document(Document(text))
        lines = [get_line(number) for number in range(text.count("\n") + 1)]
        assert "\n".join("".join(part[1] for part in line) for line in lines) == text
        return {part[1].strip(): part[0].removeprefix("class:") for line in lines for part in line}

    found = styles("pmem-list -BDR --jsun -r 'region0' | grep x")
    assert found["pmem-list"] == "command"
    assert (found["-BDR"], found["--jsun"]) == ("option", "unknown")
    assert (found["'region0'"], found["| grep x"]) == ("string", "system")
    found = styles('for x in range(0x10):  # ten\n    print("a", """b\nc""")')
    assert (found["for"], found["range"], found["0x10"]) == ("keyword", "builtin", "number")
    assert (found["# ten"], found['"a"'], found['c"""']) == ("comment", "string", "string")
    assert styles("%nonsense")["%nonsense"] == "unknown"
    assert styles("!ls -l")["!ls -l"] == "system"


def test_a_memmap_that_was_initialised_again_is_a_warning(drgn_pmem) -> None:
    from drgn_pmem.shell.options import parse
    from drgn_pmem.shell.sample import find_sample
    from drgn_pmem.shell.target import open_target

    sample = find_sample("6.1-clobbered")
    words = ["-c", str(sample.dump()), "--main-symbols"]
    for path in sample.debug_info():
        words += ["-s", str(path)]
    with shell_with(open_target(parse(words)), CTRL_D, Config()) as shell:
        shell.idle.run_all()
        assert any("initialised again after the crash" in text for text in shell.summary.warnings)


def test_the_bar_shows_the_worst_warning_not_the_first(drgn_pmem) -> None:
    """That struct pages are not those of the crash was hidden by any note that came before it."""
    from drgn_pmem.shell.options import parse
    from drgn_pmem.shell.sample import find_sample
    from drgn_pmem.shell.target import open_target

    sample = find_sample("6.1-clobbered")
    words = ["-c", str(sample.dump()), "--main-symbols"]
    for path in sample.debug_info():
        words += ["-s", str(path)]
    target = open_target(parse(words))
    target.notes.append("the bootloader said nothing")
    with shell_with(target, CTRL_D, Config()) as shell:
        before = "".join(text for _, text, *_ in shell._toolbar())
        shell.idle.run_all()
        shown = "".join(text for _, text, *_ in shell._toolbar())
        everything = shell.summary.everything()
    assert " the bootloader said nothing F4 all " in before
    assert " struct pages" in shown
    assert "bootloader" not in shown
    assert "initialised again" in everything[0]
    assert everything.index("warning   the bootloader said nothing") == 1
    assert len(everything) == len(shell.summary.warnings) + len(shell.summary.findings)


def test_debug_info_can_be_loaded_later(dump, capsys) -> None:
    from drgn_pmem.shell.options import parse
    from drgn_pmem.shell.target import open_target

    target = open_target(parse(["-c", dump[0], "--no-default-symbols"]))
    with shell_with(target, CTRL_D, Config()) as shell:
        assert any("\\symbols" in warning for warning in shell.summary.warnings)
        assert not shell.session.run("\\symbols /bin/sh")
        assert "of another build" in capsys.readouterr().err
        assert shell.session.run(f"\\symbols {dump[1]}")
        assert "all debug info is loaded" in capsys.readouterr().out
        shell.idle.run_all()
        assert shell.summary.warnings == []
        assert shell.candidates.get("namespace")


def test_what_cannot_be_read_is_not_called_absent(dump, tmp_path: Path) -> None:
    """A dump cut after its first megabyte may name no namespace, but not deny that there are."""
    from drgn_pmem.shell.options import parse
    from drgn_pmem.shell.target import open_target

    cut = tmp_path / "vmcore-incomplete"
    with open(dump[0], "rb") as file:
        cut.write_bytes(file.read(1 << 20))
    target = open_target(parse(["-c", str(cut), "-s", dump[1], "--main-symbols"]))
    with shell_with(target, CTRL_D, Config()) as shell:
        shell.idle.run_all()
        assert shell.summary.pmem in ("", "namespaces cannot be read")
        shown = "".join(text for _, text, *_ in shell._toolbar())
        assert "no persistent memory" not in shown


def test_the_banner_does_not_wait_for_numpy(dump: tuple[str, str]) -> None:
    code = (
        "import sys\n"
        "from drgn_pmem.shell.options import parse\n"
        "from drgn_pmem.shell.summary import Summary\n"
        "from drgn_pmem.shell.target import open_target\n"
        f"words = ['-c', {dump[0]!r}, '-s', {dump[1]!r}, '--main-symbols']\n"
        "print(Summary(open_target(parse(words))).panic)\n"
        "print('numpy' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "Kernel panic - not syncing: sysrq triggered crash",
        "False",
    ]

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What holds for every command: help, examples, --drgn, JSON, fields, drgn's own prompt."""

import contextlib
import io
import json
import shlex
import subprocess
import sys

from drgn import Program
from drgn.cli import default_globals
from drgn.commands import CommandArgumentError, run_command
import pytest

from drgn_pmem.commands import load_commands
from drgn_pmem.errors import UsageError
from drgn_pmem.spec import Spec, parse_arguments, run

from ..samples import program, run_text, samples

SPECS = load_commands()
EXAMPLES = [(spec, line) for spec in SPECS for line, _ in spec.examples]

default = next(iter(samples().values()))


def prog(spec: Spec | None = None) -> Program:
    """The sample that a command is shown on: fadump has one of another machine."""
    if spec is not None and spec.name == "fadump":
        return program("ppc64le-6.12", "raw")
    return program(default.name, next(iter(default.formats)))


@pytest.fixture(autouse=True)
def beside(tmp_path, monkeypatch) -> None:
    """The other dump that examples name is in the folder."""
    (tmp_path / "next.vmcore").symlink_to(default.dump("elf"))
    monkeypatch.chdir(tmp_path)


def all_specs(function):
    return pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)(function)


@all_specs
def test_help_names_every_argument_and_field(spec: Spec) -> None:
    out, err = run_text(prog(spec), f"{spec.name} -h")
    assert out.startswith(f"usage: {spec.name}")
    assert err == ""
    for argument in spec.all_arguments():
        assert argument.names[0] in out
    for field in spec.fields:
        assert field.name.lower() in out
    assert spec.examples, "a command without an example"
    assert spec.code, "a command without --drgn"


@pytest.mark.parametrize(("spec", "line"), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_example_runs_on_the_sample(spec: Spec, line: str) -> None:
    out, notes = run_text(prog(spec), line.partition("|")[0])
    assert out.strip() or "the report is in" in notes


@all_specs
def test_drgn_code_compiles_and_runs(spec: Spec) -> None:
    # The first example has the arguments that a command cannot do without.
    line = spec.examples[0][0].partition("|")[0]
    out, _ = run_text(prog(spec), f"{line} --drgn")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(out, f"{spec.name} --drgn", "exec"), {"prog": prog(spec), "__name__": "test"})
    assert printed.getvalue().strip(), "code that shows nothing"


@all_specs
def test_every_command_answers_in_json(spec: Spec) -> None:
    line = spec.examples[0][0].partition("|")[0]
    out, _ = run_text(prog(spec), line if "--json" in line else f"{line} --json")
    json.loads(out)


@all_specs
def test_unknown_option_is_one_line(spec: Spec) -> None:
    with pytest.raises(UsageError, match=r"unrecognized arguments|required") as error:
        parse_arguments(spec, ["--no-such-option"])
    assert "\n" not in str(error.value)


def test_unknown_field_names_those_there_are() -> None:
    with pytest.raises(UsageError, match="no field 'nonsense'; the fields are namespace, mode"):
        run_text(prog(), "pmem-namespaces -o nonsense")


def test_fields_sort_and_limit() -> None:
    out, err = run_text(prog(), "pmem-namespaces -H -o size,namespace -s -size --limit 2")
    sizes = [int(line.split("\t")[0]) for line in out.splitlines()]
    assert len(sizes) == 2
    assert sizes == sorted(sizes, reverse=True)
    assert "rows shown (--limit)" in err


@all_specs
def test_drgns_own_prompt_runs_it(spec: Spec) -> None:
    """``%command`` of drgn, and what it returns is the records."""
    import drgn_pmem.plugin  # noqa: F401

    line = spec.examples[0][0].partition("|")[0]
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        returned = run_command(prog(spec), line, globals=default_globals(prog(spec)))
        answer = run(spec, prog(spec), shlex.split(line)[1:])
    assert answer is not None
    assert len(returned) == len(answer.records)


def test_drgns_own_prompt_reports_a_wrong_option_in_one_line() -> None:
    import drgn_pmem.plugin  # noqa: F401

    with pytest.raises(CommandArgumentError, match="see pmem-namespaces -h"):
        run_command(prog(), "pmem-namespaces --wrong", globals={})


def test_plugin_imports_neither_numpy_nor_prompt_toolkit() -> None:
    code = (
        "import sys, drgn.cli, drgn.helpers.linux\n"
        "import drgn_pmem.plugin\n"
        "heavy = {'numpy', 'prompt_toolkit', 'tabulate', 'elftools', 'dissect', 'hypothesis'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

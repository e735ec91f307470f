# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What ``--drgn`` prints is Python of the public API, and runs."""

import ast
import contextlib
import io
from pathlib import Path
import shlex

from drgn import FaultError, ObjectNotFoundError, Program
import pytest

from drgn_pmem.commands import load_commands
from drgn_pmem.errors import PmemError
from drgn_pmem.partial import Incomplete
from drgn_pmem.shell.sample import find_sample
from drgn_pmem.spec import SPECS, Answer, Spec, ask, parse_arguments

from ..samples import Case, pmem_samples, run_text, samples
from .test_every_command import ONE_OF_EACH_KERNEL, question

EXAMPLES = [
    line
    for spec in load_commands()
    for line, _ in spec.examples
    if not line.startswith("pmem-trim -o")  # writes a dump: tests/dumps/test_trim.py
]

FILES = ("elfcorehdr --write", "pmem-report -o")
"""Lines that write a file: only their code is run."""


@pytest.fixture(autouse=True)
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other dump that examples name is in the folder."""
    (tmp_path / "next.vmcore").symlink_to(find_sample().dump("elf"))
    monkeypatch.chdir(tmp_path)


def code_of(prog: Program, line: str) -> str:
    return run_text(prog, f"{line} --drgn")[0]


def execute(prog: Program, code: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "--drgn", "exec"), {"prog": prog})
    return out.getvalue()


def answer_of(prog: Program, line: str) -> Answer:
    name, *words = shlex.split(line)
    args = parse_arguments(SPECS[name], words)
    assert args is not None
    return ask(SPECS[name], prog, args)


def check(prog: Program, line: str) -> None:
    code = code_of(prog, line)
    if line.startswith(FILES):
        execute(prog, code)
        return
    try:
        answer = answer_of(prog, line)
    except PmemError:
        with pytest.raises((PmemError, ObjectNotFoundError, FaultError)):
            execute(prog, code)
        return
    if answer.whole:
        assert execute(prog, code).strip() or not answer.records
    else:
        # What is missing may end a plain loop; nothing else may.
        with contextlib.suppress(Incomplete):
            execute(prog, code)


def imported(code: str) -> set[str]:
    """Modules that a code imports, or imports from."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module or "")
    return modules


@pytest.mark.parametrize("line", EXAMPLES)
def test_examples_of_the_specs(line: str) -> None:
    # A firmware-assisted dump is of another machine than the default sample.
    fadump = next(sample for sample in samples().values() if sample.loader == "fadump")
    sample = fadump if line.startswith("fadump") else find_sample()
    check(Case(sample, next(iter(sample.formats))).prog, line)


@pytest.mark.parametrize("line", EXAMPLES)
def test_only_the_public_api_is_used(line: str) -> None:
    prog = Case(pmem_samples()[0], "elf").prog
    for module in imported(code_of(prog, line)):
        assert module in ("drgn_pmem", "sys") or module.split(".")[0] == "drgn"


# Debian's 6.12 without a crash kernel has the most struct pages; arm64's kernel is a 6.12, too.
KERNELS = [case for case in ONE_OF_EACH_KERNEL if case.sample.loader != "none"]


@pytest.mark.parametrize("case", KERNELS, ids=str)
@pytest.mark.parametrize("spec", load_commands(), ids=lambda spec: spec.name)
def test_every_command_on_a_sample_of_each_kernel(case: Case, spec: Spec) -> None:
    check(case.prog, question(spec, case))

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Man pages and completion scripts have every command and option, and are well-formed."""

import importlib.util
import os
from pathlib import Path
import shutil
import subprocess

import pytest

from drgn_pmem.commands import load_commands
from drgn_pmem.fleet.options import ARGUMENTS
from drgn_pmem.shell.completionscripts import SHELLS, completion_script
from drgn_pmem.spec import SPECS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("man", DOCS / "man.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


def test_every_command_has_a_page_with_its_options_and_fields(pages: dict[str, str]) -> None:
    assert set(pages) == {"drgn-pmem", "drgn-pmem-fleet", *SPECS}
    for name, spec in SPECS.items():
        text = pages[name].replace("\\-", "-")
        for argument in spec.all_arguments():
            assert argument.names[-1] in text or argument.names[0].upper() in text
        for field in spec.fields:
            assert f".B {field.name}\n" in text
        assert f"BR {name} (1)" in pages["drgn-pmem"].replace("\\-", "-")
    assert "--mode {fsdax,devdax,sector,raw}" in pages["pmem-list"].replace("\\-", "-")
    assert "--log-level {debug,info," in pages["drgn-pmem"].replace("\\-", "-")
    assert "PATH[:OFFSET]" in pages["pmem-file"]


def test_the_page_of_fleet_has_its_options(pages: dict[str, str]) -> None:
    text = pages["drgn-pmem-fleet"].replace("\\-", "-")
    for argument in ARGUMENTS:
        assert argument.help in " ".join(text.split())
    assert "drgn-pmem-fleet (1)" in pages["drgn-pmem"].replace("\\-", "-")


def test_mandoc_finds_nothing_wrong(pages: dict[str, str], tmp_path: Path) -> None:
    if shutil.which("mandoc") is None:
        pytest.skip("no mandoc")
    for name, text in pages.items():
        (tmp_path / f"{name}.1").write_text(text)
    files = sorted(map(str, tmp_path.iterdir()))
    result = subprocess.run(["mandoc", "-T", "lint", *files], capture_output=True, text=True)
    assert result.stdout + result.stderr == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_takes_its_script(shell: str, tmp_path: Path) -> None:
    load_commands()
    script = tmp_path / "script"
    script.write_text(completion_script(shell))
    for name, spec in SPECS.items():
        assert name in script.read_text()
        for argument in spec.all_arguments():
            if argument.is_option:
                assert max(argument.names, key=len).lstrip("-") in script.read_text()
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    subprocess.run([shell, "-n", str(script)], check=True)


def test_bash_completes(tmp_path: Path) -> None:
    load_commands()
    script = tmp_path / "script"
    script.write_text(completion_script("bash"))

    def complete(*words: str) -> list[str]:
        line = f'source {script}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _drgn_pmem'
        command = ["bash", "-c", f'{line}; echo "${{COMPREPLY[@]}}"', "bash", "drgn-pmem", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert complete("-c", "vmcore", "pmem-na") == ["pmem-namespaces"]
    assert complete("fle") == ["fleet"]
    assert complete("fleet", "/var/crash", "--sch") == ["--scheduler"]
    assert complete("fleet", "-o", "") == []  # files
    assert complete("--sam") == ["--sample"]
    assert complete("-c", "vmcore", "pmem-list", "--names") == ["--namespaces", "--namespace"]
    assert complete("-c", "vmcore", "pmem-list", "-o", "uu") == ["uuid"]
    assert complete("-c", "vmcore", "pmem-list", "-o", "mode,uu") == ["mode,uuid"]
    assert complete("-c", "vmcore", "pmem-list", "-o", "+uu") == ["+uuid"]
    # bash makes "=" a word
    assert complete("-c", "vmcore", "pmem-list", "--fields", "=", "mode,uu") == ["mode,uuid"]
    assert "uuid" in complete("-c", "vmcore", "pmem-list", "--fields", "=")
    assert complete("-c", "vmcore", "pmem-list", "--mode", "f") == ["fsdax"]
    assert complete("--log-level", "w") == ["warning"]
    assert complete("-c", "pmem-") == []  # files


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish")
def test_fish_completes(tmp_path: Path) -> None:
    load_commands()
    script = tmp_path / "script"
    script.write_text(completion_script("fish"))
    (tmp_path / "vmcore").touch()
    lines = {
        "pmem-na": ["pmem-namespaces"],
        "fle": ["fleet"],
        "--sam": ["--sample"],
        "-c vmc": ["vmcore"],
        "-c vmcore pmem-list --names": ["--namespaces", "--namespace"],
        "-c vmcore pmem-list -o uu": ["uuid"],
        "-c vmcore pmem-list -o mode,uu": ["mode,uuid"],
        "-c vmcore pmem-list --fields=+uu": ["--fields=+uuid"],
        "-c vmcore pmem-list --mode f": ["fsdax"],
        "-c vmcore pmem-diff vmc": ["vmcore"],
        "-c vmcore pmem-list vmc": [],
        "-c vmcore help pmem-li": ["pmem-list"],
        "--log-level w": ["warning"],
    }
    ask = "".join(f"; echo :; complete -C 'drgn-pmem {line}'" for line in lines)
    text = subprocess.run(
        ["fish", "--no-config", "-c", f"source {script}{ask}"],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    answers = [
        sorted((line.split("\t")[0] for line in answer.splitlines() if line), reverse=True)
        for answer in text.split(":\n")[1:]
    ]
    assert dict(zip(lines, answers, strict=True)) == {
        line: sorted(expected, reverse=True) for line, expected in lines.items()
    }

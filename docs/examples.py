# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Runs the examples in tutorial.md and scripting.md on the default sample and writes what they print
below them: ``make docs``. In a block that begins with ``>>> `` each such line is typed at the
shell's prompt; in one that begins with ``$ ``, each such line is run by bash in the folder
examples/, with the sample's files in $VMCORE and $VMLINUX.
"""

import contextlib
import io
import os
from pathlib import Path
import re
import subprocess
import sys

from drgn_pmem.shell.session import Session

FOLDER = Path(__file__).parent
DOCUMENTS = ("tutorial.md", "scripting.md")

_BLOCK = re.compile(r"^```(?P<kind>\w*)\n(?P<text>(?:>>> |\$ ).*?)^```$", re.MULTILINE | re.DOTALL)


def main() -> None:
    """Write the outputs into the documents beside this file."""
    session, environment = open_sample()
    for name in DOCUMENTS:
        path = FOLDER / name
        path.write_text(fill(path.read_text(), session, environment))


def open_sample() -> tuple[Session, dict[str, str]]:
    """A session on the default sample, and the environment of the bash lines."""
    from drgn_pmem.commands import load_commands
    from drgn_pmem.shell.options import parse
    from drgn_pmem.shell.sample import find_sample
    from drgn_pmem.shell.target import open_target

    load_commands()
    sample = find_sample()
    vmcore, vmlinux = str(sample.dump()), str(sample.debug_info()[0])
    target = open_target(parse(["-c", vmcore, "-s", vmlinux, "--main-symbols"]))
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return Session(target), {**os.environ, "VMCORE": vmcore, "VMLINUX": vmlinux, "PATH": programs}


def fill(text: str, session: Session, environment: dict[str, str]) -> str:
    """The text with what its examples print now."""

    def run(match: re.Match[str]) -> str:
        mark = match["text"].split(" ", 1)[0] + " "
        answers = []
        for line in inputs(match["text"], mark):
            if mark == "$ ":
                answer = _run_in_bash(line, environment)
            else:
                answer = _run_at_prompt(line, session)
            answers.append(f"{mark}{line}\n{answer}")
        return f"```{match['kind']}\n{''.join(answers)}```"

    return _BLOCK.sub(run, text)


def inputs(block: str, mark: str) -> list[str]:
    """The lines of a block that are typed; ``... `` goes on with the one before."""
    lines: list[str] = []
    for line in block.splitlines():
        if line.startswith(mark):
            lines.append(line.removeprefix(mark))
        elif lines and line.startswith("... ") and mark == ">>> ":
            lines[-1] += f"\n{line}"
    return lines


def _run_at_prompt(line: str, session: Session) -> str:
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    source = re.sub(r"^\.\.\. ", "", line, flags=re.MULTILINE)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        session.run(source)
    out.seek(0)
    return _clean(out.read())


def _run_in_bash(line: str, environment: dict[str, str]) -> str:
    result = subprocess.run(
        ["bash", "-c", line],
        cwd=FOLDER / "examples",
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return _clean(result.stdout)


def _clean(text: str) -> str:
    """Without blanks at the ends of lines, and with one end of line at the end."""
    lines = "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")
    return f"{lines}\n" if lines else ""


if __name__ == "__main__":
    main()

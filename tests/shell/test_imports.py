# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A command imports what its answer needs: half of the time of a short one goes into imports."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("line", ["pmem-rmap 0x129800", "pmem-files"])
def test_an_answer_imports_only_what_it_needs(dump: tuple[str, str], line: str) -> None:
    code = (
        "import contextlib, io, sys, drgn_pmem\n"
        "from drgn_pmem.commands import load_command\n"
        "from drgn_pmem.spec import run\n"
        f"name, *words = {line.split()!r}\n"
        f"prog = drgn_pmem.open({dump[0]!r}, [{dump[1]!r}])\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    answer = run(load_command(name), prog, words)\n"
        "heavy = ('numpy.ma', 'uuid', 'prompt_toolkit')\n"
        "print(len(answer.records) > 0, [n for n in heavy if n in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True []\n"


def test_the_commands_are_known_before_numpy_is() -> None:
    """The shell loads them before its first prompt."""
    code = (
        "import sys\n"
        "from drgn_pmem.commands import load_commands\n"
        "load_commands()\n"
        "print([n for n in ('numpy', 'tabulate', 'elftools', 'dissect') if n in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

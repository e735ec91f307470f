# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Modules that are imported while drgn works: those that commands really import."""

import subprocess
import sys

from drgn_pmem.commands import load_commands

_IMPORT = """
import sys, threading
from drgn_pmem.ahead import failures, import_ahead
import_ahead(sys.argv[1:])
for thread in threading.enumerate():
    if thread.name == "imports":
        thread.join()
print([name for name in sys.argv[1:] if name not in sys.modules], failures)
"""


def test_every_module_that_a_command_needs_can_be_imported_ahead() -> None:
    """In a fresh interpreter, beside nothing that was imported before."""
    specs = load_commands()
    without = [s.name for s in specs if not any(".analysis." in name for name in s.imports)]
    assert without == ["pmem-report"]  # it asks the others
    names = sorted({name for spec in specs for name in spec.imports})
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT, *names], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[] []\n"


def test_a_module_that_fails_ends_the_thread_and_is_kept() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT, "json", "no.such.module", "tabulate"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout == (
        "['no.such.module', 'tabulate'] [ModuleNotFoundError(\"No module named 'no'\")]\n"
    )

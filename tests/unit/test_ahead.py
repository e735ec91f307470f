# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Modules that are imported while drgn works: those that commands really import."""

from pathlib import Path
import signal
import subprocess
import sys

import pytest

from drgn_pmem.commands import load_commands

_IMPORT = """
import sys
from drgn_pmem.ahead import failures, importing
with importing(sys.argv[1:]):
    pass
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


_FIRST = """
import sys, threading
from drgn_pmem.ahead import importing
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("drgn.") and threading.current_thread() is not threading.main_thread():
            print(name)
sys.meta_path.insert(0, Finder())
with importing(sys.argv[1:]):
    pass
"""


def test_the_thread_imports_none_of_drgns_packages() -> None:
    """drgn imports them at the same time: the two threads would wait for each other."""
    names = sorted({name for spec in load_commands() for name in spec.imports})
    names += ["drgn_pmem.shell.loop"]
    done = subprocess.run(
        [sys.executable, "-c", _FIRST, *names], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""


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


_INTERRUPTED = """
import sys
sys.path.insert(0, sys.argv[1])
from drgn_pmem.ahead import importing
def leave(number, frame):
    raise SystemExit(1)
import signal
signal.signal(signal.SIGTERM, leave)
with importing([f"ahead{number}" for number in range(1000)]):
    for number in range(1000):
        __import__(f"main{number}")
        if number == 3:
            print(flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_while_two_threads_import(
    tmp_path: Path, number: signal.Signals
) -> None:
    for name in range(1000):
        for kind in ("ahead", "main"):
            (tmp_path / f"{kind}{name}.py").write_text("import time\ntime.sleep(0.01)\n")
    words = [sys.executable, "-c", _INTERRUPTED, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (128 + number, b"")

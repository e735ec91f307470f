# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
``ask.py QUESTIONS PAGES FOLDER OPTION...``: run the commands of the file QUESTIONS (a name and a
command in each line) on what the OPTIONs of drgn-pmem name, opened once. Leaves in FOLDER the
output and messages of each, and the exit statuses. PAGES is the standard input of ``pmem-rmap -``.
"""

import contextlib
from pathlib import Path
import shlex
import sys
import time

from drgn_pmem.commands import load_commands
from drgn_pmem.errors import PmemError
from drgn_pmem.shell.batch import run_command
from drgn_pmem.shell.failures import explain
from drgn_pmem.shell.options import parse
from drgn_pmem.shell.target import open_target


def main(questions: str, pages: str, folder: str, *options: str) -> None:
    load_commands()
    output = Path(folder)
    output.mkdir(parents=True, exist_ok=True)
    target = open_target(parse(options))
    (output / "notes").write_text("".join(f"{note}\n" for note in (*target.notes, target.missing)))
    with (output / "status").open("w") as statuses:
        for line in Path(questions).read_text().splitlines():
            name, command, *arguments = shlex.split(line)
            start = time.monotonic()
            with (
                (output / f"{name}.out").open("w") as out,
                (output / f"{name}.err").open("w") as messages,
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(messages),
                Path(pages).open() as sys.stdin,
            ):
                try:
                    status = run_command(target, command, arguments)
                except PmemError as error:
                    print(f"drgn-pmem: {explain(error)}", file=sys.stderr)
                    status = 1
            print(name, status, f"{time.monotonic() - start:.1f}", file=statuses, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Pages taken away by hand: ``python -m tests.taken -h``.
"""

import argparse
import json

from drgn_pmem.commands import load_commands

from ..samples import Case, samples
from .lines import line_of
from .memory import Reads
from .trial import Trial, choose


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.taken")
    parser.add_argument("case", metavar="SAMPLE:FORMAT")
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help="of these only")
    parser.add_argument("--pages", type=int, default=5000, help="how many a command")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--page", type=lambda text: int(text, 0), help="this page only")
    parser.add_argument("--show", action="store_true", help="print both answers")
    args = parser.parse_args()
    name, _, format = args.case.partition(":")
    case = Case(samples()[name], format)
    trial = Trial(case)
    used: dict[str, int] = {}
    for spec in load_commands():
        if args.commands and spec.name not in args.commands:
            continue
        line = line_of(case, spec)

        def pick(reads: Reads, line: str = line) -> list[int]:
            if args.page is not None:
                return [args.page] if args.page in reads else []
            return choose(reads, args.pages, f"{args.seed} {line}", used)

        read, results = trial.asked_again(line, pick)
        wrong = whole = taken = 0
        for result in results:
            taken += 1
            whole += result.whole
            wrong += bool(result.faults)
            if result.faults:
                print(result)
            if args.show:
                for answer in (trial.full(line), trial.without(line, result.page, result.state)):
                    print(json.dumps(answer.json, indent=1), *answer.notes, answer.error, sep="\n")
        print(
            f"{case}: {line}: {taken} of {read} pages taken away: {whole} answers complete, "
            f"{wrong} wrong",
            flush=True,
        )


if __name__ == "__main__":
    main()

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Every command, without each page that its answer was read from: ``make test`` takes a few pages away
from each of some questions, spread over commands, dumps and the functions that read them; ``make
fuzz`` every page of every command on every dump, up to 5,000 each.
"""

from collections.abc import Callable
import os

import pytest

from drgn_pmem.commands import load_commands
from drgn_pmem.spec import Spec

from ..samples import Case, samples
from .lines import line_of
from .memory import Reads
from .trial import Trial, choose

EVERYTHING = "DRGN_PMEM_TAKEN" in os.environ
PAGES = int(os.environ.get("DRGN_PMEM_TAKEN", "3"))
"""Pages that are taken away from each command on each dump."""
EVERY = 1 if EVERYTHING else 6
"""Of the commands on a dump, each which is asked: on the next dump they are others."""

CASES = [Case(sample, format) for sample in samples().values() for format in sample.formats]


def is_asked(number: int, spec: Spec, place: int) -> bool:
    """Whether a command is asked of a dump. pmem-diff reads a second one for each answer: `make
    fuzz` alone asks it."""
    return (number + place) % EVERY == 0 and (spec.name != "pmem-diff" or EVERYTHING)


QUESTIONS = [
    pytest.param(case, spec, id=f"{case}-{spec.name}")
    for number, case in enumerate(CASES)
    for place, spec in enumerate(load_commands())
    if is_asked(number, spec, place)
]


@pytest.fixture(scope="module")
def trial(request: pytest.FixtureRequest) -> Trial:
    return Trial(request.param)


@pytest.mark.parametrize(("trial", "spec"), QUESTIONS, indirect=["trial"])
def test_answer_without_a_page_is_the_same_or_says_what_it_lacks(
    trial: Trial, spec: Spec, record_property: Callable[[str, object], None]
) -> None:
    line = line_of(trial.case, spec)

    def pick(reads: Reads) -> list[int]:
        return choose(reads, PAGES, f"{trial.case} {line}", {})

    read, results = trial.asked_again(line, pick)
    wrong, whole, taken = [], 0, 0
    for result in results:
        taken += 1
        whole += result.whole
        if result.faults:
            wrong.append(str(result))
    record_property("taken", (str(trial.case), spec.name, read, taken, whole, len(wrong)))
    assert not wrong, f"{trial.case}: {line}: {len(wrong)} of {taken} pages:\n" + "\n".join(wrong)

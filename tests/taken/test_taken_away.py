# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Every command on every dump, without each page that its answer was read from: ``make fuzz`` takes
every page away, up to 5,000 a command and dump.
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

PAGES = int(os.environ.get("DRGN_PMEM_TAKEN", "0"))
"""Pages that are taken away from each command on each dump."""

CASES = [Case(sample, format) for sample in samples().values() for format in sample.formats]

used: dict[str, int] = {}
"""How often pages that a function read were taken away."""


@pytest.fixture(scope="module", params=CASES, ids=str)
def trial(request: pytest.FixtureRequest) -> Trial:
    return Trial(request.param)


@pytest.mark.parametrize("spec", load_commands(), ids=lambda spec: spec.name)
def test_answer_without_a_page_is_the_same_or_says_what_it_lacks(
    trial: Trial, spec: Spec, record_property: Callable[[str, object], None]
) -> None:
    line = line_of(trial.case, spec)

    def pick(reads: Reads) -> list[int]:
        return choose(reads, PAGES, f"{trial.case} {line}", used)

    read, results = trial.asked_again(line, pick)
    wrong, whole, taken = [], 0, 0
    for result in results:
        taken += 1
        whole += result.whole
        if result.faults:
            wrong.append(str(result))
    record_property("taken", (str(trial.case), spec.name, read, taken, whole, len(wrong)))
    assert not wrong, f"{trial.case}: {line}: {len(wrong)} of {taken} pages:\n" + "\n".join(wrong)

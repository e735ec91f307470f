# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Every command without each member that it asked a structure for: never a traceback, and the answer
is the same or says that it is not complete. A seeded selection; ``make fuzz`` takes every member
away.
"""

from collections.abc import Callable
from dataclasses import replace
import os
import random
from typing import Any

import pytest

from drgn_pmem.commands import load_commands
from drgn_pmem.spec import Spec

from ..samples import Case, samples
from .lines import line_of
from .members import Hider, Member
from .trial import Trial, forked, outcome
from .verdict import Outcome, verdict

ALL = bool(os.environ.get("DRGN_PMEM_TAKEN"))

COUNT = 16
"""Members taken away from each command otherwise."""

CASES = (
    [Case(sample, next(iter(sample.formats))) for sample in samples().values()]
    if ALL
    else [Case(samples()["6.1-fileload"], "elf")]
)

SPECS = [spec for spec in load_commands() if spec.name not in ("pmem-diff", "pmem-report") or ALL]
"""The report asks all the others, so that it asks for thousands of members."""

ABSENT_SINCE = {
    ("struct dev_dax", "align"): "align",
    ("struct dev_dax", "target_node"): "target_node",
    ("struct nd_region", "target_node"): "target_node",
    ("struct nd_region", "align"): "align",
    ("struct nvdimm", "dimm_id"): "id",
    ("struct vmem_altmap", "end_pfn"): "end_pfn",
}
"""What kernels before some version did not have at all -> the key that is left out, as ndctl leaves
it out there."""


TELLS_AGE = {
    # since 6.10 the capture kernel writes the elfcorehdr; before, the crashed kernel did
    ("struct fw_dump", "elfcorehdr_addr"),
    # CONFIG_PRESERVE_FA_DUMP has a fw_dump of two members
    ("struct fw_dump", "reserve_dump_area_start"),
}
"""By their absence another kernel is recognised: the answer is the one for that."""


class Members:
    """A dump, and the members that questions to it ask for."""

    def __init__(self, case: Case) -> None:
        self.trial = Trial(case)
        self.hider = Hider(self.trial.prog)

    def asked(self, line: str) -> tuple[Outcome, list[Member]]:
        """The full answer, and what it asked for."""

        def ask() -> tuple[Outcome, list[Member]]:
            answer = outcome(self.trial.prog, line)
            return answer, sorted(self.hider.asked)

        answer = forked(ask)
        return answer if isinstance(answer, tuple) else (answer, [])

    def without(self, line: str, member: Member) -> Outcome:
        """The answer of a kernel without a member."""

        def ask() -> Outcome:
            self.hider.hidden = member
            return outcome(self.trial.prog, line)

        answer: Outcome = forked(ask)
        return answer


@pytest.fixture(scope="module", params=CASES, ids=str)
def members(request: pytest.FixtureRequest) -> Members:
    return Members(request.param)


@pytest.mark.xdist_group("hidden members")
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_member_that_a_kernel_lacks_is_said(
    members: Members, spec: Spec, record_property: Callable[[str, object], None]
) -> None:
    trial = members.trial
    line = line_of(trial.case, spec)
    full, asked = members.asked(line)
    assert full.fault is None
    assert full == trial.full(line), "another answer when its types are shown member by member"
    taken = asked if ALL else random.Random(line).sample(asked, min(COUNT, len(asked)))
    wrong = []
    whole = less = 0
    for member in taken:
        part = members.without(line, member)
        whole += part.whole
        # The "id" of a finding is that of its rule.
        key = None if spec.name == "pmem-diagnose" else ABSENT_SINCE.get(member)
        faults = verdict(spec.name, 0, _leave_out(full, key), _leave_out(part, key), trial.paths)
        if part.fault or (member not in TELLS_AGE and (part.denies or (part.whole and faults))):
            wrong.append(f"without {'.'.join(member)}: " + "\n    ".join(faults[:5]))
        elif faults:
            less += 1  # it says that it is not complete, and shows something under another name
    count = (str(trial.case), spec.name, len(asked), len(taken), whole, less, len(wrong))
    record_property("hidden", count)
    assert not wrong, f"{trial.case}: {line}: {len(wrong)} of {len(taken)} members:\n" + "\n".join(
        wrong
    )


def _leave_out(answer: Outcome, key: "str | None") -> Outcome:
    return answer if key is None else replace(answer, json=_without_key(answer.json, key))


def _without_key(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return {name: _without_key(item, key) for name, item in value.items() if name != key}
    return [_without_key(item, key) for item in value] if isinstance(value, list) else value

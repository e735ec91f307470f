# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The page of one known object taken away: what once changed an answer in silence, or into another.
"""

from collections.abc import Callable

from drgn import Object, Program
from drgn.helpers.linux.fs import for_each_mount
from drgn.helpers.linux.mm import follow_phys
import pytest

from drgn_pmem.commands import load_command
from drgn_pmem.dumpfile import State
from drgn_pmem.formats.infoblock import INFO_BLOCK_OFFSET
from drgn_pmem.kernel.namespace import for_each_namespace
from drgn_pmem.kernel.nvdimm import for_each_bus

from ..samples import Case, samples
from .lines import line_of
from .memory import page_size_of
from .trial import Trial, forked
from .verdict import verdict


def bus(prog: Program) -> Object:
    return next(iter(for_each_bus(prog))).object


def claim_of(dev: str) -> Callable[[Program], Object]:
    def claim(prog: Program) -> Object:
        found = next(n for n in for_each_namespace(prog) if n.dev == dev).claim_object
        assert found is not None
        return found

    return claim


def infoblock_of(dev: str) -> Callable[[Program], Object]:
    """The kernel's copy."""
    return lambda prog: claim_of(dev)(prog).pfn_sb


def mount_of(path: str) -> Callable[[Program], Object]:
    return lambda prog: next(iter(for_each_mount(prog, dst=path)))


OBJECTS = [
    ("pmem-list", "bus", bus),
    ("pmem-list", "claim of a devdax namespace", claim_of("namespace3.0")),
    ("pmem-list", "claim of a sector namespace", claim_of("namespace0.0")),
    ("pmem-rmap", "mount of the device nodes", mount_of("/dev")),
    ("pmem-page", "mount of the device nodes", mount_of("/dev")),
    ("pmem-pages", "mount of a file", mount_of("/mnt/small")),
    ("pmem-coverage", "bus", bus),
    ("pmem-coverage", "info block", infoblock_of("namespace5.0")),
    ("pmem-memmap", "info block", infoblock_of("namespace2.0")),
    ("pmem-usage", "bus", bus),
    ("pmem-usage", "info block", infoblock_of("namespace5.0")),
]


@pytest.fixture(scope="module")
def trial() -> Trial:
    return Trial(Case(samples()["6.1-fileload"], "elf"))


def test_place_of_the_info_block_of_a_raw_namespace() -> None:
    """Why it is raw became "reason unknown" in an answer that was complete."""
    trial = Trial(Case(samples()["6.1-fileload"], "raw"))
    line = line_of(trial.case, load_command("pmem-list"))

    def place() -> int:
        found = next(n for n in for_each_namespace(trial.prog) if n.dev == "namespace0.1")
        return found.resource + INFO_BLOCK_OFFSET

    page = forked(place)
    full, part = trial.full(line), trial.without(line, page, State.EXCLUDED)
    assert "reason unknown" in str(part.json)
    assert not verdict("pmem-list", page_size_of(trial.prog), full, part, trial.paths)


def test_sources_of_which_one_cannot_be_read_do_not_agree(trial: Trial) -> None:
    def page_of_pgmap() -> int:
        pgmap = next(n for n in for_each_namespace(trial.prog) if n.dev == "namespace1.1").pgmap
        physical = follow_phys(trial.prog["init_mm"].address_of_(), pgmap).value_()
        return int(physical // page_size_of(trial.prog) * page_size_of(trial.prog))

    part = trial.without("pmem-memmap", forked(page_of_pgmap), State.EXCLUDED)
    agree = {item["namespace"]: item["agree"] for item in part.json}
    assert (agree["namespace1.1"], agree["namespace2.0"]) == (None, True)


@pytest.mark.parametrize(
    ("command", "find"), [pytest.param(c, find, id=f"{c} {what}") for c, what, find in OBJECTS]
)
def test_answer_without_an_object_is_the_same_or_says_what_it_lacks(
    trial: Trial, command: str, find: Callable[[Program], Object]
) -> None:
    prog = trial.prog
    size = page_size_of(prog)

    def page_of() -> int:
        physical = follow_phys(prog["init_mm"].address_of_(), find(prog)).value_()
        return int(physical // size * size)

    line = line_of(trial.case, load_command(command))
    page = forked(page_of)
    full, part = trial.full(line), trial.without(line, page, State.EXCLUDED)
    assert full.whole
    assert full != part
    assert not verdict(command, size, full, part, trial.paths)

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every output in the tutorial and in the guide to scripting is what the example prints."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def examples() -> ModuleType:
    spec = importlib.util.spec_from_file_location("examples", DOCS / "examples.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["tutorial.md", "scripting.md"])
def test_the_outputs_are_what_the_examples_print(examples: ModuleType, name: str) -> None:
    session, environment = examples.open_sample()
    text = (DOCS / name).read_text()
    assert len(examples._BLOCK.findall(text)) >= 5
    assert text == examples.fill(text, session, environment), "run `make docs`"


def test_the_failure_of_the_tutorial_is_one_that_the_machine_recorded(sample) -> None:
    """The story is true: PFN, file, offset and processes are those of the recorded truth."""
    text = (DOCS / "tutorial.md").read_text()
    recorded = "\n".join(path.read_text() for path in sample.truth.glob("map.lab-poison.txt"))
    assert "pfn=0x1295f5" in recorded
    assert "path=/mnt/ext4/poison fileoff=0x0" in recorded
    victim = (sample.truth / "map.lab-victim.txt").read_text()
    assert "path=/mnt/ext4/poison" in victim
    for word in ("/mnt/ext4/poison", "lab-poison", "lab-victim", "0x1295f5"):
        assert word in text

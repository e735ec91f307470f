# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The documents say what the code says."""

import importlib.util
import json
from pathlib import Path
import re
from typing import Any

import pytest

import drgn_pmem
from drgn_pmem.commands import load_commands
from drgn_pmem.shell.sample import load_index

ROOT = Path(__file__).parents[2]


def writer(name: str) -> Any:
    """A program of docs/ that writes a page."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_command_reference_is_what_the_specs_say() -> None:
    reference = writer("reference").reference()
    assert (ROOT / "docs" / "commands.md").read_text() == reference, "run `make docs`"


def test_api_reference_is_what_the_docstrings_say() -> None:
    reference = writer("api").reference()
    assert (ROOT / "docs" / "api.md").read_text() == reference, "run `make docs`"


def test_api_reference_has_every_public_name_and_the_records_they_give() -> None:
    reference = writer("api").reference()
    for name in (*drgn_pmem.__all__, "Namespace", "PageOwners"):
        assert f"\n### {name}\n" in reference


def matrix() -> dict[str, Any]:
    return json.loads((ROOT / "docs" / "support-matrix.json").read_text())


def test_support_matrix_is_what_the_tests_found() -> None:
    by_hand = json.loads((ROOT / "docs" / "checked-by-hand.json").read_text())
    page = writer("matrix").page(matrix(), by_hand)
    assert (ROOT / "docs" / "support-matrix.md").read_text() == page, "run `make matrix`"


def test_support_matrix_has_every_command_on_every_sample_in_every_format() -> None:
    commands = {spec.name for spec in load_commands()}
    samples = matrix()["samples"]
    for name, sample in load_index(ROOT / "vmcores")[0].items():
        for format in sample.formats:
            assert set(samples[name]["formats"][format]) == commands, f"{name}: run `make matrix`"


def test_support_matrix_has_no_failure() -> None:
    for name, sample in matrix()["samples"].items():
        for format, cells in sample["formats"].items():
            failed = [command for command, cell in cells.items() if cell["state"] == "failed"]
            assert not failed, f"{name}, {format}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").glob("*.md")))
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), f"{path.name}: {target}"

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The public names of the package."""

import importlib
from pathlib import Path
import re
import subprocess
import sys

import pytest

import drgn_pmem
from drgn_pmem import symbols
from drgn_pmem.commands import load_commands

WANTED = [
    "open",
    "for_each_bus",
    "for_each_region",
    "for_each_namespace",
    "for_each_dimm",
    "for_each_dax_device",
    "for_each_dax_region",
    "for_each_pgmap",
    "for_each_iomem",
    "for_each_memmap_entry",
    "find_namespace",
    "namespace_of_pfn",
    "read_page",
    "parse_page",
    "owners_of",
    "list_files",
    "pages_of_file",
    "read_memmaps",
    "read_inventory",
    "read_infoblocks",
    "read_segments",
    "find_poison",
    "find_pins",
    "read_backtraces",
    "read_media",
    "read_pmem_page",
    "read_page_report",
    "read_crash_headers",
    "read_fadump",
    "State",
    "Cause",
    "Partial",
    "Problem",
    "PmemError",
]


def test_what_users_come_with_is_public() -> None:
    assert set(WANTED) <= set(drgn_pmem.__all__)


def test_dir_shows_what_is_public_and_nothing_else() -> None:
    assert dir(drgn_pmem) == sorted(drgn_pmem.__all__)


@pytest.mark.parametrize("name", drgn_pmem.__all__)
def test_every_public_name_is_one_of_its_module_with_a_docstring(name: str) -> None:
    module = importlib.import_module(f"drgn_pmem.{drgn_pmem._PUBLIC[name]}")
    assert name in module.__all__
    assert (getattr(drgn_pmem, name).__doc__ or "").strip()


def test_import_star_gives_all_of_them() -> None:
    names: dict[str, object] = {}
    exec("from drgn_pmem import *", names)
    assert set(drgn_pmem.__all__) <= set(names)


def test_importing_the_package_imports_nothing_of_it() -> None:
    source = (
        "import sys, drgn_pmem\n"
        "print([n for n in sys.modules if n.startswith('drgn_pmem.') or n == 'numpy'])"
    )
    result = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr


def test_modules_whose_debug_info_is_wanted_are_those_of_the_commands() -> None:
    wanted = {module for spec in load_commands() for module in spec.modules}
    assert set(symbols.MODULES) == wanted


def test_every_package_is_installed() -> None:
    """A wheel has the packages that pyproject.toml lists, and no others."""
    root = Path(__file__).parents[2]
    text = (root / "pyproject.toml").read_text()
    listed = re.search(r"^packages = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    assert listed is not None
    folders = (path.parent for path in (root / "drgn_pmem").rglob("__init__.py"))
    packages = {".".join(folder.relative_to(root).parts) for folder in folders}
    assert set(re.findall(r'"([\w.]+)"', listed[1])) == {*packages, "drgn_pmem.commands"}

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""drgn's own commands and helpers answer with our plugin, and after our commands, as without it."""

from collections.abc import Iterator
import contextlib
import inspect
import json
import os
from pathlib import Path
import subprocess
import sys

import drgn
import pytest

import drgn_pmem
from drgn_pmem.kernel.page_layout import page_layout
from tests.samples import CASES, Case, open_crash

FORMATS = ("elf", "raw", "zlib")
FIRST = CASES[0].sample
STOCK = [
    case
    for case in CASES
    if (case.format in FORMATS and case.sample is FIRST)
    or (case.format == "elf" and case.sample.name.startswith("arm64"))
]


def ask(case: Case, how: str) -> dict[str, str]:
    environment = {**os.environ, "DRGN_DISABLE_PLUGINS": "pmem" if how == "off" else ""}
    run = subprocess.run(
        [
            sys.executable,
            Path(__file__).with_name("stock.py"),
            case.dump,
            how,
            *case.sample.debug_info(),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    answers: dict[str, str] = json.loads(run.stdout)
    return answers


@pytest.mark.parametrize("case", STOCK, ids=str)
def test_stock_commands_and_helpers_answer_as_without_us(case: Case) -> None:
    off = ask(case, "off")
    assert len(off) > 50
    assert off["search bytes"] != "[]"
    assert "FaultError" not in off["%crash ps"]
    for how in ("loaded", "used"):
        answers = ask(case, how)
        assert answers.keys() == off.keys()
        for name, answer in answers.items():
            assert answer == off[name], f"{name}, {how}"


ARGUMENTS = {
    "find_namespace": ("namespace0.0",),
    "namespace_of_pfn": (0x144E00,),
    "find_pgmap": (0x144E00,),
    "read_page": (0x144E00,),
    "read_pmem_page": (0x144E00,),
    "owners_of": (0x144E00,),
    "pages_of_file": ("/mnt/ext4/file",),
    "parse_page": ("0x144e00",),
    "resolve_page": ("pmem0:0",),
}
READ_NO_MEMORY = {
    "open", "coverage_of", "dump_of", "parse_flags", "parse_refcount", "read_crashed_stack",
    "read_fadump",  # POWER only
    "scan_pages", "trim",  # take what others found
    "open_other", "diff_dumps",  # of two dumps
    "parse_page",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", ["namespace_of_pfn", "find_pgmap", "read_page", "read_pmem_page", "owners_of"]
)
def test_public_functions_take_a_struct_page_or_its_pfn(name: str) -> None:
    prog = open_crash(FIRST, FIRST.dump("elf"))
    page = drgn.Object(prog, "struct page *", page_layout(prog).address(0x144E00))
    function = getattr(drgn_pmem, name)
    by_pfn = function(prog, 0x144E00)
    assert function(prog, page) == by_pfn
    assert function(prog, drgn.Object(prog, "unsigned long", 0x144E00)) == by_pfn


def test_every_public_function_guards_what_it_reads() -> None:
    """Also in a script on a program that drgn opened, where no command was run before."""
    prog = open_crash(FIRST, FIRST.dump("elf"))
    seen = 0
    for name in drgn_pmem.__all__:
        function = getattr(drgn_pmem, name)
        if not inspect.isfunction(function) or name in READ_NO_MEMORY:
            continue
        prog.cache.clear()
        with contextlib.suppress(drgn_pmem.PmemError):
            result = function(prog, *ARGUMENTS.get(name, ()))
            if isinstance(result, Iterator):
                list(result)
        assert "drgn_pmem.guard_reads" in prog.cache, name
        seen += 1
    assert seen > 20

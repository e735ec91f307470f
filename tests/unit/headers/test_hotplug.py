# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What sysfs said of crash hotplug, and what cannot be known of it."""

from typing import Any

from drgn import Program, Symbol, SymbolBinding, SymbolKind
import pytest

from drgn_pmem.analysis.headers import hotplug
from drgn_pmem.analysis.headers.hotplug import _crash_elfcorehdr_size, _node
from drgn_pmem.partial import Cause, Problems

from ...synthetic import kernel


def machine() -> Program:
    """An x86_64 kernel with crash hotplug, without debug info of its tables."""
    prog = kernel("", {})
    symbol = Symbol(
        "arch_crash_get_elfcorehdr_size",
        0xFFFFFFFF81000000,
        64,
        SymbolBinding.GLOBAL,
        SymbolKind.FUNC,
    )
    prog.register_symbol_finder(
        "test", lambda _prog, name, _address, _one: [symbol] if name == symbol.name else [],
        enable_index=0,
    )  # fmt: skip
    return prog


def test_size_of_an_elfcorehdr_is_what_the_configuration_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """2 + CONFIG_NR_CPUS_DEFAULT + CONFIG_CRASH_MAX_MEMORY_RANGES program headers."""
    config = {
        "CONFIG_NR_CPUS_DEFAULT": "8192",
        "CONFIG_CRASH_MAX_MEMORY_RANGES": "8192",
        "CONFIG_MEMORY_HOTPLUG": "y",
    }
    monkeypatch.setattr(hotplug, "get_kconfig", lambda prog: config)
    problems = Problems()
    found = _crash_elfcorehdr_size(machine(), None, problems)
    assert (found.exists, found.value) == (True, 16386 * 56)
    assert not len(problems)


def test_size_of_an_elfcorehdr_is_not_known_without_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No dump of a kernel without CONFIG_IKCONFIG holds it, and that is said."""

    def none(prog: Program) -> Any:
        raise LookupError("kernel configuration not found; kernel must be compiled with IKCONFIG")

    monkeypatch.setattr(hotplug, "get_kconfig", none)
    problems = Problems()
    found = _crash_elfcorehdr_size(machine(), None, problems)
    assert (found.exists, found.value) == (True, None)
    assert found.why.startswith("unknown")
    (problem,) = problems
    assert problem.cause is Cause.FORMAT


def test_a_table_of_attributes_that_cannot_be_read_is_not_a_missing_file() -> None:
    """Said "no such file: the kernel has no crash hotplug" before."""
    problems = Problems()
    found = _node(machine(), None, True, False, "cpu", problems)
    assert (found.exists, found.value) == (None, None)
    assert problems

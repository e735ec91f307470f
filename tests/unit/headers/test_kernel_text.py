# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the kernel ends, which no module of drgn's has."""

from types import SimpleNamespace
from typing import Any

from drgn import FaultError
import pytest

from drgn_pmem.errors import NotFound
from drgn_pmem.kernel import crash_core, physical
from drgn_pmem.kernel.crash_core import KernelText, kernel_text, vmcoreinfo_note
from drgn_pmem.partial import NotSaved

LINKED = 0xFFFF800080000000


def machine(bias: int, module_size: int, end: int) -> Any:
    """A kernel linked at LINKED and moved by *bias*, of which drgn knows *module_size* bytes."""
    start = (LINKED + bias) % (1 << 64)
    symbols = {"_text": start, "_end": end}
    module = SimpleNamespace(address_range=(start, start + module_size), debug_file_bias=bias)
    return SimpleNamespace(
        symbol=lambda name: SimpleNamespace(address=symbols[name]), main_module=lambda: module
    )


@pytest.mark.parametrize("bias", [0, 0x2CD4BD1B0000, -0x1000000])
@pytest.mark.parametrize("gap", [0, 0x12C48], ids=["at-the-end", "beyond"])
def test_the_end_is_moved_as_the_kernel_is(
    monkeypatch: pytest.MonkeyPatch, bias: int, gap: int
) -> None:
    """drgn leaves _end where it was linked: it lies in no module."""
    monkeypatch.setattr(physical, "translate", lambda prog, virtual: 0x45DB0000)
    prog = machine(bias, 0x6E0000 - gap, LINKED + 0x6E0000)
    assert kernel_text(prog) == KernelText(
        virtual=LINKED + bias, physical=0x45DB0000, size=0x6E0000
    )


def test_an_end_that_is_in_the_module_was_moved_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(physical, "translate", lambda prog, virtual: 0x45DB0000)
    bias = 0x2CD4BD1B0000
    prog = machine(bias, 0x6E1000, LINKED + bias + 0x6E0000)
    assert kernel_text(prog).size == 0x6E0000


class Pointer:
    """vmcoreinfo_note of a kernel: its value, or a fault."""

    address_ = 0xFFFFFFFF82000000

    def __init__(self, value: int | None) -> None:
        self._value = value

    def value_(self) -> int:
        if self._value is None:
            raise FaultError("the dump left this memory out (excluded)", self.address_)
        return self._value


def test_a_note_that_cannot_be_read_is_not_one_that_was_never_set_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prog = SimpleNamespace()
    monkeypatch.setattr(crash_core, "find_variable", lambda prog, name, module: Pointer(None))
    with pytest.raises(NotSaved, match="left this memory out"):
        vmcoreinfo_note(prog)
    monkeypatch.setattr(crash_core, "find_variable", lambda prog, name, module: Pointer(0))
    with pytest.raises(NotFound, match="not set it up"):
        vmcoreinfo_note(prog)

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether struct pages are those of the crashed kernel: what counts as used, who may overwrite."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from drgn_pmem.analysis.memmap import intact
from drgn_pmem.dumpfile import DumpFormat
from drgn_pmem.errors import NotInKernel
from drgn_pmem.kernel.page_layout import DaxGeneration
from drgn_pmem.partial import NotSaved

PROG: Any = None
PGMAP, HEAD = 0xFFFF888000001000, 0xFFFFEA0000000001
FREE = 0xFFFFFFFF
OFFSETS = {"word": 8, "mapping": 24, "index": 32, "mapcount": 48, "refcount": 52}


def is_idle(generation: DaxGeneration, counts: int, **members: int) -> bool:
    check = object.__new__(intact._Check)
    layout: Any = SimpleNamespace(**OFFSETS, little_endian=True, generation=generation)
    check.layout = layout
    words = np.zeros((1, 8), np.uint64)
    words[0, 1] = PGMAP
    words[0, 6] = counts << 32 | members.pop("mapcount", FREE)
    for name, value in members.items():
        words[0, OFFSETS[name] // 8] = value
    return bool(check._idle(words)[0])


@pytest.mark.parametrize("generation", DaxGeneration)
def test_pages_of_shared_extents_are_in_use(generation: DaxGeneration) -> None:
    """Since 6.15 they have no mapping: a namespace whose files are all reflinked was destroyed."""
    idle = 0 if generation is DaxGeneration.FOLIO else 1
    assert is_idle(generation, idle)
    assert not is_idle(generation, idle, index=2), "its share count"
    assert not is_idle(generation, idle + 1)
    assert not is_idle(generation, idle, mapcount=0)
    assert not is_idle(generation, idle, mapping=0xFFFF888000002000)
    assert not is_idle(generation, 0, word=HEAD), "a tail page of a folio in use"


def destroyed(could_be: bool) -> bool:
    return intact.MemmapCheck(
        total=512,
        looked_at=512,
        zero=0,
        heads=512,
        foreign=512,
        foreign_pgmap=PGMAP,
        used=0,
        entries=16,
        entries_idle=16,
        could_be=could_be,
    ).destroyed


@pytest.mark.parametrize(
    ("contained", "hypervisor", "panicked", "image", "could_be"),
    [
        (DumpFormat.ELF, False, True, True, True),
        (DumpFormat.LIVE, False, False, True, False),
        (DumpFormat.ELF, True, False, True, False),
        (DumpFormat.ELF, True, True, None, False),
        (DumpFormat.ELF, True, True, NotInKernel("no kexec"), False),
        (DumpFormat.ELF, True, True, True, True),
        (DumpFormat.ELF, True, NotSaved("panic_cpu"), True, True),
    ],
)
def test_struct_pages_are_overwritten_only_where_a_capture_kernel_ran(
    monkeypatch: pytest.MonkeyPatch,
    contained: DumpFormat,
    hypervisor: bool,
    panicked: bool | Exception,
    image: bool | Exception | None,
    could_be: bool,
) -> None:
    def answer(value: Any) -> Any:
        def read(prog: Any) -> Any:
            if isinstance(value, Exception):
                raise value
            return value

        return read

    dump = SimpleNamespace(contained=contained, hypervisor=hypervisor)
    monkeypatch.setattr(intact, "dump_of", lambda prog: dump)
    monkeypatch.setattr(intact, "has_panicked", answer(panicked))
    monkeypatch.setattr(intact, "crash_image", answer(image))
    assert intact._could_be(PROG) is could_be
    assert destroyed(could_be) is could_be

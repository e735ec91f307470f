# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How pmem-trim names the parts of namespaces that it drops."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from drgn_pmem.analysis.inventory.parts import USERDATA, Stretch
from drgn_pmem.analysis.trim.metadata import parts_of


@pytest.mark.parametrize(
    ("enabled", "words"),
    [
        (True, "contents (raw mode)"),
        # Shown as raw, whatever mode its info block has.
        (False, "contents (disabled)"),
        (None, "contents (raw mode or disabled)"),
    ],
)
def test_a_disabled_namespace_is_not_called_raw(enabled: bool | None, words: str) -> None:
    namespace: Any = SimpleNamespace(dev="namespace0.2", mode="raw", enabled=enabled)
    stretch = Stretch(kind=USERDATA, start=0x1000, end=0x2000)
    ((name, _),) = parts_of([(cast("Any", namespace), [stretch])])
    assert name == f"namespace0.2: {words}"

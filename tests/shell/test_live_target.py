# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A live kernel that cannot be opened."""

from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from drgn_pmem.errors import DumpFileError
from drgn_pmem.shell import target
from drgn_pmem.shell.options import parse


def test_a_file_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> NoReturn:
        raise FileNotFoundError(2, "No such file or directory", "/proc/kcore")

    kernel: Any = SimpleNamespace(set_kernel=refuse)
    monkeypatch.setattr(target.drgn, "Program", lambda **_: kernel)
    with pytest.raises(DumpFileError) as error:
        target.open_target(parse(["-k", "pmem-list"]))
    assert str(error.value) == (
        "the running kernel cannot be read: /proc/kcore: No such file or directory"
    )

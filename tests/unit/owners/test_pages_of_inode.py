# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""An inode that is not among the files that could be read may still be that of a DAX file."""

from types import SimpleNamespace
from typing import Any

import pytest

from drgn_pmem.analysis.owners import files
from drgn_pmem.errors import NotFound
from drgn_pmem.partial import Cause, Incomplete, Partial, Problem

UNREAD = Problem(cause=Cause.NOT_SAVED, why="super_blocks was not saved")


@pytest.mark.parametrize(("problems", "error"), [((), NotFound), ((UNREAD,), Incomplete)])
def test_an_inode_of_no_file_that_could_be_read(
    monkeypatch: pytest.MonkeyPatch, problems: tuple[Problem, ...], error: type[Exception]
) -> None:
    nothing: Any = Partial(SimpleNamespace(files=()), problems)
    monkeypatch.setattr(files, "dax_files_of", lambda prog: nothing)
    monkeypatch.setattr(files, "dax_chars_of", lambda prog: Partial(()))
    inode: Any = 0xFFFF888000001000
    with pytest.raises(error):
        files._of_inode(None, inode)  # type: ignore[arg-type]

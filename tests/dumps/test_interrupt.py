# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ctrl-C in a long walk: what was found until then is shown, marked, and not taken for all."""

from collections.abc import Callable, Iterator
import itertools
import shlex

import pytest

from drgn_pmem.analysis.findings import pins, poison
from drgn_pmem.analysis.owners import daxfiles, files as filelist
from drgn_pmem.analysis.owners.daxfiles import dax_files_of
from drgn_pmem.analysis.pages import named
from drgn_pmem.commands import load_commands
from drgn_pmem.spec import SPECS, Answer

from ..samples import CASES

case = CASES[0]


def answer(line: str) -> Answer:
    load_commands()
    name, *words = shlex.split(line)
    spec = SPECS[name]
    return spec.function(case.prog, spec.parser().parse_args(words))


def interrupted_after(function: Callable, calls: int) -> Callable:
    """The function, but the user presses Ctrl-C in a later call."""
    count = itertools.count(1)

    def call(*args: object, **kwargs: object) -> object:
        if next(count) > calls:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    return call


def test_files_that_were_read_before_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = answer("pmem-files --all")
    read = daxfiles.for_each_dax_inode

    def interrupted(*args: object) -> Iterator[object]:
        yield from itertools.islice(read(*args), 3)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.delitem(case.prog.cache, "drgn_pmem.dax_files")
        patch.setattr(daxfiles, "for_each_dax_inode", interrupted)
        part = answer("pmem-files --all")
        assert not part.whole
        assert any("interrupted: 3 files were read" in note for note in part.all_lacks())
        files = [f for f in part.records if f.pages is not None]
        assert len(files) == 3
        assert {f.inode for f in files} < {f.inode for f in whole.records}
        # Who needs all files to say who owns a page gets none rather than some.
        with pytest.raises(KeyboardInterrupt):
            dax_files_of(case.prog)
        assert "drgn_pmem.dax_files" not in case.prog.cache
    assert len(answer("pmem-files --all").records) == len(whole.records)


def test_files_that_were_counted_before_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filelist, "_summary", interrupted_after(filelist._summary, 2))
    part = answer("pmem-files")
    assert not part.whole
    assert any("interrupted: 2 of" in note for note in part.all_lacks())
    assert len([f for f in part.records if f.pages is not None]) == 2


@pytest.mark.parametrize(("line", "module"), [("pmem-poison", poison), ("pmem-pins", pins)])
def test_pages_that_were_looked_at_before_ctrl_c(
    line: str, module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = answer(line)
    assert len(whole.records) > 1, "nothing to interrupt"
    monkeypatch.setattr(
        module._Search,
        "_page",
        interrupted_after(module._Search._page, 1),  # type: ignore[attr-defined]
    )
    part = answer(line)
    assert not part.whole
    assert [p.pfn for p in part.records] == [whole.records[0].pfn]
    assert any(f"interrupted: 1 of {len(whole.records)}" in note for note in part.all_lacks())


def test_owners_that_were_found_before_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    pfns = [hex(p.pfn) for p in answer("pmem-poison").records][:3]
    monkeypatch.setattr(named, "owners_of", interrupted_after(named.owners_of, 2))
    part = answer("pmem-rmap " + " ".join(pfns))
    assert not part.whole
    assert [hex(p.pfn) for p in part.records] == pfns[:2]
    assert "interrupted: 2 of 3 pages were looked at" in part.all_lacks()

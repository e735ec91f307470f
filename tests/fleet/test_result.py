# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which results stand, and which dumps are read again."""

import json
from pathlib import Path
from typing import Any

import pytest

from drgn_pmem.fleet.request import Request
from drgn_pmem.fleet.result import Result, State, load_result, make_result, write_result
from drgn_pmem.fleet.run import _stale
from tests.fleet.conftest import Ask


@pytest.fixture
def request_(ask: Ask, tmp_path: Path) -> Request:
    (tmp_path / "vmcore").write_bytes(b"x" * 100)
    return ask(tmp_path / "vmcore", debug_info="digest")


def made(request: Request, state: State = State.DONE, **more: Any) -> Result:
    return Result(make_result(request, state, None, tries=1, seconds=1.0, **more))


def test_a_request_comes_back_as_it_was_sent(request_: Request) -> None:
    assert Request.loads(request_.dumps()) == request_
    assert request_.dumps().isascii()


@pytest.mark.parametrize("state", [State.DONE, State.REFUSED])
def test_a_dump_that_was_done_is_not_done_again(request_: Request, state: State) -> None:
    assert made(request_, state).is_of(request_)


@pytest.mark.parametrize("key", ["size", "changed", "sha256", "version"])
def test_but_if_it_or_the_product_changed(request_: Request, key: str) -> None:
    value = {**make_result(request_, State.DONE, None, tries=1, seconds=1.0)}
    value[key] = 1 if isinstance(value[key], int) else "other"
    assert not Result(value).is_of(request_)


@pytest.mark.parametrize("state", [State.CRASHED, State.UNSEEN])
def test_what_may_not_be_by_the_dump_is_tried_again(request_: Request, state: State) -> None:
    assert not made(request_, state).is_of(request_)


def test_limits_that_grew_are_a_reason(ask: Ask, tmp_path: Path, request_: Request) -> None:
    for state, key in ((State.TIMEOUT, "timeout"), (State.MEMORY, "memory_limit")):
        result = made(request_, state)
        assert result.is_of(request_)
        assert not result.is_of(ask(tmp_path / "vmcore", **{key: getattr(request_, key) * 2}))


def test_debug_info_that_was_missing_is_a_reason(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "vmcore").write_bytes(b"x")
    before = ask(tmp_path / "vmcore", debug_info="few")
    after = ask(tmp_path / "vmcore", debug_info="more")
    assert not made(before, missing="no debug info of Linux 6.1").is_of(after)
    assert made(before, missing="no debug info of Linux 6.1").is_of(before)
    assert made(before, missing="").is_of(after)


def test_a_result_is_read_back(request_: Request) -> None:
    write_result(request_, make_result(request_, State.TIMEOUT, "late", tries=1, seconds=2.04))
    result = load_result(request_.result)
    assert result is not None
    assert (result.state, result.error, result.seconds) == (State.TIMEOUT, "late", 2.0)


@pytest.mark.parametrize(
    "change",
    [
        {"state": "fine"},
        {"state": None},
        {"size": "large"},
        {"findings": 3},
        {"findings": [3]},
        {"error": 5},
        {"complete": "yes"},
    ],
)
def test_a_file_that_is_no_result_is_none(request_: Request, change: dict[str, Any]) -> None:
    value = make_result(request_, State.DONE, None, tries=1, seconds=1.0)
    request_.result.write_text(json.dumps(value | change))
    assert load_result(request_.result) is None


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '{"state": "done"}'])
def test_nor_is_other_text(request_: Request, text: str) -> None:
    request_.result.write_text(text)
    assert load_result(request_.result) is None


def test_a_result_of_a_dump_that_changed_or_is_gone_is_out_of_date(
    ask: Ask, tmp_path: Path, request_: Request
) -> None:
    """After ``--resume`` the index showed it as any other."""
    result, dump = made(request_), tmp_path / "vmcore"
    assert _stale(result, request_) == _stale(result, None) == ""
    later = ask(dump, version="0.0.9")
    assert _stale(result, later) == f"made by drgn-pmem {request_.version}"
    dump.write_bytes(b"y" * 101)
    assert _stale(result, ask(dump)) == _stale(result, None) == "the dump changed since"
    dump.unlink()
    assert _stale(result, None) == "the dump is not there any more (No such file or directory)"

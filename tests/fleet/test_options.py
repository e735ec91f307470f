# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The arguments of drgn-pmem fleet."""

import pytest

from drgn_pmem.errors import UsageError
from drgn_pmem.fleet.options import ARGUMENTS, parse_fleet, size_of


def test_what_is_typed_is_what_is_done() -> None:
    line = (
        "--timeout 90 /a -o /out /b -j 3 --memory-limit 512M --debug-directory /d "
        "--debug-directory /e --resume --scheduler tcp://127.0.0.1:8786"
    )
    options = parse_fleet(line.split())
    assert options is not None
    assert options.dumps == ("/a", "/b")
    assert (options.output, options.jobs, options.timeout) == ("/out", 3, 90)
    assert options.memory_limit == 512 << 20
    assert options.debug_directories == ("/d", "/e")
    assert options.scheduler == "tcp://127.0.0.1:8786"
    assert options.resume


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/a", "give the folder of the reports with -o FOLDER"),
        ("-o /out", "give dumps, or folders with dumps"),
        ("/a -o /out -j 0", "-j takes a number of dumps"),
        ("/a -o /out -j many", "-j"),
        ("/a -o /out --scheduler head", "--scheduler takes tcp://HOST:PORT, not 'head'"),
        ("/a -o /out --scheduler tcp://head", "--scheduler takes tcp://HOST:PORT"),
        ("/a -o /out --timeout 0", "--timeout takes seconds"),
        ("/a -o /out --timeout nan", "--timeout takes seconds"),
        ("/a -o /out --memory-limit lots", "such as 512M or 8G"),
        ("/a -o /out --memory-limit 1K", "too little to open any dump"),
        ("/a -o /out --colour", "--colour"),
    ],
)
def test_wrong_usage_is_one_line(line: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_fleet(line.split())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512M", 512 << 20),
        ("8g", 8 << 30),
        ("1T", 1 << 40),
        ("2GiB", 2 << 30),
        ("99999999", 99999999),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert size_of(text) == size


def test_help_has_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_fleet(["-h"]) is None
    shown = capsys.readouterr().out
    for argument in ARGUMENTS:
        assert argument.names[-1] in shown.lower()
    assert "pip install 'drgn-pmem[fleet]'" in shown


def test_what_no_machine_has_is_refused() -> None:
    with pytest.raises(UsageError, match="more than a process can have"):
        size_of("99999999T")
    with pytest.raises(UsageError, match="-o FOLDER"):
        parse_fleet(["dump", "-o", ""])

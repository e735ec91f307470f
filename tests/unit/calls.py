# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How many calls a piece of work makes: what a test can hold where a time would depend on the
machine (``make bench`` measures the times)."""

from collections.abc import Callable
import sys
from typing import Any


def calls_of(work: Callable[[], Any]) -> int:
    """Python and C functions that are called."""
    count = 0

    def counted(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count

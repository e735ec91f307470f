# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests of one dump run in one process, which opens the dump once."""

import os

import pytest

from ..dumps.conftest import DISTRIBUTION

# Commands are asked for one page after the other only where someone asks for it (make fuzz).
collect_ignore = [] if os.environ.get("DRGN_PMEM_TAKEN") else ["test_taken_away.py"]
if not DISTRIBUTION:
    collect_ignore.append("test_modules.py")


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the marks in its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and "trial" in callspec.params:
            item.add_marker(pytest.mark.xdist_group(f"taken {callspec.params['trial']}"))

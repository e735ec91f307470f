# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests of one dump run in one process, which opens the dump once."""

import pytest

from ..dumps.conftest import DISTRIBUTION

collect_ignore = [] if DISTRIBUTION else ["test_modules.py"]


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the marks in its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and "trial" in callspec.params:
            item.add_marker(pytest.mark.xdist_group(f"taken {callspec.params['trial']}"))

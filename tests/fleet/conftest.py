# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of fleets share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drgn_pmem.fleet.find import identity_of, name_of
from drgn_pmem.fleet.request import Request, product_version

Ask = Callable[..., Request]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Makes the request for a dump, of a run that goes on in ``fleet`` below the test's folder."""
    folder = tmp_path / "fleet"
    for name in ("reports", "results"):
        (folder / name).mkdir(parents=True)
    (folder / ".run").write_text("run")

    def make(dump: Path, **changed: Any) -> Request:
        values: dict[str, Any] = {
            "dump": str(dump),
            **identity_of(str(dump)).to_json(),
            "name": name_of(str(dump)),
            "folder": str(folder),
            "run": "run",
            "version": product_version(),
            "debug_directories": (),
            "debug_info": "",
            "timeout": 60.0,
            "memory_limit": 1 << 30,
            "tries": 2,
        }
        return Request(**values | changed)

    return make

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fixtures over the sample dumps."""

import pytest

from drgn_pmem.shell.sample import Sample

from ..samples import CASES, Case, pmem_samples

DISTRIBUTION = [sample for sample in pmem_samples() if sample.debug_directories]
"""Samples of kernels with modules, whose debug info is searched; those that make test-distro
makes."""

collect_ignore = [] if DISTRIBUTION else ["test_degraded.py"]


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    """Every sample in every format."""
    return request.param


@pytest.fixture(params=pmem_samples(), ids=lambda sample: sample.name)
def sample(request: pytest.FixtureRequest) -> Sample:
    """Every sample of a machine with NVDIMMs."""
    return request.param


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the marks in its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one dump run in one process, which opens the dump once."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        for value in callspec.params.values() if callspec is not None else ():
            if isinstance(value, Case | Sample):
                name = str(value) if isinstance(value, Case) else value.name
                item.add_marker(pytest.mark.xdist_group(name))
                break

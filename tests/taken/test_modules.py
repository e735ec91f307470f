# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Debug info of the kernel modules that a command names, taken away one at a time.

The crashed kernels are a distribution's (``make test-distro``), whose drivers are modules.
"""

import pytest

import drgn_pmem
from drgn_pmem.commands import load_commands
from drgn_pmem.kernel.kmod import lacking_modules
from drgn_pmem.spec import Spec

from ..dumps.conftest import DISTRIBUTION
from ..dumps.test_degraded import file_of_module, opened
from ..samples import Case
from .lines import line_of
from .trial import outcome
from .verdict import verdict


@pytest.mark.parametrize(
    "spec", [spec for spec in load_commands() if spec.modules], ids=lambda spec: spec.name
)
@pytest.mark.parametrize("case", [Case(sample, "raw") for sample in DISTRIBUTION], ids=str)
def test_answer_without_a_module_is_the_same_or_says_what_it_lacks(case: Case, spec: Spec) -> None:
    wanted = set(lacking_modules(opened(case), spec.modules))
    line = line_of(case, spec)
    full = outcome(opened(case, sorted(wanted)), line)
    assert full.fault is None
    for module in wanted:
        (folder,) = case.sample.kernel_directories
        files = [file_of_module(case, name) for name in sorted(wanted - {module})]
        prog = drgn_pmem.open(case.dump, [folder / "vmlinux", *files])
        assert not verdict(spec.name, 0, full, outcome(prog, line)), module

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A question for each command to each sample, from what was recorded of its processes."""

import re

from drgn_pmem.spec import Spec

from .dumps.truth_owners import is_pmem, pages, shown_path
from .samples import Case

__all__ = ("question", "recorded_pages", "recorded_path")


def question(spec: Spec, case: Case) -> str:
    """
    The command's line: what it cannot do without is what was recorded of this sample, pages that
    processes had mapped and a file of theirs. Machines without any have RAM and a root directory.
    """
    needed = [a.names[0] for a in spec.arguments if not a.is_option and "nargs" not in a.options]
    needed += [
        a.names[0] for a in spec.arguments if not a.is_option and a.options.get("nargs") == "+"
    ]
    values = {
        "page": lambda: recorded_pages(case),
        "path": lambda: [recorded_path(case)],
        "dump": lambda: [str(case.dump)],  # the dump itself: nothing differs
    }
    return " ".join([spec.name, *(value for name in needed for value in values[name]())])


def recorded_pages(case: Case) -> list[str]:
    if any(case.sample.truth.glob("final.*.txt")):
        found = {page.pfn for page in pages(case, present=True) if is_pmem(case, page.pfn)}
        # Pages of every file, but of 2 MiB mappings only some.
        return [f"{pfn:#x}" for pfn in sorted(found)[:: max(1, len(found) // 64)]]
    (iomem,) = [*case.sample.truth.glob("iomem"), *case.sample.truth.glob("first/iomem")]
    start = re.search(r"^(\w+)-\w+ : System RAM", iomem.read_text(), re.MULTILINE)
    assert start is not None
    return [f"{int(start[1], 16):#x}"]


def recorded_path(case: Case) -> str:
    if any(case.sample.truth.glob("final.*.txt")):
        return next(
            shown_path(page)
            for page in pages(case, present=True)
            if page.path.startswith("/mnt/") and "(deleted)" not in page.path
        )
    return "/"

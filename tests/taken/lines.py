# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The questions that are asked of a dump: every command, with what was recorded of the sample."""

from drgn_pmem.spec import Spec

from ..questions import question, recorded_pages
from ..samples import Case

__all__ = ("line_of",)

_OPTIONS = {"pmem-list": "-BDRNXi -vv"}
_PAGES = 4
"""Pages that a command about pages is asked for, of all that were recorded."""


def line_of(case: Case, spec: Spec) -> str:
    """A command line for a command."""
    words = question(spec, case).split()[1:]
    if words == recorded_pages(case):
        words = words[:: max(1, len(words) // _PAGES)][:_PAGES]
    return " ".join([spec.name, *words, *_OPTIONS.get(spec.name, "").split()])

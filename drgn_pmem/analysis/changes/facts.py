# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Facts of a dump that another one may not share
----------------------------------------------

Small values without drgn objects, so that the facts of one dump can be kept while another one is
read. Each kind has its own problems: what one dump does not hold makes that kind unknown, not the
others.
"""

from collections.abc import Iterator
import enum
import re
from typing import Any

from drgn_pmem.analysis.changes.identity import Identity
from drgn_pmem.partial import Problem
from drgn_pmem.record import Record, shown

__all__ = ("PERHAPS", "UNKNOWN", "DumpFacts", "Facts", "Item", "Kind")

_NAMES_ONE = re.compile(r"\bnamespace\d|\bPFN 0x|\bphysical 0x")


class Kind(enum.Enum):
    """What is compared."""

    DIMM = "DIMM"
    REGION = "region"
    NAMESPACE = "namespace"
    ENTRY = "list entry"
    """Of ``devm_memmap_vmcore``."""
    COVERAGE = "coverage"
    """What the dump holds of a namespace."""
    POISON = "bad page"
    PIN = "pinned page"
    FILE = "file"
    """A DAX file or device with pages in it or mapped. A file without may still be there."""


class _Unknown(enum.Enum):
    UNKNOWN = "unknown"
    PERHAPS = "none, or unknown"

    def __repr__(self) -> str:
        return "unknown"


UNKNOWN = _Unknown.UNKNOWN
"""The value of a field that the dump does not hold."""

PERHAPS = _Unknown.PERHAPS
"""The value of a field that has none, in a dump that does not hold all: it may be unknown."""


class Item(Record):
    """One thing of one dump."""

    name: str
    """What the user reads."""
    key: str | None
    """What is the same in every dump; None if that is not known."""
    place: str | None = None
    """Where it is: what took its place is the same thing, changed."""
    number: int | None = None
    """PFN."""
    values: dict[str, Any]
    """By name of the field: text, numbers, tuples of text; :data:`UNKNOWN` where the dump does not
    hold it, None where there is none."""
    summary: str
    """For a thing that only one dump has."""
    certain: bool = True
    """Whether it is one of the kind; False if what shows that could not be read."""
    why: str | None = None
    """Why a value is :data:`UNKNOWN`, where no problem of the kind says it."""


class Facts(Record):
    """All things of one kind."""

    kind: Kind
    items: tuple[Item, ...]
    problems: tuple[Problem, ...]
    absent: str | None = None
    """Why this kernel has none of this kind at all; None if it can have them."""

    @property
    def complete(self) -> bool:
        """Whether these are all, with all that is known of them."""
        return not any(problem.degrades for problem in self.problems)

    @property
    def why(self) -> str:
        """The first reason why they are not all."""
        return next(self._reasons(), "")

    def why_of(self, item: Item) -> str:
        """Why something of one of them is unknown: its own reason, the first one that names it, or
        that names no page and no namespace at all; never one that is about another."""
        if item.why is not None:
            return item.why
        reasons = list(self._reasons())
        its = (text for text in reasons if re.search(rf"\b{re.escape(item.name)}\b", text))
        general = (text for text in reasons if not _NAMES_ONE.search(text))
        return next(its, next(general, "not in the dump"))

    def _reasons(self) -> Iterator[str]:
        return (str(problem) for problem in self.problems if problem.degrades)


class DumpFacts(Record):
    """The facts of one dump."""

    identity: Identity
    kinds: dict[Kind, Facts] = shown(json=False)

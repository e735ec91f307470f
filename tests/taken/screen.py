# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The first screen of a dump with a page less: what it must not say.

It is English, so only some of what would be wrong can be found: a line that is left out, a smaller
number that is not "at least", and a statement that there is nothing or that all is well, which
the whole dump does not bear out.
"""

from collections.abc import Iterator, Mapping
import re

__all__ = ("overstated",)

_OF_THE_DUMP = {"DUMP", "TRUST", "LACKS"}
"""Lines about what the dump holds: they follow the page."""

_NOT_KNOWN = re.compile(
    r"(there may be more|not known(?:: [^(]*)?|none was found, but not all could be looked at"
    r"|not known whether there is any) \((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"
)
_CLAUSES = re.compile(r"; |, | \(|\)|: | and | by ")
_COUNTED = re.compile(r"(at least )?(\d+) (pages?|NVDIMMs?|namespaces?)\b")
_DENIES = re.compile(r"\b(no|not|never|none|nothing|all|every|only|without|valid|complete)\b")
_DOUBTS = re.compile(
    r"at least|known|may be|could not|was not saved|not in the dump|without a name|not loaded"
    r"|filtered|its headers describe"
)


def overstated(full: Mapping[str, str], part: Mapping[str, str], whole: bool) -> list[str]:
    """
    :param full: Label -> text of the first screen of the whole dump.
    :param part: The same of the dump with a page less.
    :param whole: Whether that answer says that it is complete.
    :return: What the second screen says without a reason.
    """
    found = []
    for label, text in full.items():
        if label not in part and label not in {"DO", *(_OF_THE_DUMP if whole else ())}:
            found.append(f"{label} is missing: {text}")
    for label, text in part.items():
        before = full.get(label, "")
        if text == before or label == "DO":
            continue
        if whole:
            if label not in _OF_THE_DUMP:
                found.append(f"SILENT {label}: {before} became {text}")
            continue
        found += [f"{label}: {line}" for line in _of_line(before, text)]
    return found


def _of_line(before: str, text: str) -> Iterator[str]:
    said = _NOT_KNOWN.sub("", text)
    counts = {noun.rstrip("s"): int(count) for _, count, noun in _COUNTED.findall(before)}
    for at_least, count, noun in _COUNTED.findall(said):
        if not at_least and int(count) < counts.get(noun.rstrip("s"), 0):
            yield f"{count} {noun}, and there are more: {before}"
    clauses = set(_CLAUSES.split(before))
    for clause in _CLAUSES.split(said):
        if clause not in clauses and _DENIES.search(clause) and not _DOUBTS.search(clause):
            yield f"{clause!r} is not said of the whole dump: {before}"

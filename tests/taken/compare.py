# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What an answer with a page less contradicts of the full answer.

Of an answer that says it is not complete, every record is one of the full answer, or differs only
where a value is unknown: null, an enumerator that says so, a key or an entry that is left out. An
answer that says it is complete is the full answer. Values that describe the dump itself follow the
page: bytes by state.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import json
import re
from typing import Any

from drgn_pmem.dumpfile.coverage import State

__all__ = ("Rules", "contradictions")

STATES = {state.value for state in State}
NOT_SAVED = STATES - {State.SAVED.value}

UNKNOWN = {None, "unknown", "unreadable", "not known", "reconstructed"}
"""Values that say that a value is not known, or was not read where it belongs."""

PROSE = {
    "advice", "arithmetic", "error", "evidence", "from", "lacks", "notes", "reason", "verdict",
    "why", "why_unknown", "words",
}  # fmt: skip
"""Keys of sentences, which explain what is missing."""

_OF_STATES = ("advice", "verdict")
"""Keys of sentences about how much of something a dump holds: they follow its bytes by state."""


@dataclass(frozen=True)
class Rules:
    """
    How answers of a command are compared.

    :param page: Size of the page that was taken away (bytes).
    """

    page: int
    counts: frozenset[str] = frozenset()
    """Keys of numbers that count what was found: fewer in an answer that is not complete."""
    cuts: frozenset[str] = frozenset()
    """Keys of numbers of pieces into which something is cut: what is missing cuts once more."""
    falls: Mapping[str, int] = field(default_factory=dict)
    """Keys of numbers that count what the dump holds -> by how much they may be less, whether the
    answer is complete or not."""
    rises: Mapping[str, int] = field(default_factory=dict)
    """Keys of numbers that count what the dump lacks -> by how much they may be more."""
    times: int = 1
    """How often a page counts in bytes by state."""
    parts: frozenset[str] = frozenset()
    """Keys of sizes of what an entry is part of: where that is null, the entry may be a part of one
    of the full answer's that has another part, too."""
    paths: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Path of a file -> all of its paths, of which one may stand for another."""


def contradictions(full: Any, part: Any, whole: bool, rules: Rules) -> list[str]:
    """
    :param full: JSON of the full answer.
    :param part: JSON of the answer with a page less.
    :param whole: Whether that answer says that it is complete.
    :return: Where the second contradicts the first, and how.
    """
    return _Comparison(whole, rules).values("", "", full, part)


class _Comparison:
    def __init__(self, whole: bool, rules: Rules) -> None:
        self._whole = whole
        self._rules = rules

    def values(self, where: str, key: str, full: Any, part: Any) -> list[str]:
        if full == part and type(full) is type(part):
            return []
        if key in PROSE and not self._whole:
            return []
        if key == "unknown" and not full and _by_state(part) and not self._whole:
            return []
        if _by_state(full) and _by_state(part) and (full or part):
            return self._by_state(where, full, part)
        if isinstance(full, Mapping) and isinstance(part, Mapping):
            return self._mappings(where, full, part)
        if isinstance(full, list) and isinstance(part, list):
            return self._lists(where, full, part)
        if _is_number(full) and _is_number(part):
            if 0 <= full - part <= self._rules.falls.get(key, -1):
                return []
            if 0 <= part - full <= self._rules.rises.get(key, -1):
                return []
            if key == "unknown" and not self._whole and part > full:
                return []
            if key in self._rules.counts and not self._whole and part < full:
                return []
            if key in self._rules.cuts and not self._whole and part > 0:
                return []
        if (key == "status" or key.endswith("state")) and part in NOT_SAVED and not self._whole:
            return []
        if key.endswith("state") and full == State.SAVED.value and part in NOT_SAVED:
            return []
        if not self._whole and (
            _is_unknown(part) or self._same_file(full, part) or _counts_less(full, part)
        ):
            return []
        return [f"{where or 'answer'}: {_short(full)} became {_short(part)}"]

    def _same_file(self, full: Any, part: Any) -> bool:
        """Whether the second text names what the first does with less: a file by another of its
        paths, by its inode or file system; a file or namespace by the address of what it has."""
        if not isinstance(full, str) or not isinstance(part, str):
            return False
        if re.fullmatch(r"(address space|pgmap) 0x[0-9a-f]+", part):
            return not re.fullmatch(r"(address space|pgmap) 0x[0-9a-f]+", full)
        if re.fullmatch(r"dax[\d.]+", part):  # the device that has a namespace as RAM
            return full.startswith("namespace")
        (path, inode), (other, same) = map(_path_and_inode, (full, part))
        if other is None:
            return inode is None or same == inode
        return same == inode and (
            other in self._rules.paths.get(path or "", ())
            or (inode is not None and re.fullmatch(r"a file of \S+", other) is not None)
        )

    def _by_state(self, where: str, full: Mapping[str, int], part: Mapping[str, int]) -> list[str]:
        """The page went from saved to another state; a total that is not known may be less."""
        lost = full.get("saved", 0) - part.get("saved", 0)
        gone = sum(full.values()) - sum(part.values())
        if 0 <= lost <= self._rules.times * self._rules.page and gone == 0:
            return []
        if not self._whole and lost >= 0 and gone >= 0:
            return []
        return [f"{where}: {_short(full)} became {_short(part)}"]

    def _mappings(self, where: str, full: Mapping[str, Any], part: Mapping[str, Any]) -> list[str]:
        found = []
        words = _OF_STATES if self._less_is_held(full, part) else ()
        lost = full.get("state") == State.SAVED.value and part.get("state") in NOT_SAVED
        for key in {**full, **part}:
            here = f"{where}.{key}" if where else key
            if lost and key in part and part[key] is None:
                continue  # a record whose own state says that its bytes were not saved
            if key not in part:
                if self._whole:
                    found.append(f"{here}: {_short(full[key])} is missing")
            elif key not in full:
                if self._whole or not (key in PROSE or _is_unknown(part[key]) or not part[key]):
                    found.append(f"{here}: {_short(part[key])} is new")
            elif key not in words:
                found += self.values(here, key, full[key], part[key])
        return found

    def _less_is_held(self, full: Mapping[str, Any], part: Mapping[str, Any]) -> bool:
        """Whether the dump holds less of what two records are about, by their numbers."""
        pairs = [(key, full[key], part[key]) for key in full if key in part]
        return any(
            old != new and ((_by_state(old) and _by_state(new)) or key in self._rules.falls)
            for key, old, new in pairs
        )

    def _lists(self, where: str, full: Sequence[Any], part: Sequence[Any]) -> list[str]:
        if self._whole:
            if len(full) != len(part):
                return [f"{where}: {len(full)} entries became {len(part)}"]
            pairs = zip(full, part, strict=True)
            return [
                line
                for index, (old, new) in enumerate(pairs)
                for line in self.values(f"{where}[{index}]", "", old, new)
            ]
        left, new = _leave_out_equal(full, part)
        # each entry that is left must be one of the full answer's, with unknown values
        costs = [
            [self.values(f"{where}[{position}]", "", old, item) for old in left]
            for position, item in new
        ]
        matched = _match(len(left), [[not cost for cost in row] for row in costs])
        found = []
        for (position, item), row, match in zip(new, costs, matched, strict=True):
            if match is not None:
                continue
            # what it belongs to may be what is not known: then it is part of one that is there
            if self._is_part(item) and any(not self.values("", "", old, item) for old in full):
                continue
            if self._takes_in_several(item, full):
                continue
            best = min(row, key=len, default=None)
            found += best or [f"{where}[{position}]: {_short(item)} is new"]
        for key in self._rules.counts:
            had, has = (_sum(entries, key) for entries in (full, part))
            if has > had:
                found.append(f"{where}: {has} {key} of {had}")
        return found

    def _takes_in_several(self, item: Any, full: Sequence[Any]) -> bool:
        """Whether an entry that says that its bytes were not saved counts those of several entries
        of the full answer."""
        if not isinstance(item, Mapping) or item.get("state") not in NOT_SAVED:
            return False
        counts = [key for key in self._rules.counts if _is_number(item.get(key))]
        alike = [
            old
            for old in full
            if isinstance(old, Mapping)
            and not self.values("", "", old, {**item, **{key: old.get(key) for key in counts}})
        ]
        return bool(counts) and all(_sum(alike, key) >= item[key] for key in counts)

    def _is_part(self, item: Any) -> bool:
        if _says_unknown(item):
            return True
        keys = self._rules.parts if isinstance(item, Mapping) else ()
        return any(item.get(key, key) is None for key in keys)


def _counts_less(full: Any, part: Any) -> bool:
    """Whether two texts ("A: 3 pages, B: 2 pages and 4 more") count pages by owner, the second
    fewer: what it names is named in the first or was one of its "more"."""
    if not isinstance(full, str) or not isinstance(part, str):
        return False
    (old, more), (new, rest) = map(_page_counts, (full, part))
    least = min(old.values(), default=0) if more else 0
    return bool(new) and rest <= more and all(n <= old.get(name, least) for name, n in new.items())


def _page_counts(text: str) -> tuple[dict[str, int], int]:
    more = re.search(r" and (\d+) more$", text)
    items = re.findall(r"(?:^|, )(.+?): (\d+) pages?(?=, |$| and \d+ more$)", text)
    return {name: int(count) for name, count in items}, int(more[1]) if more else 0


def _sum(entries: Sequence[Any], key: str) -> int:
    values = (entry.get(key) for entry in entries if isinstance(entry, Mapping))
    return sum(value for value in values if _is_number(value))


def _leave_out_equal(
    full: Sequence[Any], part: Sequence[Any]
) -> tuple[list[Any], list[tuple[int, Any]]]:
    """Entries of both without those that are equal; of the second with their positions."""
    left: dict[str, list[Any]] = {}
    for item in full:
        left.setdefault(json.dumps(item, sort_keys=True), []).append(item)
    new = []
    for position, item in enumerate(part):
        equal = left.get(json.dumps(item, sort_keys=True))
        if equal:
            equal.pop()
        else:
            new.append((position, item))
    return [item for items in left.values() for item in items], new


def _match(count: int, fits: Sequence[Sequence[bool]]) -> list[int | None]:
    """For each row a column of its own that fits (augmenting paths), or None."""
    owner: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        for column in range(count):
            if fits[row][column] and column not in tried:
                tried.add(column)
                if column not in owner or place(owner[column], tried):
                    owner[column] = row
                    return True
        return False

    for row in range(len(fits)):
        place(row, set())
    columns = {row: column for column, row in owner.items()}
    return [columns.get(row) for row in range(len(fits))]


def _says_unknown(value: Any) -> bool:
    """Whether a record says that it, or a part of it, is not known."""
    items = value.items() if isinstance(value, Mapping) else ()
    return any(
        item == "unknown"
        or (key == "state" and isinstance(item, str) and item in NOT_SAVED)
        or _says_unknown(item)
        for key, item in items
    )


def _path_and_inode(text: str) -> tuple[str | None, str | None]:
    """Of ``"/a (ino 12)"``, ``"inode 12"``, ``"/a"``."""
    named = re.fullmatch(r"(?P<path>.+?)(?: \(ino (?P<inode>\d+)\))?", text)
    bare = re.fullmatch(r"inode (\d+)", text)
    if bare is not None:
        return None, bare[1]
    return (named["path"], named["inode"]) if named is not None else (text, None)


def _by_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and all(key in STATES for key in value)
        and all(_is_number(item) for item in value.values())
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_unknown(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value in UNKNOWN)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Answers before and after
------------------------

A trimmed dump must give the same answers as its input, except about user data: how much of it was
saved, and what is read from it (the file system on a disk, the first page of a raw namespace). If
the formats differ, so do the headers of the file itself.
"""

from collections.abc import Callable, Iterator
import re
from typing import Any

from drgn_pmem.partial import Cause, Problem, State
from drgn_pmem.ranges import Range, RangeSet
from drgn_pmem.record import Record

__all__ = ("Said", "differences")

_SHOWN = 3
"""Differences of one answer that are named."""
_MAX_TEXT = 80
_OF_FILE = ("pmem-segments", "pmem-usage")
"""Commands that are incomplete on a truncated file; the new file is not truncated."""


class Said(Record):
    """The answer of one command."""

    json: Any = None
    error: str | None = None
    """Why there is none."""
    problems: tuple[Problem, ...] = ()

    @property
    def whole(self) -> bool:
        return self.error is None and not any(problem.degrades for problem in self.problems)


def differences(
    command: str,
    before: Said,
    after: Said,
    *,
    same_format: bool,
    page_size: int,
    damaged: int = 0,
) -> Iterator[str]:
    """
    Unexpected differences between two answers, in words.

    :param command: Name of the command.
    :param same_format: Whether both files have program headers, or neither has.
    :param page_size: Size of a page of the crashed kernel (bytes).
    :param damaged: How many pages of the dump cannot be decompressed; they are excluded in the new
        one.
    """
    if before.error is not None or after.error is not None:
        if (
            before.error is None
            or after.error is None
            or (_merged(before.error, damaged) != _merged(after.error, damaged))
        ):
            yield f"{after.error or 'an answer'}, instead of {before.error or 'an answer'}"
        return
    # The reason is not compared: drgn words it by the format of the file.
    known = {(problem.cause, problem.what) for problem in before.problems}
    for problem in after.problems:
        if problem.cause is Cause.FORMAT or problem.state is State.EXCLUDED:
            continue  # user data was left out; anything else would show in the values
        if (problem.cause, problem.what) not in known:
            yield str(problem)
    if after.whole and not before.whole and command not in _OF_FILE:
        yield "complete, instead of incomplete"
    adapt = _ADAPT.get(command, _same)
    pair = [_merged(adapt(value, same_format), damaged) for value in (before.json, after.json)]
    compare = _Comparison(
        page_size=page_size, partial=0 if same_format else page_size, damaged=damaged
    )
    found = compare.differences(pair[0], pair[1], "")
    for number, text in enumerate(found):
        if number == _SHOWN:
            yield "and more"
            return
        yield text


class _Comparison(Record):
    page_size: int
    partial: int
    """bytes: a piece of memory smaller than this may be in only one of the dumps"""
    damaged: int

    def differences(self, before: Any, after: Any, place: str) -> Iterator[str]:
        if isinstance(before, dict) and isinstance(after, dict):
            if self._lost_by_damage(before, after):
                return
            for key in {**before, **after}:
                yield from self.differences(before.get(key), after.get(key), f"{place}.{key}")
        elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
            for number, pair in enumerate(zip(before, after, strict=True)):
                yield from self.differences(*pair, f"{place}[{number}]")
        elif isinstance(before, RangeSet) and isinstance(after, RangeSet):
            # A bitmap has all or nothing of a page in which memory begins or ends.
            for what, parts in (
                ("is missing", before.subtract(after)),
                ("is not in this dump", after.subtract(before)),
            ):
                yield from (f"{place}: {p} {what}" for p in parts if p.size >= self.partial)
        elif before != after:
            yield f"{place or 'value'}: {_short(after)}, instead of {_short(before)}"

    def _lost_by_damage(self, before: dict[str, Any], after: dict[str, Any]) -> bool:
        """Whether memory by state differs by damaged pages only, which count as saved in the bitmap
        of the dump."""
        if not self.damaged or not (_is_by_state(before) and _is_by_state(after)):
            return False
        lost = before.get(_SAVED, 0) - after.get(_SAVED, 0)
        if after.get(_EXCLUDED, 0) - before.get(_EXCLUDED, 0) != lost:
            return False
        pages, rest = divmod(lost, self.page_size)  # counts are in bytes or in pages
        return 0 < lost <= self.damaged or (rest == 0 and 0 < pages <= self.damaged)


def _short(value: Any) -> str:
    text = f"{len(value)} records" if isinstance(value, list) else str(value)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."


_SAVED, _EXCLUDED = State.SAVED.value, State.EXCLUDED.value
_LEFT_OUT = {state.value for state in (State.EXCLUDED, State.TRUNCATED, State.DAMAGED)}
_DAMAGE = re.compile(r"Decompress?ion failed: [\w -]+|damaged page at offset \d+: [\w :-]+")
"""What drgn and drgn-pmem say of a page that cannot be decompressed."""
_LEFT_OUT_PAGE = re.compile(rf"Excluded page(?: \({_EXCLUDED}\))?")
"""What they say of one that is left out."""


def _is_by_state(value: dict[str, Any]) -> bool:
    """Whether it has amounts of memory by :class:`State`."""
    return {_SAVED, *_LEFT_OUT}.intersection(value) != set() and all(
        isinstance(n, int) for n in value.values()
    )


def _merged(value: Any, damaged: int = 0) -> Any:
    """Truncated memory is excluded in a trimmed dump, and so are damaged pages: all are the same
    here."""
    if isinstance(value, dict):
        if _LEFT_OUT.intersection(value) and _is_by_state(value):
            rest = {key: n for key, n in value.items() if key not in _LEFT_OUT}
            return rest | {_EXCLUDED: sum(value.get(key, 0) for key in _LEFT_OUT)}
        return {key: _merged(item, damaged) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_merged(item, damaged) for item in value]
    if isinstance(value, str):  # sentences name the state, too
        if damaged:
            value = _LEFT_OUT_PAGE.sub(_EXCLUDED, _DAMAGE.sub(_EXCLUDED, value))
        for state in _LEFT_OUT:
            value = value.replace(state, _EXCLUDED)
        return value
    return value


def _same(value: Any, same_format: bool) -> Any:
    return value


def _without(record: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in keys}


def _namespaces(value: Any, same_format: bool) -> Any:
    """Without the keys that are read from user data."""
    if isinstance(value, (list, tuple)):
        return [_namespaces(item, same_format) for item in value]
    if not isinstance(value, dict):
        return value
    record = {key: _namespaces(item, same_format) for key, item in value.items()}
    if isinstance(record.get("dump"), dict):
        record["dump"] = _without(record["dump"], "content", *_of_raw(value, "why"))
    return record


def _of_raw(record: dict[str, Any], *keys: str) -> tuple[str, ...]:
    """The keys, if the first page of the namespace is user data."""
    return keys if record.get("mode") in ("raw", None) else ()


def _coverage(value: Any, same_format: bool) -> Any:
    return [
        _without(item, "case", "scope", "userdata", "unknown", "verdict", "advice")
        | {"metadata": sum(item["metadata"].values())}
        for item in value
    ]


def _memmap(value: Any, same_format: bool) -> Any:
    return [_without(item, *_of_raw(item, "infoblock_media_state", "notes")) for item in value]


def _segments(value: Any, same_format: bool) -> Any:
    """The memory that the file covers, and the part with ``PF_DEV``, however it is split."""
    every: list[Range] = []
    marked: list[Range] = []
    for item in value:
        if item["physical"] is not None:
            start = int(item["physical"], 16)
            every.append(Range(start, start + item["memory_size"]))
            if item["pmem"] and same_format:
                marked.append(every[-1])
    return [RangeSet(ranges).contiguous() for ranges in (every, marked)]


_OF_HEADERS = ("overlap", "original", "memory_hole")
"""Counts of pages that program headers cover in part or twice."""


def _usage(value: Any, same_format: bool) -> Any:
    # Metadata, and with it segments of the new file, may end within a page of more than 4 KiB.
    names = ["excluded", "remaining", "truncated", "zero", "pmem_userdata", "partial_pages"]
    return _without(value, *names, *(() if same_format else _OF_HEADERS))


_PLACE = ("kind", "state", "notes")
"""Keys that describe where an info block would be, if there is none."""


def _infoblocks(value: Any, same_format: bool) -> Any:
    return [
        item if item.get("kind", "labels") not in ("none", None) else _without(item, *_PLACE)
        for item in value
    ]


def _elfcorehdr(value: Any, same_format: bool) -> Any:
    if not isinstance(value, dict):
        return value
    if not same_format:
        return _without(value, "implied", "why", "notes")
    if value.get("implied") is None:
        return value
    return value | {"implied": value["implied"] | {"phdrs": _joined(value["implied"]["phdrs"])}}


def _joined(phdrs: list[dict[str, Any]]) -> list[list[Any]]:
    """Program headers of memory, adjacent ones joined: they are split where pages were left out."""
    joined: list[list[Any]] = []
    for item in phdrs:
        if item["type"] != "PT_LOAD":
            continue
        physical = int(item["physical"], 16)
        last = joined[-1] if joined else None
        if last and last[:2] == [physical - last[2], item["flags"]]:
            last[2] += item["size"]
        else:
            joined.append([physical, item["flags"], item["size"]])
    return joined


def _fadump(value: Any, same_format: bool) -> Any:
    """Without the notes about pages that a bitmap cannot hold in part."""
    if same_format or not isinstance(value, dict):
        return value
    header = value.get("elfcorehdr")
    return _without(value, "elfcorehdr", "notes") | {
        "elfcorehdr": header and _without(header, "matches_dump")
    }


def _diagnose(value: Any, same_format: bool) -> Any:
    """The findings that are certain: some rules need user data. Memory that the file lacks is
    compared by other commands; that user data was erased, the new file alone says."""
    of_the_file = ("dump-truncated", "dump-damaged", "dump-erased", "ram-missing")
    return [
        _without(item, "finding", "evidence", "do") if item["id"] == "memmap-not-saved" else item
        for item in value
        if item["complete"] and item["id"] not in of_the_file
    ]


_ADAPT: dict[str, Callable[[Any, bool], Any]] = {
    "pmem-list": _namespaces,
    "pmem-namespaces": _namespaces,
    "pmem-coverage": _coverage,
    "pmem-memmap": _memmap,
    "pmem-segments": _segments,
    "pmem-usage": _usage,
    "pmem-infoblocks": _infoblocks,
    "elfcorehdr": _elfcorehdr,
    "fadump": _fadump,
    "pmem-diagnose": _diagnose,
}

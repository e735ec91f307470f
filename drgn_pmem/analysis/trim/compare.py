# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Answers before and after
------------------------

A trimmed dump must answer what the dump that it was made of answers, but for what it says of user
data: what of it is in the dump, and what is read from it (the file system's name on a disk, what is
at the place of the info block of a raw namespace). Another format has other headers of its own.
"""

from collections.abc import Callable, Iterator
from typing import Any

from drgn_pmem.partial import Cause, Problem, State
from drgn_pmem.ranges import Range, RangeSet
from drgn_pmem.record import Record

__all__ = ("Said", "differences")

_PAGE = 1 << 16
"""bytes: the largest page of all machines"""
_SHOWN = 3
"""Places of one answer that are named."""
_MAX_TEXT = 80
_OF_FILE = ("pmem-segments", "pmem-usage")
"""Commands whose answer lacks what a file lacks that was cut short: a new one is whole."""


class Said(Record):
    """The answer of one command."""

    json: Any = None
    error: str | None = None
    """Why there is none."""
    problems: tuple[Problem, ...] = ()

    @property
    def whole(self) -> bool:
        return self.error is None and not any(problem.degrades for problem in self.problems)


def differences(command: str, before: Said, after: Said, *, same_format: bool) -> Iterator[str]:
    """
    What a trimmed dump answers otherwise than it should, in words.

    :param command: Name of the command.
    :param same_format: Whether both files have program headers, or neither has.
    """
    if before.error is not None or after.error is not None:
        if before.error != after.error:
            yield f"{after.error or 'an answer'}, instead of {before.error or 'an answer'}"
        return
    # Not the reason: drgn words it by the format of the file.
    known = {(problem.cause, problem.what) for problem in before.problems}
    for problem in after.problems:
        if problem.cause is Cause.FORMAT or problem.state is State.EXCLUDED:
            continue  # what was left out is user data; anything else shows in the values
        if (problem.cause, problem.what) not in known:
            yield str(problem)
    if after.whole and not before.whole and command not in _OF_FILE:
        yield "complete, instead of incomplete"
    adapt = _ADAPT.get(command, _same)
    pair = [_merged(adapt(value, same_format)) for value in (before.json, after.json)]
    found = _differences(pair[0], pair[1], "")
    for number, text in enumerate(found):
        if number == _SHOWN:
            yield "and more"
            return
        yield text


def _differences(before: Any, after: Any, place: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            yield from _differences(before.get(key), after.get(key), f"{place}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, pair in enumerate(zip(before, after, strict=True)):
            yield from _differences(*pair, f"{place}[{number}]")
    elif before != after:
        yield f"{place or 'value'}: {_short(after)}, instead of {_short(before)}"


def _short(value: Any) -> str:
    text = f"{len(value)} records" if isinstance(value, list) else str(value)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."


_EXCLUDED = State.EXCLUDED.value
_LEFT_OUT = {state.value for state in (State.EXCLUDED, State.TRUNCATED)}


def _merged(value: Any) -> Any:
    """Truncated memory is excluded in a trimmed dump: both are the same here."""
    if isinstance(value, dict):
        if _LEFT_OUT.intersection(value) and all(isinstance(n, int) for n in value.values()):
            rest = {key: n for key, n in value.items() if key not in _LEFT_OUT}
            return rest | {_EXCLUDED: sum(value.get(key, 0) for key in _LEFT_OUT)}
        return {key: _merged(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_merged(item) for item in value]
    if isinstance(value, str):  # sentences name the state, too
        return value.replace(State.TRUNCATED.value, _EXCLUDED)
    return value


def _same(value: Any, same_format: bool) -> Any:
    return value


def _without(record: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in keys}


def _namespaces(value: Any, same_format: bool) -> Any:
    """Without what is read from user data."""
    if isinstance(value, (list, tuple)):
        return [_namespaces(item, same_format) for item in value]
    if not isinstance(value, dict):
        return value
    record = {key: _namespaces(item, same_format) for key, item in value.items()}
    if isinstance(record.get("dump"), dict):
        record["dump"] = _without(record["dump"], "content", *_of_raw(value, "why"))
    return record


def _of_raw(record: dict[str, Any], *keys: str) -> tuple[str, ...]:
    """The keys, of a namespace whose place of an info block is user data."""
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
    """What the file covers, and what of it is marked, however it is cut."""
    every: list[Range] = []
    marked: list[Range] = []
    for item in value:
        if item["physical"] is not None:
            start = int(item["physical"], 16)
            every.append(Range(start, start + item["memory_size"]))
            if item["pmem"] and same_format:
                marked.append(every[-1])
    return [
        [item.to_json() for item in _whole(RangeSet(ranges).contiguous(), same_format)]
        for ranges in (every, marked)
    ]


def _whole(ranges: RangeSet, same_format: bool) -> RangeSet:
    """Without the pages that a bitmap does not have, because memory begins or ends in them."""
    if same_format:
        return ranges
    pairs = ((-(-item.start // _PAGE) * _PAGE, item.end // _PAGE * _PAGE) for item in ranges)
    return RangeSet(Range(start, end) for start, end in pairs if start < end)


_OF_HEADERS = ("overlap", "original", "memory_hole", "partial_pages")
"""Pages that program headers have in part, or twice."""


def _usage(value: Any, same_format: bool) -> Any:
    names = ["excluded", "remaining", "truncated", "zero", "pmem_userdata"]
    return _without(value, *names, *(() if same_format else _OF_HEADERS))


_PLACE = ("kind", "state", "notes")
"""What is said of the place of an info block where none was found."""


def _infoblocks(value: Any, same_format: bool) -> Any:
    return [
        item if item.get("kind", "labels") not in ("none", None) else _without(item, *_PLACE)
        for item in value
    ]


def _elfcorehdr(value: Any, same_format: bool) -> Any:
    if not isinstance(value, dict) or value.get("implied") is None:
        return value
    if not same_format:
        return _without(value, "implied", "why")
    return value | {"implied": value["implied"] | {"phdrs": _joined(value["implied"]["phdrs"])}}


def _joined(phdrs: list[dict[str, Any]]) -> list[list[Any]]:
    """Program headers of memory, adjacent ones joined: a dump is cut where pages were left out."""
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
    """Notes name the state of memory that a page of a bitmap has in part."""
    if same_format or not isinstance(value, dict):
        return value
    header = value.get("elfcorehdr")
    return _without(value, "elfcorehdr", "notes") | {
        "elfcorehdr": header and _without(header, "matches_dump")
    }


def _diagnose(value: Any, same_format: bool) -> Any:
    """What was found; a rule that cannot be decided without user data says so. What is missing of
    the file is compared as memory; how struct pages are missing is in words there."""
    return [
        _without(item, "finding", "evidence", "do") if item["id"] == "memmap-not-saved" else item
        for item in value
        if item["complete"] and item["id"] not in ("dump-truncated", "ram-missing")
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

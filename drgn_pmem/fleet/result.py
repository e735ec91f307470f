# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What came of a dump
-------------------

A result is a file of JSON: the state, how the dump is known again, and of a report the parts that
the index and the database show. It is read back as what it is, a file: of values that are not as
they must be, the result is taken for none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
import enum
import json
from pathlib import Path
from typing import Any

from drgn_pmem.fleet.request import Request
from drgn_pmem.output.files import write_file

__all__ = ("Result", "State", "load_result", "make_result", "write_result")

_MAX_SIZE = 256 << 20


class State(enum.Enum):
    """What came of a dump."""

    DONE = "done"
    """There is a report."""
    REFUSED = "cannot be opened"
    """It is no dump of a kernel, or too damaged."""
    TIMEOUT = "timed out"
    MEMORY = "out of memory"
    CRASHED = "crashed the reader"
    """The process that reads it died twice, or its worker did."""
    UNSEEN = "not seen by the worker"
    """The worker has no such file, another one, or not the folder of the run."""


class Result:
    """What came of a dump."""

    def __init__(self, value: Mapping[str, Any]) -> None:
        self.value = value
        self.state = State(value["state"])
        self.dump: str = value["dump"]
        self.name: str = value["name"]
        self.error: str | None = value["error"]
        self.complete: bool = value["complete"]
        self.tries: int = value["tries"]
        self.before: str = value["before"]
        """How the first try ended, of two."""
        self.seconds: float = value["seconds"]

    @property
    def has_report(self) -> bool:
        return self.state is State.DONE

    @property
    def findings(self) -> list[dict[str, Any]]:
        """As pmem-diagnose prints them."""
        return list(self.value.get("findings", ()))

    def is_of(self, request: Request) -> bool:
        """Whether a dump that is to be read has this result already."""
        value = self.value
        keys = ("size", "changed", "sha256", "version")
        if any(value[key] != getattr(request, key) for key in keys):
            return False
        if self.state in (State.CRASHED, State.UNSEEN):
            return False  # not by the dump alone
        if self.state is State.TIMEOUT:
            return bool(value["timeout"] >= request.timeout)
        if self.state is State.MEMORY:
            return bool(value["memory_limit"] >= request.memory_limit)
        # What it lacked may be there now.
        return not value["missing"] or value["debug_info"] == request.debug_info


def make_result(
    request: Request, state: State, error: str | None, *, tries: int, seconds: float, **more: Any
) -> dict[str, Any]:
    """
    The value of a result.

    :param error: One line; None of a report.
    :param tries: How often the dump was begun.
    :param seconds: What it took.
    """
    return {
        "dump": request.dump,
        "name": request.name,
        "state": state.value,
        "error": error,
        "complete": False,
        "size": request.size,
        "changed": request.changed,
        "sha256": request.sha256,
        "version": request.version,
        "run": request.run,
        "debug_info": request.debug_info,
        "missing": "",
        "timeout": request.timeout,
        "memory_limit": request.memory_limit,
        "tries": tries,
        "before": "",
        "seconds": round(seconds, 1),
        **more,
    }


def write_result(request: Request, value: Mapping[str, Any]) -> None:
    """:raises OSError: if it cannot be written"""
    write_file(request.result, json.dumps(value) + "\n")


@dataclass(frozen=True)
class _Kind:
    """Type of the value of a key."""

    key: str
    types: tuple[type, ...]


_KINDS = (
    *(_Kind(key, (str,)) for key in ("dump", "name", "state", "sha256", "version", "run")),
    *(_Kind(key, (str,)) for key in ("debug_info", "missing", "before")),
    *(_Kind(key, (int,)) for key in ("size", "changed", "memory_limit", "tries")),
    *(_Kind(key, (int, float)) for key in ("timeout", "seconds")),
    _Kind("error", (str, type(None))),
    _Kind("complete", (bool,)),
)
_LISTS = ("findings", "namespaces", "poison", "answers", "notes")


def load_result(path: Path) -> Result | None:
    """The result in a file; None if there is none, or one that is not as it must be."""
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(_MAX_SIZE))
        if not all(isinstance(value[kind.key], kind.types) for kind in _KINDS):
            return None
        for key in _LISTS:
            if not all(isinstance(item, (dict, str)) for item in value.get(key, ())):
                return None
        return Result(value)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None  # the dump is read again

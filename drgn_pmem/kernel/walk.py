# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Bounded walks
-------------

A list in a dump may be cyclic, a pointer wild, a count implausible. Every walk of kernel structures
goes through :func:`bounded`, which ends it with an error that says where. What was read before is
kept by :meth:`drgn_pmem.partial.Problems.collect`.
"""

from collections.abc import Iterable, Iterator

from drgn import FaultError, Object, ObjectAbsentError

from drgn_pmem.partial import NotSaved, WalkError

__all__ = ("LIMIT", "bounded", "pointer_text")

LIMIT = 1 << 20
"""Entries after which a walk of a list is given up."""


def pointer_text(address: int) -> str:
    """A kernel address as messages show it."""
    return f"{address:#x}"


def bounded(objects: Iterable[Object], what: str, *, limit: int = LIMIT) -> Iterator[Object]:
    """
    Yield pointers from a walk until it ends, repeats, faults or passes *limit* entries.

    :param objects: Pointers, each of a different address unless the structure is damaged.
    :param what: What is walked, for the message: ``"nvdimm_bus_list"``.
    :raises WalkError: after the entries that could be read
    """
    seen: set[int] = set()
    iterator = iter(objects)
    while True:
        try:
            entry = next(iterator)
        except StopIteration:
            return
        except FaultError as error:
            raise NotSaved(
                f"{what}: stopped after {len(seen)} entries: {error}", address=error.address
            ) from None
        except RecursionError:
            raise WalkError(
                f"{what}: stopped after {len(seen)} entries: the tree does not end"
            ) from None
        except ObjectAbsentError as error:
            raise WalkError(f"{what}: stopped after {len(seen)} entries: {error}") from None
        address = entry.value_() if entry.type_.kind.name == "POINTER" else entry.address_
        if address in seen:
            raise WalkError(
                f"{what}: stopped after {len(seen)} entries: "
                f"the list is cyclic at {pointer_text(address)}"
            )
        if len(seen) >= limit:
            raise WalkError(f"{what}: stopped after {limit} entries: implausible number")
        seen.add(address)
        yield entry

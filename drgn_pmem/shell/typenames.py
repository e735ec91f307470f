# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Names of types, for completion. drgn has no list of them: they are those that can be reached from
the members of some structures.
"""

from collections import deque
from collections.abc import Iterator, Sequence

from drgn import Program, Type, TypeKind

__all__ = ("reachable_types",)

_WORDS = {TypeKind.STRUCT: "struct", TypeKind.UNION: "union", TypeKind.ENUM: "enum"}


def reachable_types(
    prog: Program, roots: Sequence[str], limit: int
) -> Iterator[tuple[str, int | None]]:
    """
    (C name, bytes) of structures and of all that their members name, nearest first.

    :param roots: Names of structures; those that this kernel lacks are skipped.
    :param limit: Maximum number of types looked at.
    """
    names = deque(f"struct {name}" for name in roots)
    seen = set(names)
    while names and len(seen) <= limit:
        name = names.popleft()
        try:
            type_ = prog.type(name)
        except LookupError:
            # not a problem: a type of a module that is not loaded is not offered
            continue
        yield name, type_.size
        for each in _named(type_):
            if each not in seen:
                seen.add(each)
                names.append(each)


def _named(type_: Type) -> Iterator[str]:
    """Names of the types of a structure's members, of anonymous ones too."""
    for member in type_.members or () if type_.kind is not TypeKind.ENUM else ():
        inner = member.type
        while inner.kind in (TypeKind.TYPEDEF, TypeKind.POINTER, TypeKind.ARRAY):
            inner = inner.type
        if inner.kind in _WORDS:
            if inner.tag is None:
                yield from _named(inner)
            else:
                yield f"{_WORDS[inner.kind]} {inner.tag}"

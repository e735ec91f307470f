# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
A kernel whose structures lack a member.

:class:`Hider` puts finders before drgn's own. They show every structure of the debug info member by
member, each looked at only when someone asks for it: so it is known which members were asked for,
and one of them can be left out.
"""

from collections.abc import Callable, Iterator
import contextlib
from typing import Any

from drgn import FindObjectFlags, Object, Program, Type, TypeKind, TypeMember

__all__ = ("Hider", "Member")

Member = tuple[str, str]
"""(structure, member): ``("struct page", "flags")``, also where it is a member of an anonymous
union in the structure; ``("struct outer.inner", "value")`` of a structure without a name."""

_COMPOUND = {TypeKind.STRUCT: "struct", TypeKind.UNION: "union", TypeKind.CLASS: "class"}


class Hider:
    """
    Shows the types of a program member by member.

    :param prog: The program; its finders stay as long as it lives.
    """

    def __init__(self, prog: Program) -> None:
        self.prog = prog
        self.asked: set[Member] = set()
        """What was asked for so far."""
        self.hidden: Member | None = None
        """What no structure of that name has. Set it before anything is asked."""
        self._made: dict[tuple[str, int, tuple[str | None, ...]], Type] = {}
        self._original = False
        prog.register_type_finder("hidden members", self._find_type, enable_index=0)
        prog.register_object_finder("hidden members", self._find_object, enable_index=0)

    @contextlib.contextmanager
    def _originals(self) -> Iterator[None]:
        before, self._original = self._original, True
        try:
            yield
        finally:
            self._original = before

    def _find_type(
        self, prog: Program, kinds: Any, name: str, filename: "str | None"
    ) -> Type | None:
        if self._original:
            return None
        for kind, keyword in (*_COMPOUND.items(), (TypeKind.TYPEDEF, "")):
            if kind in kinds:
                with self._originals():
                    try:
                        found = prog.type(f"{keyword} {name}".strip(), filename)
                    except LookupError:
                        continue
                if found.kind == kind:
                    return self._shown(found)
        return None

    def _find_object(
        self, prog: Program, name: str, flags: FindObjectFlags, filename: "str | None"
    ) -> Object | None:
        if self._original or not flags & FindObjectFlags.VARIABLE:
            return None
        with self._originals():
            try:
                found = prog.object(name, FindObjectFlags.VARIABLE, filename)
            except LookupError:
                return None
        if found.address_ is None:
            return None
        return Object(prog, self._shown(found.type_), address=found.address_)

    def _shown(self, type_: Type, owner: str = "") -> Type:
        """
        A type with every structure in it shown member by member.

        :param owner: Name of it, if it is a structure without one.
        """
        kind, qualifiers = type_.kind, type_.qualifiers
        if kind in _COMPOUND and type_.members is not None:
            shown = self._compound(type_, owner)
        elif kind == TypeKind.POINTER:
            shown = self.prog.pointer_type(self._shown(type_.type, owner), type_.size)
        elif kind == TypeKind.ARRAY:
            shown = self.prog.array_type(self._shown(type_.type, owner), type_.length)
        elif kind == TypeKind.TYPEDEF:
            shown = self.prog.typedef_type(type_.name, self._shown(type_.type, type_.name))
        else:
            return type_
        return shown.qualified(qualifiers)

    def _compound(self, type_: Type, owner: str) -> Type:
        assert type_.members is not None
        assert type_.size is not None
        name = f"{_COMPOUND[type_.kind]} {type_.tag}" if type_.tag else owner
        key = (name, type_.size, tuple(member.name for member in type_.members))
        if type_.tag and key in self._made:
            return self._made[key]
        members = [
            TypeMember(self._member(name, member), member.name, member.bit_offset)
            for member in type_.members
            if (name, member.name) != self.hidden
        ]
        make: Any = getattr(self.prog, f"{_COMPOUND[type_.kind]}_type")
        made: Type = make(type_.tag, type_.size, members)
        self._made[key] = made
        return made

    def _member(self, name: str, member: TypeMember) -> Callable[[], "Object | Type"]:
        # What is in an anonymous union is a member of the structure around it.
        inner = f"{name}.{member.name}" if member.name else name

        def look() -> "Object | Type":
            if name and member.name:
                self.asked.add((name, member.name))
            shown = self._shown(member.type, inner)
            if member.bit_field_size is not None:
                return Object(self.prog, shown, bit_field_size=member.bit_field_size)
            return shown

        return look

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A kernel made by hand: a page of memory here and there, and the few types that a walk needs."""

import struct

import drgn
from drgn import Architecture, Object, Platform, PlatformFlags, Program, Type, TypeKind, TypeMember

PAGE_SHIFT = 12

LITTLE = PlatformFlags.IS_64_BIT | PlatformFlags.IS_LITTLE_ENDIAN
BIG = PlatformFlags.IS_64_BIT

# Member -> C type; "T[n]" an array, "struct x" by value, "*" a pointer. The orders and the odd
# members are our own: offsets must come from the types.
STRUCTS: dict[str, list[tuple[str, str]]] = {
    "xarray": [("xa_lock", "u32"), ("xa_flags", "u32"), ("xa_head", "*")],
    "xa_node": [
        ("shift", "u8"),
        ("offset", "u8"),
        ("count", "u8"),
        ("nr_values", "u8"),
        ("hole", "u32"),
        ("parent", "*"),
        ("array", "*"),
        ("private", "u64[2]"),
        ("slots", "u64[64]"),
        ("marks", "u64[3][1]"),
    ],
    "rb_node": [("__rb_parent_color", "u64"), ("rb_right", "*"), ("rb_left", "*")],
    "rb_root": [("rb_node", "*")],
    "rb_root_cached": [("rb_root", "struct rb_root"), ("rb_leftmost", "*")],
    "address_space": [
        ("host", "*"),
        ("i_pages", "struct xarray"),
        ("i_mmap", "struct rb_root_cached"),
    ],
    "shared": [("rb", "struct rb_node"), ("rb_subtree_last", "u64")],
    "vm_area_struct": [
        ("vm_start", "u64"),
        ("vm_end", "u64"),
        ("vm_mm", "*"),
        ("vm_flags", "u64"),
        ("shared", "struct shared"),
        ("vm_pgoff", "u64"),
        ("vm_file", "*"),
    ],
    "mm_struct": [("pgd", "*")],
    "badblocks": [("count", "s32"), ("shift", "s32"), ("page", "*")],
}


class Fake:
    """
    A program over memory that the test writes.

    :param flags: Word size and byte order.
    :param structs: Structures in place of :data:`STRUCTS`; a member may be ``"struct x *"``.
    :param variables: Name -> address.
    """

    def __init__(
        self,
        flags: PlatformFlags = LITTLE,
        structs: "dict[str, list[tuple[str, str]]] | None" = None,
        variables: "dict[str, int] | None" = None,
    ) -> None:
        self.structs = STRUCTS if structs is None else structs
        self.variables = variables or {}
        self.prog = Program(Platform(Architecture.UNKNOWN, flags))
        self.order = "<" if flags & PlatformFlags.IS_LITTLE_ENDIAN else ">"
        self.pages: dict[int, bytearray] = {}
        self._types = self._make_types()
        self.prog.register_type_finder("fake", self._find_type, enable_index=0)
        self.prog.register_object_finder("fake", self._find_object, enable_index=0)

    def _make_types(self) -> dict[str, Type]:
        prog = self.prog
        order = "little" if self.order == "<" else "big"
        types = {
            f"{'s' if signed else 'u'}{8 * size}": prog.int_type(
                f"{'s' if signed else 'u'}{8 * size}", size, signed, order
            )
            for size in (1, 2, 4, 8)
            for signed in (False, True)
        }
        types["*"] = prog.pointer_type(prog.void_type(), 8, order)
        for name, members in self.structs.items():
            offset, made = 0, []
            for member, text in members:
                type_, size = self._member_type(types, text)
                offset = -(-offset // min(size, 8)) * min(size, 8)
                made.append(TypeMember(type_, member, 8 * offset))
                offset += size
            types[f"struct {name}"] = prog.struct_type(name, -(-offset // 8) * 8, made)
        return types

    def _member_type(self, types: dict[str, Type], text: str) -> tuple[Type, int]:
        if text.endswith(" *"):
            return self.prog.pointer_type(types[text[:-2]], 8), 8
        base, *lengths = text.replace("]", "").split("[")
        type_, size = types[base], drgn.sizeof(types[base])
        for length in reversed(lengths):
            type_, size = self.prog.array_type(type_, int(length)), size * int(length)
        return type_, size

    def _find_type(
        self, prog: Program, kinds: object, name: str, filename: str | None
    ) -> Type | None:
        for prefix in ("struct ", ""):
            found = self._types.get(prefix + name)
            if found is not None and found.kind in kinds:  # type: ignore[operator]
                return found
        if name == "unsigned long long" and TypeKind.INT in kinds:  # type: ignore[operator]
            return self._types["u64"]
        return None

    def _find_object(
        self, prog: Program, name: str, flags: object, filename: str | None
    ) -> Object | None:
        if name == "PAGE_SHIFT":
            return Object(prog, self._types["u64"], PAGE_SHIFT)
        if name == "PAGE_SIZE":
            return Object(prog, self._types["u64"], 1 << PAGE_SHIFT)
        if name in self.variables:
            return Object(prog, self._types["u64"], address=self.variables[name])
        return None

    def write(self, address: int, data: bytes) -> None:
        """Put bytes into memory; what is never written is not in the dump."""
        for i, byte in enumerate(data):
            number, offset = divmod(address + i, 1 << PAGE_SHIFT)
            if number not in self.pages:
                page = self.pages[number] = bytearray(1 << PAGE_SHIFT)
                self.prog.add_memory_segment(
                    number << PAGE_SHIFT,
                    1 << PAGE_SHIFT,
                    lambda _a, count, at, _p, page=page: bytes(page[at : at + count]),
                )
            self.pages[number][offset] = byte

    def word(self, address: int, value: int) -> None:
        self.write(address, struct.pack(f"{self.order}Q", value & (1 << 64) - 1))

    def offset(self, name: str, member: str) -> int:
        return drgn.offsetof(self._types[f"struct {name}"], member)

    def fill(self, name: str, address: int, **members: int) -> None:
        """Write members of a structure; the rest is zero."""
        type_ = self._types[f"struct {name}"]
        self.write(address, bytes(drgn.sizeof(type_)))
        for member, value in members.items():
            path = member.replace("__dot__", ".")
            inner = type_
            for part in path.split("."):
                inner = inner.member(part).type
            size = drgn.sizeof(inner)
            data = (value & (1 << 8 * size) - 1).to_bytes(
                size, "little" if self.order == "<" else "big"
            )
            self.write(address + drgn.offsetof(type_, path), data)

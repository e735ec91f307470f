# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Memory of the crashed kernel
----------------------------

Raw reads that never return bytes that are not in the dump (slab pages can be left out, and drgn
would read zeroes there: see :mod:`drgn_pmem.dumpfile.faults`). A structure is read once and the
needed members are unpacked: fast enough for a hundred thousand inodes and xarray nodes.
"""

from collections.abc import Iterable, Iterator
import contextlib
import itertools
import struct
from typing import Any

from drgn import (
    FaultError,
    Object,
    PlatformFlags,
    Program,
    Type,
    TypeKind,
    offsetof,
)

from drgn_pmem.dumpfile.faults import guard_reads
from drgn_pmem.errors import DumpFileError, MissingDebugInfo
from drgn_pmem.kernel.debuginfo import find_type
from drgn_pmem.kernel.mmu import is_kernel_address
from drgn_pmem.kernel.pagetable import kernel_coverage
from drgn_pmem.kernel.walk import LIMIT
from drgn_pmem.partial import NotSaved, State, WalkError

__all__ = (
    "BadAddress",
    "Layout",
    "Memory",
    "address_of",
    "cached",
    "hlist_nodes",
    "list_nodes",
    "memory_of",
)

_CACHE_KEY = "drgn_pmem.memory"

_STEP = 64
"""Strings are read in aligned pieces of this many bytes: none crosses a page."""


class Memory:
    """
    Virtual memory of a program, read raw.

    :param prog: The crashed kernel.
    """

    def __init__(self, prog: Program) -> None:
        self.prog = prog
        platform = prog.platform
        little = platform is None or bool(platform.flags & PlatformFlags.IS_LITTLE_ENDIAN)
        wide = platform is None or bool(platform.flags & PlatformFlags.IS_64_BIT)
        self.order = "<" if little else ">"
        self.word_size = 8 if wide else 4
        self.word_mask = (1 << (8 * self.word_size)) - 1
        self._word = struct.Struct(self.order + ("Q" if wide else "I"))
        guard_reads(prog)  # what cannot be guarded is a problem of every command's answer (spec.py)

    def read(self, address: int, size: int) -> bytes:
        """
        Read virtual memory.

        :param address: Virtual address.
        :param size: bytes
        :raises NotSaved: if any of it is not in the dump; its state says in which way
        :raises BadAddress: if it is not kernel memory
        """
        address &= self.word_mask
        try:
            return self.prog.read(address, size)
        except (FaultError, OverflowError, ValueError) as error:
            raise _unreadable(self.prog, address, size, error) from None

    def word(self, address: int) -> int:
        """
        Read an ``unsigned long`` or a pointer.

        :raises NotSaved: if it is not in the dump
        """
        return int(self._word.unpack(self.read(address, self.word_size))[0])

    def string(self, address: int, limit: int = 4096) -> bytes:
        """
        Read a NUL-terminated string of at most *limit* bytes.

        :raises NotSaved: if its bytes are not in the dump
        """
        parts: list[bytes] = []
        while limit > 0:
            size = min(limit, _STEP - address % _STEP)
            part = self.read(address, size)
            head, end, _ = part.partition(b"\0")
            parts.append(head)
            if end:
                break
            address += size
            limit -= size
        return b"".join(parts)


class BadAddress(WalkError):
    """A pointer that does not point to kernel memory."""


def _unreadable(prog: Program, address: int, size: int, error: Exception) -> WalkError:
    """The error for an address that drgn cannot read."""
    text = f"cannot read {address:#x}: {_fault_text(error)}"
    if not is_kernel_address(prog, address, size):
        return BadAddress(f"{address:#x} is not a kernel address: damaged")
    try:
        parts = kernel_coverage(prog, address, size)
    except DumpFileError:
        return NotSaved(text, address=address)  # memory that was added segment by segment
    for start, _, state in parts:
        if state is not State.SAVED:
            said = "" if state.value in text else f" ({state.value})"
            return NotSaved(f"{text}{said}", address=start, state=state)
    return NotSaved(text, address=address)


def _fault_text(error: Exception) -> str:
    return error.message if isinstance(error, FaultError) else str(error)


def memory_of(prog: Program) -> Memory:
    """The program's :class:`Memory`, made once."""
    memory = prog.cache.get(_CACHE_KEY)
    if memory is None:
        memory = prog.cache[_CACHE_KEY] = Memory(prog)
    return memory


def address_of(value: "Object | int") -> int:
    """
    Address of a structure.

    :param value: A pointer to it, the structure itself as a drgn object, or its address.
    """
    if not isinstance(value, Object):
        return value
    if value.type_.unaliased_kind() in (TypeKind.STRUCT, TypeKind.UNION):
        address = value.address_
        if address is None:
            raise ValueError(f"the {value.type_.type_name()} is a value without an address")
        return address
    return int(value.value_())


def _strip(type_: Type) -> Type:
    while type_.kind == TypeKind.TYPEDEF:
        type_ = type_.type
    return type_


def _member(type_: Type, path: str) -> Type:
    for name in path.split("."):
        type_ = _strip(type_).member(name).type
    return _strip(type_)


_CODES = {(1, False): "B", (2, False): "H", (4, False): "I", (8, False): "Q",
          (1, True): "b", (2, True): "h", (4, True): "i", (8, True): "q"}  # fmt: skip


class Layout:
    """
    Members of a structure and where they are, from the debug info: read together, raw.

    :param name: ``"struct inode"``
    :param module: Kernel module that defines it.
    :param members: Key of the result -> member (``"a.b"`` for nested ones), or several members of
        which the first that this kernel has is taken. Integers and pointers only.
    :raises MissingDebugInfo: if the type or a member is not known
    """

    def __init__(
        self,
        memory: Memory,
        name: str,
        module: str = "vmlinux",
        /,
        **members: str | tuple[str, ...],
    ) -> None:
        self.memory = memory
        self.name = name
        self.type = find_type(memory.prog, name, module)
        self._fields: list[tuple[str, struct.Struct, int]] = []
        start, end = 1 << 62, 0
        for key, candidates in members.items():
            path = self._choose(candidates)
            type_ = _member(self.type, path)
            size = type_.size if type_.kind != TypeKind.ENUM else (type_.type or type_).size
            signed = type_.kind == TypeKind.INT and type_.is_signed
            assert size is not None
            offset = offsetof(self.type, path)
            code = struct.Struct(memory.order + _CODES[size, signed])
            self._fields.append((key, code, offset))
            start, end = min(start, offset), max(end, offset + size)
        self._start, self._size = start, end - start

    def _choose(self, candidates: str | tuple[str, ...]) -> str:
        if isinstance(candidates, str):
            candidates = (candidates,)
        for path in candidates:
            if self.has(path):
                return path
        raise MissingDebugInfo(f"{self.name} of this kernel has no member {candidates[0]}")

    def has(self, path: str) -> bool:
        """Whether the structure has a member."""
        try:
            _member(self.type, path)
        except (LookupError, AttributeError, TypeError):
            # not a problem: that is the question
            return False
        return True

    def offset(self, *candidates: str) -> int:
        """
        Offset of a member.

        :param candidates: Names of it, newest first.
        :return: bytes
        :raises MissingDebugInfo: if it has none of them
        """
        return offsetof(self.type, self._choose(candidates))

    def read(self, address: int) -> dict[str, int]:
        """
        The members of the structure at a virtual address.

        :raises NotSaved: if the dump does not hold them
        """
        data = self.memory.read(address + self._start, self._size)
        start = self._start
        return {
            key: code.unpack_from(data, offset - start)[0] for key, code, offset in self._fields
        }

    def object(self, address: int) -> Object:
        """The structure as a drgn pointer."""
        return Object(self.memory.prog, self.memory.prog.pointer_type(self.type), address)


def _named(nodes: Iterable[int], what: str) -> Iterator[int]:
    """Name the walk in its errors."""
    try:
        yield from nodes
    except NotSaved as error:
        raise NotSaved(f"{what}: {error}", address=error.address, state=error.state) from None
    except BadAddress as error:
        raise BadAddress(f"{what}: {error}") from None


def _bounded(nodes: Iterable[int], what: str, limit: int) -> Iterator[int]:
    """Brent's algorithm: end a cyclic list without remembering its nodes."""
    mark, steps, window = 0, 0, 1
    for count, node in enumerate(_named(nodes, what)):
        if node == mark:
            raise WalkError(
                f"{what}: stopped after {count} entries: the list is cyclic at {node:#x}"
            )
        if count >= limit:
            raise WalkError(f"{what}: stopped after {limit} entries: implausible number")
        steps += 1
        if steps == window:
            mark, steps, window = node, 0, window * 2
        yield node


def list_nodes(memory: Memory, head: int, what: str, limit: int = LIMIT) -> Iterator[int]:
    """
    Addresses of the ``struct list_head`` of every entry of a list.

    A cyclic list ends with an error, after each of its entries (some of them twice). Where the dump
    lacks an entry, or a pointer is damaged, those after it are found from the end of the list on.

    :param head: Address of the list's ``struct list_head``.
    :param what: What is walked, for the message.
    :raises WalkError: after the entries that could be read
    """

    def walk(link: int, end: int) -> Iterator[int]:
        node = memory.word(head + link)
        while node not in (head, end):
            if not node:
                raise WalkError(f"{what}: the list at {head:#x} is damaged: it has a NULL pointer")
            yield node
            node = memory.word(node + link)

    def both_ways() -> Iterator[int]:
        seen = {head}
        try:
            for node in walk(0, head):
                seen.add(node)
                yield node
        except WalkError as error:
            # not a problem: the error is raised again below
            with contextlib.suppress(WalkError):
                yield from itertools.takewhile(
                    lambda node: node not in seen, walk(memory.word_size, head)
                )
            raise error

    return _bounded(both_ways(), what, limit)


def hlist_nodes(
    memory: Memory, head: int, what: str, limit: int = LIMIT, *, link: int = 0
) -> Iterator[int]:
    """
    Addresses of every entry of a list that ends with a NULL pointer: of the ``struct hlist_node``.

    :param head: Address of the ``struct hlist_head``, or of a pointer to the first entry.
    :param link: Offset in an entry of its pointer to the next, bytes.
    :raises WalkError: after the entries that could be read
    """

    def walk() -> Iterator[int]:
        node = memory.word(head)
        while node:
            yield node
            node = memory.word(node + link)

    return _bounded(walk(), what, limit)


def cached(prog: Program, key: str, make: Any) -> Any:
    """What ``make()`` returns, made once per program."""
    key = f"drgn_pmem.{key}"
    if key not in prog.cache:
        prog.cache[key] = make()
    return prog.cache[key]

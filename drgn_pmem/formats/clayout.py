# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
C layouts
---------

A format is declared as the C structure that its kernel header declares, and read and written by
that declaration (dissect.cstruct). The declaration is compiled on first use, so that importing a
format costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from drgn_pmem.errors import FormatError

__all__ = ("ByteOrder", "CLayout", "uuid_text")

ByteOrder = Literal["little", "big"]


@cache
def _compile(declarations: str, byteorder: ByteOrder) -> Any:
    from dissect.cstruct import cstruct

    return cstruct(endian="<" if byteorder == "little" else ">").load(declarations, align=True)


class CLayout:
    """
    Structures declared in C, with the padding that a C compiler puts between their members.

    :param declarations: C source with one or more ``struct`` of integers and ``char[]`` arrays.
    """

    def __init__(self, declarations: str) -> None:
        self._declarations = declarations

    def _struct(self, name: str, byteorder: ByteOrder) -> Any:
        return getattr(_compile(self._declarations, byteorder), name)

    def size(self, name: str) -> int:
        """``sizeof(struct name)`` in bytes."""
        return len(self._struct(name, "little"))

    def unpack(
        self, name: str, data: bytes, offset: int = 0, byteorder: ByteOrder = "little"
    ) -> dict[str, Any]:
        """
        The members of ``struct name`` at *offset* bytes: ``int`` for integers, ``bytes`` for
        ``char[]``.

        :raises FormatError: if *data* ends before the structure does.
        """
        size = self.size(name)
        end = offset + size
        if offset < 0 or end > len(data):
            raise FormatError(
                f"struct {name} needs {size} bytes at offset {offset}; only {len(data)} are there"
            )
        record = self._struct(name, byteorder)(bytes(data[offset:end]))
        return {
            member: bytes(value) if isinstance(value, bytes) else int(value)
            for member, value in record.__values__.items()
        }

    def pack(
        self, name: str, members: Mapping[str, int | bytes], byteorder: ByteOrder = "little"
    ) -> bytes:
        """
        The bytes of ``struct name``; members that are not given are zero, ``char[]`` are padded
        with zeroes.

        :raises FormatError: if a value does not fit its member.
        """
        struct = self._struct(name, byteorder)
        record = struct()
        for member, value in members.items():
            ctype = struct.fields[member].type
            size = len(ctype)
            if isinstance(value, bytes):
                if len(value) > size:
                    raise FormatError(
                        f"struct {name}: {member} is {size} bytes, got {len(value)} bytes"
                    )
                value = value.ljust(size, b"\0")
            elif not 0 <= value < 1 << (8 * size):
                raise FormatError(f"struct {name}: {value:#x} does not fit {member} ({size} bytes)")
            setattr(record, member, value)
        return record.dumps()


def uuid_text(data: bytes) -> str:
    """16 bytes of a ``uuid_t`` as text, as the kernel's ``%pUb`` prints them."""
    from uuid import UUID

    return str(UUID(bytes=data))

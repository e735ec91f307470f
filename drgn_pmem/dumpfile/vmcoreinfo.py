# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
VMCOREINFO
----------

The text that the kernel leaves for dump tools: ``OSRELEASE=6.1.0``, ``SYMBOL(name)=hex``,
``OFFSET(struct.member)=decimal`` and so on (kernel/vmcore_info.c, kernel/crash_core.c before v6.9).
It comes from the dump and is not trusted: keys and values stay within printable ASCII, everything
else is escaped.
"""

from typing import TYPE_CHECKING

from drgn_pmem.record import Record, shown

if TYPE_CHECKING:
    from drgn import Program

__all__ = ("MAX_LINES", "Vmcoreinfo", "printable", "vmcoreinfo_of")

_CACHE_KEY = "drgn_pmem.vmcoreinfo"

MAX_LINES = 1 << 16
"""Lines beyond this many are ignored (the kernel writes a few hundred into one page)."""

_KINDS = {"SYMBOL": 16, "OFFSET": 10, "SIZE": 10, "LENGTH": 10, "NUMBER": 0}


def printable(data: bytes) -> str:
    """Untrusted bytes as text that is safe in a terminal: printable ASCII as it is, all else as
    ``\\xNN``."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in data)


def _number(text: str, base: int) -> int | None:
    """A number as the kernel prints it; base 0 takes ``0x`` for hexadecimal and anything else for
    decimal."""
    digits = text.strip()
    if not digits or len(digits) > 32 or "_" in digits:
        return None
    try:
        if base == 0:
            return int(digits, 16 if digits.lower().lstrip("+-").startswith("0x") else 10)
        return int(digits, base)
    except ValueError:
        # not a problem: text that is not a number
        return None


def _hexadecimal(symbols: dict[str, int]) -> dict[str, str]:
    return {name: hex(value) for name, value in symbols.items()}


class Vmcoreinfo(Record):
    """Parsed lines. A name that occurs twice has its last value, as in the kernel's own parsers."""

    values: dict[str, str] = shown(default_factory=dict)
    """Plain ``KEY=value`` lines: OSRELEASE, BUILD-ID, PAGESIZE, CRASHTIME, KERNELOFFSET, ..."""
    symbols: dict[str, int] = shown(json=_hexadecimal, default_factory=dict)
    """``SYMBOL(name)``: kernel virtual address."""
    offsets: dict[str, int] = shown(default_factory=dict)
    """``OFFSET(struct.member)``: bytes."""
    sizes: dict[str, int] = shown(default_factory=dict)
    """``SIZE(name)``: bytes."""
    lengths: dict[str, int] = shown(default_factory=dict)
    """``LENGTH(array)``: elements."""
    numbers: dict[str, int] = shown(default_factory=dict)
    """``NUMBER(name)``: any integer."""

    @classmethod
    def parse(cls, data: bytes) -> "Vmcoreinfo":
        """
        :param data: Text of the note; lines that cannot be understood are left out.
        """
        info = cls()
        tables = {
            "SYMBOL": info.symbols,
            "OFFSET": info.offsets,
            "SIZE": info.sizes,
            "LENGTH": info.lengths,
            "NUMBER": info.numbers,
        }
        for line in data.split(b"\0", 1)[0].split(b"\n", MAX_LINES)[:MAX_LINES]:
            key, separator, value = line.partition(b"=")
            if not separator or not key:
                continue
            name, text = printable(key), printable(value)
            kind, bracket, rest = name.partition("(")
            if bracket and rest.endswith(")") and kind in tables:
                number = _number(text, _KINDS[kind])
                if number is not None:
                    tables[kind][rest[:-1]] = number
            else:
                info.values[name] = text
        return info

    @property
    def osrelease(self) -> str | None:
        """Kernel release (``uname -r``)."""
        return self.values.get("OSRELEASE")

    @property
    def build_id(self) -> str | None:
        """Build ID of vmlinux (hexadecimal)."""
        return self.values.get("BUILD-ID")

    @property
    def page_size(self) -> int | None:
        """Page size (bytes)."""
        return _number(self.values.get("PAGESIZE", ""), 10)

    @property
    def crash_time(self) -> int | None:
        """Time of the crash (seconds since 1970); set when the kernel panics, so a dump of a
        running guest has none."""
        return _number(self.values.get("CRASHTIME", ""), 10)

    @property
    def kernel_offset(self) -> int | None:
        """KASLR offset (bytes)."""
        return _number(self.values.get("KERNELOFFSET", ""), 16)


def vmcoreinfo_of(prog: "Program") -> Vmcoreinfo:
    """VMCOREINFO, parsed; empty if there is no note. Kept in ``prog.cache``."""
    cached: Vmcoreinfo | None = prog.cache.get(_CACHE_KEY)
    if cached is None:
        try:
            text = prog["VMCOREINFO"].string_()
        except LookupError:
            text = b""
        cached = prog.cache[_CACHE_KEY] = Vmcoreinfo.parse(text)
    return cached

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Choosing pages
--------------

:class:`Filter` says which pages of a scan a user wants; :func:`parse_flags` and
:func:`parse_refcount` read what users type.
"""

from dataclasses import dataclass
import re

from drgn import Program

from drgn_pmem.errors import UsageError

__all__ = ("Filter", "parse_flags", "parse_refcount")

_REFCOUNT = re.compile(r"(?P<low>\d{1,9})(?P<to>-(?P<high>\d{1,9})?)?")
_MASK = re.compile(r"0[xX][0-9a-fA-F]{1,16}")
_MAX_REFCOUNT = (1 << 31) - 1


@dataclass(frozen=True)
class Filter:
    """Which pages to look at; the default is all of them."""

    flags: int = 0
    """Mask of page flags that must all be set."""
    refcount: tuple[int, int] | None = None
    """Least and greatest."""
    owner: str | None = None
    """Part of a path or device name, or the address of a ``struct address_space``."""
    busy: bool = False
    """References beyond idle and mappings."""
    hwpoison: bool = False
    shared: bool = False

    @property
    def is_set(self) -> bool:
        """Whether it leaves out anything."""
        return self != Filter()


def parse_flags(prog: Program, text: str) -> int:
    """
    Mask of page flags.

    :param text: ``"dirty,locked"``, with or without ``PG_``, or ``"0x12"``.
    :raises UsageError: naming the flags that there are
    """
    if _MASK.fullmatch(text):
        return int(text, 16)
    try:
        enumerators = prog.type("enum pageflags").enumerators or ()
    except LookupError:
        raise UsageError(
            "names of page flags need debug info of the kernel (-s VMLINUX); give a mask (0x...)"
        ) from None
    bits = {
        e.name.removeprefix("PG_").lower(): e.value for e in enumerators if e.name.startswith("PG_")
    }
    mask = 0
    for name in text.split(","):
        bit = bits.get(name.strip().lower().removeprefix("pg_"))
        if bit is None or not 0 <= bit < 64:
            raise UsageError(f"no page flag {name!r}; there are {', '.join(sorted(bits))}")
        mask |= 1 << bit
    return mask


def parse_refcount(text: str) -> tuple[int, int]:
    """
    Least and greatest reference count.

    :param text: ``"2"``, ``"2-"``, ``"2-5"``
    :raises UsageError: if it is none of these
    """
    match = _REFCOUNT.fullmatch(text.strip())
    if not match:
        raise UsageError(f"{text!r} is not a reference count: give 2, 2- or 2-5")
    low = int(match["low"])
    if not match["to"]:
        return low, low
    high = int(match["high"]) if match["high"] else _MAX_REFCOUNT
    if high < low:
        raise UsageError(f"{text!r}: no reference count is at least {low} and at most {high}")
    return low, high

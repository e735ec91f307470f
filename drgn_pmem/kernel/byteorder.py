# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Byte order
----------

Of the crashed machine. A module of its own: the shell's first prompt needs it, and waits for no
other import.
"""

from drgn import PlatformFlags, Program

__all__ = ("is_little_endian",)


def is_little_endian(prog: Program) -> bool:
    """Byte order of the crashed machine; little if unknown."""
    platform = prog.platform
    return platform is None or bool(platform.flags & PlatformFlags.IS_LITTLE_ENDIAN)

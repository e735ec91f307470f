# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Readers that hit their memory limit
-----------------------------------

An allocation that fails is a MemoryError only in Python: a C library prints its own error and ends
the process, or drgn passes it on as another exception. What that says is all there is to go by.
"""

import errno
import re

from drgn_pmem.errors import PmemError

__all__ = ("is_of_memory", "memory_text", "says_memory")

_LAST_WORDS = re.compile(
    r"(?:annot allocate memory|out of memory|can't start new thread|bad_alloc'?|^MemoryError)\s*$",
    re.MULTILINE,
)
"""Ends of lines: of libdw, libelf, Python's threads, the C++ library, Python."""


def memory_text(limit: int) -> str:
    """
    Why there is no report.

    :param limit: bytes
    """
    return f"more than {limit >> 20} MiB of memory (--memory-limit)"


def says_memory(text: str) -> bool:
    """Whether a process says at the end of a line that it could not allocate memory."""
    return bool(_LAST_WORDS.search(text))


def is_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that led to it, is an allocation that failed."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError):
            return True
        if isinstance(seen, OSError):
            if seen.errno == errno.ENOMEM:
                return True
        elif not isinstance(seen, PmemError) and says_memory(str(seen)):
            return True  # of libelf, libdw or libkdumpfile by drgn, of threads
        seen = seen.__cause__ or seen.__context__
    return False

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Entries of wait queues on stacks
--------------------------------

What wait_var_event() puts on the stack of the task that sleeps in it, and whether the task sleeps:
an entry that was taken out of its queue stays on the stack until something overwrites it.

Sources: kernel/sched/wait_bit.c, include/linux/wait_bit.h.
"""

from typing import NamedTuple

from drgn import Program, offsetof
import numpy as np
import numpy.typing as npt

__all__ = ("WaitEntry", "wait_entry_of")


class WaitEntry(NamedTuple):
    """
    What ``struct wait_bit_queue_entry`` has for wait_var_event(): the address of its function, and
    how many words the other members are from that.
    """

    function: int
    key: int
    """The address waited on."""
    private: int
    """The task."""
    next: int
    """Its place in the queue; the address of itself in none."""

    def waited_on(
        self, words: "npt.NDArray[np.uint64]", at: int, task: int
    ) -> "npt.NDArray[np.uint64]":
        """
        Addresses that a task sleeps for, by entries among the words of its stack.

        :param at: Address of the first word.
        :param task: Address of its ``struct task_struct``.
        """
        found = np.flatnonzero(words == np.uint64(self.function))
        others = (self.key, self.private, self.next)
        found = found[(found + min(others) >= 0) & (found + max(others) < len(words))]
        # wait_var_event() in a loop leaves entries of earlier rounds on the stack. finish_wait(),
        # or who wakes the task, has taken these out of the queue by list_del_init().
        own = np.uint64(at) + 8 * (found + self.next).astype(np.uint64)
        sleeps = (words[found + self.private] == np.uint64(task)) & (
            words[found + self.next] != own
        )
        return words[found[sleeps] + self.key]


def wait_entry_of(prog: Program) -> WaitEntry | None:
    """None if the kernel has no such function, or its debug info not the structure."""
    try:
        function = prog.symbol("var_wake_function").address
        entry = prog.type("struct wait_bit_queue_entry")
        start = offsetof(entry, "wq_entry.func")
        key, private, following = (
            (offsetof(entry, member) - start) // 8
            for member in ("key.flags", "wq_entry.private", "wq_entry.entry.next")
        )
    except LookupError:
        # not a problem: functions with names show the same
        return None
    return WaitEntry(function=function, key=key, private=private, next=following)

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Tasks
-----

Who shares an address space, who has a file open. Sources: include/linux/sched.h,
include/linux/sched/signal.h, include/linux/fdtable.h.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from drgn import Object, Program

from drgn_pmem.kernel.debuginfo import find_variable
from drgn_pmem.kernel.memory import Layout, cached, list_nodes, memory_of
from drgn_pmem.kernel.walk import LIMIT
from drgn_pmem.partial import WalkError

__all__ = (
    "OpenFile",
    "Task",
    "Tasks",
    "for_each_open_file",
    "openers_of",
    "tasks_of",
)

_PF_KTHREAD = 0x00200000
"""``task_struct.flags``; a macro of include/linux/sched.h, unchanged since v2.6.27."""

_MAX_FDS = 1 << 20


@dataclass(frozen=True)
class Task:
    """``struct task_struct``."""

    address: int
    pid: int
    tgid: int
    comm: str
    """As it stands in the dump: not escaped."""
    mm: int
    """Address of its ``struct mm_struct``; 0 for kernel threads and tasks that exited."""
    files: int
    kernel_thread: bool
    object: Object = field(repr=False, compare=False)
    """``struct task_struct *``"""

    def to_json(self) -> dict[str, Any]:
        return {"pid": self.tgid, "comm": self.comm}


@dataclass(frozen=True)
class Tasks:
    """All tasks of the dump."""

    tasks: tuple[Task, ...]
    problems: tuple[str, ...]
    by_mm: dict[int, tuple[Task, ...]] = field(repr=False)
    """Address of a ``struct mm_struct`` -> the thread group leaders that use it."""

    def leader(self, task: Task) -> Task:
        """Leader of a task's thread group; the task itself if it is gone."""
        return next((t for t in self.tasks if t.pid == task.tgid), task)


@dataclass(frozen=True)
class OpenFile:
    """One descriptor of one process."""

    task: Task
    fd: int
    file: int
    """Address of the ``struct file``."""
    inode: int

    def to_json(self) -> dict[str, Any]:
        return {"pid": self.task.tgid, "comm": self.task.comm, "fd": self.fd}


class _Layouts:
    def __init__(self, prog: Program) -> None:
        self.memory = memory = memory_of(prog)
        self.task = Layout(
            memory,
            "struct task_struct",
            pid="pid",
            tgid="tgid",
            mm="mm",
            flags="flags",
            files="files",
            signal="signal",
        )
        self.comm = self.task.offset("comm")
        self.comm_size = self.task.type.member("comm").type.length or 16
        self.tasks = self.task.offset("tasks")
        self.thread_node = self.task.offset("thread_node")
        self.thread_head = Layout(memory, "struct signal_struct").offset("thread_head")
        self.files = Layout(memory, "struct files_struct", fdt="fdt")
        self.fdtable = Layout(memory, "struct fdtable", max_fds="max_fds", fd="fd")
        self.file = Layout(memory, "struct file", inode="f_inode")


def _layouts(prog: Program) -> _Layouts:
    layouts: _Layouts = cached(prog, "tasks.layouts", lambda: _Layouts(prog))
    return layouts


def _read(layouts: _Layouts, address: int) -> tuple[Task, int]:
    values = layouts.task.read(address)
    comm = layouts.memory.read(address + layouts.comm, layouts.comm_size).partition(b"\0")[0]
    task = Task(
        address,
        values["pid"],
        values["tgid"],
        comm.decode("utf-8", "backslashreplace"),
        values["mm"],
        values["files"],
        bool(values["flags"] & _PF_KTHREAD),
        layouts.task.object(address),
    )
    return task, values["signal"]


def _walk(prog: Program, problems: list[str]) -> Iterator[Task]:
    layouts = _layouts(prog)
    init = find_variable(prog, "init_task", "vmlinux").address_
    assert init is not None
    for node in list_nodes(layouts.memory, init + layouts.tasks, "the task list"):
        address = node - layouts.tasks
        try:
            leader, signal = _read(layouts, address)
            yield leader
            threads = list_nodes(
                layouts.memory, signal + layouts.thread_head, f"threads of {leader.pid}"
            )
            for thread in threads:
                if thread - layouts.thread_node != address:
                    yield _read(layouts, thread - layouts.thread_node)[0]
        except WalkError as error:
            problems.append(f"task_struct {address:#x}: {error}")


def _collect(prog: Program) -> Tasks:
    problems: list[str] = []
    tasks: dict[int, Task] = {}
    try:
        for task in _walk(prog, problems):
            tasks.setdefault(task.address, task)
            if len(tasks) >= LIMIT:
                problems.append(f"the task list: stopped after {LIMIT} tasks")
                break
    except WalkError as error:
        problems.append(str(error))
    leaders = {t.pid: t for t in tasks.values() if t.pid == t.tgid}
    by_mm: dict[int, dict[int, Task]] = {}
    for task in tasks.values():
        # A kernel thread may borrow an address space for a while; it owns none.
        if task.mm and not task.kernel_thread:
            by_mm.setdefault(task.mm, {})[task.tgid] = leaders.get(task.tgid, task)
    return Tasks(
        tuple(tasks.values()),
        tuple(problems),
        {mm: tuple(group.values()) for mm, group in by_mm.items()},
    )


def tasks_of(prog: Program) -> Tasks:
    """All tasks, read once per program."""
    tasks: Tasks = cached(prog, "tasks", lambda: _collect(prog))
    return tasks


def for_each_open_file(prog: Program, problems: "list[str] | None" = None) -> Iterator[OpenFile]:
    """
    Every descriptor of every process; a table that threads share is read once.

    :param problems: Gets a line for each table that cannot be read.
    """
    layouts = _layouts(prog)
    memory = layouts.memory
    seen: set[int] = set()
    for task in tasks_of(prog).tasks:
        if not task.files or task.files in seen:
            continue
        seen.add(task.files)
        try:
            table = layouts.fdtable.read(layouts.files.read(task.files)["fdt"])
            count = min(table["max_fds"], _MAX_FDS)
            data = memory.read(table["fd"], count * memory.word_size)
        except WalkError as error:
            if problems is not None:
                problems.append(f"descriptors of {task.pid}: {error}")
            continue
        for fd in range(count):
            start = fd * memory.word_size
            raw = data[start : start + memory.word_size]
            file = int.from_bytes(raw, "little" if memory.order == "<" else "big")
            if not file:
                continue
            try:
                inode = layouts.file.read(file)["inode"]
            except WalkError as error:
                if problems is not None:
                    problems.append(f"descriptor {fd} of {task.pid}: {error}")
                continue
            yield OpenFile(task, fd, file, inode)


def openers_of(prog: Program) -> "dict[int, list[OpenFile]]":
    """Address of a ``struct inode`` -> who has it open; built once per program."""

    def build() -> "dict[int, list[OpenFile]]":
        openers: dict[int, list[OpenFile]] = {}
        for open_file in for_each_open_file(prog):
            openers.setdefault(open_file.inode, []).append(open_file)
        return openers

    index: dict[int, list[OpenFile]] = cached(prog, "openers", build)
    return index

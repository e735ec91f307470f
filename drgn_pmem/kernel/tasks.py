# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Tasks
-----

Who shares an address space, who has a file open. Sources: include/linux/sched.h,
include/linux/sched/signal.h, include/linux/fdtable.h.
"""

from collections.abc import Iterator
import struct
from typing import Any

from drgn import Object, Program, sizeof

from drgn_pmem.dumpfile.opener import is_erased
from drgn_pmem.kernel.debuginfo import find_type, find_variable, has_type
from drgn_pmem.kernel.memory import Layout, cached, list_nodes, memory_of
from drgn_pmem.kernel.walk import LIMIT
from drgn_pmem.partial import Cause, Partial, Problem, Problems
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "OpenFile",
    "Task",
    "Tasks",
    "for_each_open_file",
    "openers_of",
    "stack_size",
    "tasks_of",
)

_PF_KTHREAD = 0x00200000
"""``task_struct.flags``; a macro of include/linux/sched.h, unchanged since v2.6.27."""

_MAX_FDS = 1 << 20


class Task(Record):
    """``struct task_struct``."""

    address: int = shown(Show.ADDRESS)
    pid: int
    tgid: int
    comm: str
    """As in the dump: not escaped."""
    mm: int = shown(Show.ADDRESS)
    """Address of its ``struct mm_struct``; 0 for kernel threads and tasks that exited."""
    files: int = shown(Show.ADDRESS)
    """Address of its ``struct files_struct``; 0 for tasks that exited."""
    kernel_thread: bool
    object: Object = shown(Show.HIDDEN)
    """``struct task_struct *``"""

    def to_json(self) -> dict[str, Any]:
        return {"pid": self.tgid, "comm": self.comm}


_STACK_SIZE = 16384
"""``THREAD_SIZE`` of x86_64 and arm64."""


def stack_size(prog: Program) -> int:
    """``THREAD_SIZE``: 32 KiB on POWER (``CONFIG_THREAD_SHIFT``), mostly 16 KiB elsewhere."""
    # The linker script (include/asm-generic/vmlinux.lds.h) reserves the first task's stack; the
    # symbols were named __start_init_task and __end_init_task before.
    for name in ("stack", "task"):
        try:
            start = prog.symbol(f"__start_init_{name}").address
            size = prog.symbol(f"__end_init_{name}").address - start
        except LookupError:
            # not a problem: the other name, or the type says it
            continue
        if 0 < size <= 1 << 18 and size & (size - 1) == 0:
            return size
    if has_type(prog, "union thread_union"):
        return sizeof(find_type(prog, "union thread_union", "vmlinux"))
    return _STACK_SIZE


class Tasks(Record):
    """All tasks of the dump."""

    tasks: tuple[Task, ...]
    by_mm: dict[int, tuple[Task, ...]] = shown(Show.HIDDEN)
    """Address of a ``struct mm_struct`` -> the thread group leaders that use it."""


class OpenFile(Record):
    """One descriptor of one process."""

    task: Task
    fd: int
    file: int = shown(Show.ADDRESS)
    """Address of the ``struct file``."""
    inode: int = shown(Show.ADDRESS)
    """Address of the ``struct inode``."""

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
    prog = layouts.memory.prog
    task = Task(
        address=address,
        pid=values["pid"],
        tgid=values["tgid"],
        comm="erased" if is_erased(prog, comm) else comm.decode("utf-8", "backslashreplace"),
        mm=values["mm"],
        files=values["files"],
        kernel_thread=bool(values["flags"] & _PF_KTHREAD),
        object=layouts.task.object(address),
    )
    return task, values["signal"]


def _walk(prog: Program, problems: Problems) -> Iterator[Task]:
    layouts = _layouts(prog)
    init = find_variable(prog, "init_task", "vmlinux").address_
    assert init is not None
    nodes = list_nodes(layouts.memory, init + layouts.tasks, "the task list")
    for node in problems.collect(nodes):
        address = node - layouts.tasks
        with problems.trying(f"task_struct {address:#x}"):
            leader, signal = _read(layouts, address)
            yield leader
            threads = list_nodes(
                layouts.memory, signal + layouts.thread_head, f"threads of {leader.pid}"
            )
            for thread in problems.collect(threads):
                if thread - layouts.thread_node == address:
                    continue
                with problems.trying(f"thread of {leader.pid}"):
                    yield _read(layouts, thread - layouts.thread_node)[0]


def _collect(prog: Program) -> Partial[Tasks]:
    problems = Problems()
    tasks: dict[int, Task] = {}
    for task in _walk(prog, problems):
        tasks.setdefault(task.address, task)
        if len(tasks) >= LIMIT:
            problems.add(Problem(cause=Cause.LIMIT, why=f"the task list: stopped after {LIMIT}"))
            break
    leaders = {t.pid: t for t in tasks.values() if t.pid == t.tgid}
    by_mm: dict[int, dict[int, Task]] = {}
    for task in tasks.values():
        # A kernel thread may borrow an address space for a while; it owns none.
        if task.mm and not task.kernel_thread:
            by_mm.setdefault(task.mm, {})[task.tgid] = leaders.get(task.tgid, task)
    return problems.partial(
        Tasks(
            tasks=tuple(tasks.values()),
            by_mm={mm: tuple(group.values()) for mm, group in by_mm.items()},
        )
    )


def tasks_of(prog: Program) -> Partial[Tasks]:
    """
    All tasks, read once per program.

    :raises MissingDebugInfo: without debug info of vmlinux
    """
    tasks: Partial[Tasks] = cached(prog, "tasks", lambda: _collect(prog))
    return tasks


def _descriptors(layouts: _Layouts, task: Task, problems: Problems) -> Iterator[OpenFile]:
    memory = layouts.memory
    table = layouts.fdtable.read(layouts.files.read(task.files)["fdt"])
    count = min(table["max_fds"], _MAX_FDS)
    if count < table["max_fds"]:
        why = f"{table['max_fds']} descriptors are an implausible number; {count} were read"
        problems.add(Problem(cause=Cause.LIMIT, why=why), f"descriptors of {task.pid}")
    words = f"{memory.order}{count}{'Q' if memory.word_size == 8 else 'I'}"
    slots = struct.unpack(words, memory.read(table["fd"], count * memory.word_size))
    for fd, file in enumerate(slots):
        if not file:
            continue
        with problems.trying(f"descriptor {fd} of {task.pid}"):
            inode = layouts.file.read(file)["inode"]
            yield OpenFile(task=task, fd=fd, file=file, inode=inode)


def _open_files(prog: Program) -> Partial[tuple[OpenFile, ...]]:
    problems = Problems()
    layouts = _layouts(prog)
    seen: set[int] = set()
    found: list[OpenFile] = []
    for task in problems.take(tasks_of(prog)).tasks:
        if not task.files or task.files in seen:
            continue
        seen.add(task.files)
        what = f"descriptors of {task.pid}"
        found += problems.collect(_descriptors(layouts, task, problems), what)
    return problems.partial(tuple(found))


def for_each_open_file(prog: Program) -> Partial[tuple[OpenFile, ...]]:
    """
    Every descriptor of every process; a table that threads share counts once. Read once per
    program.

    :raises MissingDebugInfo: without debug info of vmlinux
    """
    files: Partial[tuple[OpenFile, ...]] = cached(prog, "open_files", lambda: _open_files(prog))
    return files


def openers_of(prog: Program) -> Partial[dict[int, tuple[OpenFile, ...]]]:
    """Address of a ``struct inode`` -> who has it open; made once per program."""

    def make() -> Partial[dict[int, tuple[OpenFile, ...]]]:
        problems = Problems()
        openers: dict[int, list[OpenFile]] = {}
        for open_file in problems.take(for_each_open_file(prog)):
            openers.setdefault(open_file.inode, []).append(open_file)
        return problems.partial({inode: tuple(files) for inode, files in openers.items()})

    index: Partial[dict[int, tuple[OpenFile, ...]]] = cached(prog, "openers", make)
    return index

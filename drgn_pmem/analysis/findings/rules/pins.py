# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rules about pages that are held and tasks that are stuck."""

from collections.abc import Sequence
import re

from drgn import Object
from drgn.helpers.linux.cpumask import for_each_online_cpu
from drgn.helpers.linux.percpu import per_cpu
from drgn.helpers.linux.sched import task_state_to_char

from drgn_pmem.analysis.findings.backtraces import unwind
from drgn_pmem.analysis.findings.case import Case, rule
from drgn_pmem.analysis.findings.functions import is_of_pmem
from drgn_pmem.analysis.findings.model import Heading, Severity
from drgn_pmem.analysis.findings.pins import Holder, PinnedPage, Waiter
from drgn_pmem.analysis.findings.words import few, plural
from drgn_pmem.kernel.dm import suspended_disks
from drgn_pmem.kernel.holders import Hold
from drgn_pmem.kernel.tasks import Task
from drgn_pmem.partial import Problems

__all__ = ("uninterruptible",)

_FD = re.compile(r"(?:of|ring) fd (\d+)")

_SLEEPING = re.compile(
    r"^_*(schedule|context_switch|switch_to|io_schedule|raw_spin|bit_wait|wait_for|wait_on|do_wait"
    r"|wait_event|submit_bio_wait|blk_io_schedule|rq_qos_wait)"
)
"""Functions in which a task sleeps: they do not show what it waits for."""


def _holder(holder: Holder) -> str:
    """``"393/lab-pin (vmsplice, fd 5)"``"""
    fd = _FD.search(holder.evidence)
    where = f", fd {fd[1]}" if fd else ""
    maybe = "" if holder.certain else "possibly "
    if holder.task is None:
        return f"{maybe}the kernel ({holder.kind.value})"
    return f"{maybe}{holder.process} ({holder.kind.value}{where})"


def _file(page: PinnedPage) -> tuple[str, str]:
    """Name and place of the page in it: ``("/mnt/xfs/pinned", "offset 0x0")``."""
    for owner in page.owners.owners:
        if owner.name:
            return owner.name, f"offset {owner.offset:#x}"
    where = page.owners.namespace or "pmem"
    return where, f"PFN {page.pfn:#x}"


def _since(task: Object, problems: Problems) -> str:
    """``"12.3 s"``: how long a task has not run; empty if that is not known."""
    prog = task.prog_
    with problems.trying("since when a task sleeps"):
        # The clock of an idle CPU may stand still: the latest of all of them is now.
        clocks = [
            per_cpu(prog["runqueues"], cpu).clock_task.value_() for cpu in for_each_online_cpu(prog)
        ]
        # update_curr() sets it when the task leaves the CPU.
        slept = (max(clocks) - task.se.exec_start.value_()) / 1e9
        return f"{slept:.1f} s" if slept >= 0 else ""
    return ""


@rule("layout-break", Heading.PINNED, "tasks stuck in a DAX layout break", "pmem-pins")
def layout_break(case: Case) -> None:
    """A truncate, hole punch or unmount that waits for a reference on a page: the chain from the
    waiter over the page to the holder."""
    pins = case.take(case.facts.pins)
    waiting = [
        (waiter, next((p for p in pins.pages if waiter in p.waiters), None))
        for waiter in pins.waiters
    ]
    for waiter, page in waiting:
        held = few(_holder(h) for h in page.holders) if page is not None else ""
        name, where = _file(page) if page is not None else (waiter.file or "a file", "")
        since = _since(waiter.task.object, case.problems)
        case.found(
            Severity.CRITICAL,
            f"{waiter.task.pid}/{waiter.task.comm}",
            f"waits in {waiter.place} for {name}{' ' if where else ''}{where}"
            f"{f' for {since}' if since else ''}; "
            + (f"the page is held by {held}" if held else "who holds the page was not found"),
            evidence=_chain(waiter, page),
            do=_release([w for w, p in waiting if _holders(p) == _holders(page)], page),
            place=name,
            brief=f"{waiter.task.pid}/{waiter.task.comm} waits for {'it' if page else name} in "
            f"{waiter.place}{f' for {since}' if since else ''}",
        )


def _chain(waiter: Waiter, page: PinnedPage | None) -> list[str]:
    steps = [f"{waiter.task.pid}/{waiter.task.comm} sleeps in {waiter.place}"]
    if waiter.pfn is not None:
        steps.append(f"its stack names PFN {waiter.pfn:#x}")
    if page is not None:
        steps.append(f"PFN {page.pfn:#x} has {_counts(page, 'refcount')}")
        steps += [f"{_holder(h)}: {h.evidence}" for h in page.holders]
    return steps


def _counts(page: PinnedPage, *names: str) -> str:
    """``"refcount 2, pins 1"``; those that are not known are called unknown."""
    counts = ((name, page.count(name)) for name in names)
    return ", ".join(f"{name} {'unknown' if c is None else c}" for name, c in counts)


def _holders(page: PinnedPage | None) -> tuple[bool, tuple[str, ...]]:
    """Whether a memory failure holds a page, and the processes that do."""
    held = page.holders if page else ()
    names = dict.fromkeys(holder.process for holder in held if holder.task)
    return any(holder.kind is Hold.MEMORY_FAILURE for holder in held), tuple(names)


def _release(waiters: Sequence[Waiter], page: PinnedPage | None) -> str:
    """
    What to do about a page that is waited for.

    :param waiters: All that wait for pages of the same holders: what to do is the same.
    """
    failed, holders = _holders(page)
    names = dict.fromkeys(f"{waiter.task.pid}/{waiter.task.comm}" for waiter in waiters)
    wait = f"{few(names)} wait{'s' if len(names) == 1 else ''}"
    if failed:
        return f"{wait} for ever: before Linux 4.19 a poisoned DAX page is never released"
    if not holders:
        return f"find what holds the page: {wait} for it"
    return f"find why {few(holders)} keeps its pages: {wait} until they are released"


@rule("pinned-page", Heading.PINNED, "pages with extra references", "pmem-pins")
def pinned_page(case: Case) -> None:
    """Pages that someone holds beyond their mappings, by file and holder."""
    groups: dict[tuple[str, str], list[PinnedPage]] = {}
    nobody = "holder not found" if case.facts.pins().complete else "holder not known"
    for page in case.take(case.facts.pins).pages:
        held = few(_holder(h) for h in page.holders) or nobody
        groups.setdefault((_file(page)[0], held), []).append(page)
    for (name, held), pages in groups.items():
        known = any(page.holders for page in pages)
        case.found(
            Severity.INFO if known else Severity.WARNING,
            name,
            f"{few(_file(page)[1] for page in pages)} pinned by {held}"
            if known
            else f"{few(_file(page)[1] for page in pages)} has extra references; {held}",
            evidence=[f"PFN {page.pfn:#x}: {_counts(page, 'refcount', 'pins')}" for page in pages],
            place=name,
            brief=f"{name} {few(_file(page)[1] for page in pages)} by {held}",
        )


def uninterruptible(case: Case) -> list[Task]:
    """Tasks in uninterruptible sleep, which count for the load (state D)."""
    found = []
    for task in case.take(case.facts.tasks):
        with case.problems.trying(f"state of {task.pid}"):
            if task_state_to_char(task.object) == "D":
                found.append(task)
    return found


@rule("task-stuck-on-pmem", Heading.TASKS, "tasks stuck in functions of pmem", "pmem-pins")
def task_stuck_on_pmem(case: Case) -> None:
    """Uninterruptible tasks that hold pages of pmem, or sleep in a function of DAX or libnvdimm."""
    blocked = uninterruptible(case)
    if not blocked:
        return
    suspended = {disk.name: disk.mapped for disk in case.take(lambda: suspended_disks(case.prog))}
    stacks = {found.task.address: found for found in case.take(case.facts.stacks)}
    for task in blocked:
        stack = stacks.get(task.address)
        if stack is not None and stack.layout_break:
            continue
        functions = _functions(case, task) if stack is None else stack.functions
        function = next((name for name in functions if not _SLEEPING.match(name)), None)
        of_pmem = next((name for name in functions if is_of_pmem(name)), None)
        held = stack is not None and stack.hold is not None and bool(stack.pages)
        if of_pmem is None and not held:
            continue
        since = _since(task.object, case.problems)
        hold = stack.hold.value if stack is not None and stack.hold is not None else None
        if held and hold and stack is not None:
            pages = plural(len(stack.pages), "page")
            to = "".join(f" to {_device(name, suspended)}" for name in stack.disks[:2])
            text = f"in {hold}{to} ({stack.function or function}) with {pages} of pmem"
        else:
            text = f"in {of_pmem or function or 'a function without a name'}"
        case.found(
            Severity.WARNING,
            f"{task.pid}/{task.comm}",
            text + (f" for {since}" if since else ""),
            evidence=[" <- ".join(functions[:12])],
            more="pmem-pins",
            place=next((n for n in stack.disks if n in suspended), "") if stack else "",
        )


def _device(name: str, suspended: dict[str, str | None]) -> str:
    """``"dm-1"``, ``"the suspended dm-1 (/dev/mapper/slow)"``"""
    if name not in suspended:
        return name
    mapped = suspended[name]
    return f"the suspended {name}{f' (/dev/mapper/{mapped})' if mapped else ''}"


def _functions(case: Case, task: Task) -> tuple[str, ...]:
    with case.problems.trying(f"stack of {task.pid}"):
        return tuple(f.name for f in unwind(case.prog, task.object) or () if f.name)
    return ()


@rule("dm-suspended", Heading.TASKS, "suspended device-mapper devices", "pmem-pins")
def dm_suspended(case: Case) -> None:
    """Device-mapper devices that let no I/O through: a task that reads or writes pmem through one
    keeps its pages pinned."""
    for disk in case.take(lambda: suspended_disks(case.prog)):
        named = f" (/dev/mapper/{disk.mapped})" if disk.mapped else ""
        case.found(
            Severity.WARNING,
            f"{disk.name}{named}",
            "device-mapper device suspended: I/O to it waits",
            do=f"resume {disk.name}: dmsetup resume {disk.mapped or disk.name}",
            place=disk.name,
        )

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
drgn's own commands and helpers on a dump, run by test_stock.py in a process of its own:
``stock.py DUMP off|loaded|used VMLINUX...``. Prints JSON: what was asked -> what came.

``off``: drgn alone; ``loaded``: our plugin is loaded; ``used``: our commands were run first.
"""

import contextlib
import io
import itertools
import json
import sys

import drgn
from drgn.commands import run_command
from drgn.helpers.common.memory import identify_address
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.device import bus_for_each_dev, dev_name
from drgn.helpers.linux.fs import for_each_file, for_each_mount, mount_dst
from drgn.helpers.linux.ioport import for_each_resource
from drgn.helpers.linux.mm import (
    cmdline,
    environ,
    for_each_valid_page_range,
    for_each_vma,
    page_to_pfn,
    pfn_to_page,
    totalram_pages,
)
from drgn.helpers.linux.panic import panic_message, panic_task
from drgn.helpers.linux.pid import find_task, for_each_task
from drgn.helpers.linux.printk import get_dmesg
from drgn.helpers.linux.sched import cpu_curr, loadavg, task_cpu, task_state_to_char
from drgn.helpers.linux.slab import for_each_slab_cache, slab_cache_objects_per_slab

CRASH = (
    "sys", "log", "ps", "ps -a", "ps -t", "ps -s", "vm", "files", "mount", "dev", "dev -p", "irq",
    "kmem -z", "kmem -n", "kmem -s", "bt", "bt -a", "task", "runq", "timer", "sig", "set", "mod",
    "sym init_task", "p init_task.comm", "rd init_task 64", "struct task_struct.tasks init_task",
    "foreach files", "foreach vm", "search -p -s 100000000 -e 200000000 deadbeefdeadbeef",
    "search -p -w -s 1000 -e 40000000 12345678",
)  # fmt: skip
OURS = ("pmem-list", "pmem-namespaces", "pmem-memmap", "pmem-files", "pmem-coverage")


def processes(prog, read):
    for task in for_each_task(prog):
        if task.mm:
            try:
                yield task.pid.value_(), read(task)
            except drgn.FaultError as error:
                yield task.pid.value_(), str(error)


def search(iterator, start, end, physical=True):
    iterator.set_address_range(start, end, physical)
    return list(itertools.islice(iterator, 2000))


def first_pages(prog):
    for start, end, _ in for_each_valid_page_range(prog):
        for pfn in (start, (start + end) // 2, end - 1):
            page = pfn_to_page(prog, pfn)
            try:
                yield pfn, page_to_pfn(page).value_(), page.flags.value_()
            except drgn.FaultError as error:
                yield pfn, str(error)


HELPERS = {
    "cmdline": lambda prog: list(processes(prog, cmdline)),
    "environ": lambda prog: list(processes(prog, environ)),
    "vmas": lambda prog: list(processes(prog, lambda t: len(list(for_each_vma(t.mm))))),
    "files": lambda prog: list(processes(prog, lambda t: len(list(for_each_file(t))))),
    "states": lambda prog: list(processes(prog, task_state_to_char)),
    "cpus": lambda prog: list(processes(prog, task_cpu)),
    "mounts": lambda prog: [mount_dst(mount) for mount in for_each_mount(prog)],
    "resources": lambda prog: [
        (r.start.value_(), r.name.string_()) for r in for_each_resource(prog["iomem_resource"])
    ],
    "devices": lambda prog: [
        dev_name(device) for device in bus_for_each_dev(prog["pci_bus_type"].address_of_())
    ],
    "pages": lambda prog: list(first_pages(prog)),
    "ram": lambda prog: int(totalram_pages(prog)),
    "panic": lambda prog: (panic_message(prog), panic_task(prog).pid.value_()),
    "running": lambda prog: [cpu_curr(prog, c).comm for c in for_each_possible_cpu(prog)],
    "load": loadavg,
    "dmesg": get_dmesg,
    "init": lambda prog: find_task(prog, 1),
    "crashed thread": lambda prog: prog.crashed_thread().tid,
    "stack": lambda prog: prog.stack_trace(prog.crashed_thread().tid),
    "slab caches": lambda prog: [
        slab_cache_objects_per_slab(cache) for cache in for_each_slab_cache(prog)
    ],
    "identify": lambda prog: identify_address(prog["init_task"].address_of_()),
    "read": lambda prog: [prog.read(a, 64, True) for a in range(0x1000000, 0x2000000, 0x10000)],
    "search bytes": lambda prog: search(prog.search_memory(b"Linux version"), 0, 1 << 33),
    "search zeroes": lambda prog: search(prog.search_memory_u64(0), 1 << 30, 1 << 33),
    "search word": lambda prog: search(
        prog.search_memory_word(prog["init_task"].address_), 0, 1 << 33
    ),
    "search virtual": lambda prog: search(
        prog.search_memory(b"swapper/"),
        prog["init_task"].address_,
        prog["init_task"].address_ + 0x4000,
        False,
    ),
}


def shown(function, *args) -> str:
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            value = function(*args)
    except Exception as error:  # an error is an answer here: the same without us and with us
        value = f"{type(error).__name__}: {error}"
    return f"{out.getvalue()}{value!s}"


def main() -> None:
    path, how, *symbols = sys.argv[1:]
    prog = drgn.Program()
    prog.set_core_dump(path)
    prog.load_debug_info(symbols)
    drgn.set_default_prog(prog)
    assert ("drgn_pmem.plugin" in sys.modules) == (how != "off")
    if how == "used":
        for line in OURS:
            shown(run_command, prog, line)
    answers = {f"%crash {line}": shown(run_command, prog, f"crash {line}") for line in CRASH}
    answers |= {name: shown(helper, prog) for name, helper in HELPERS.items()}
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()

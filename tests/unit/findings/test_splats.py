# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reports of kernel logs, as kernels of several years and machines print them."""

import pytest

from drgn_pmem.analysis.findings.functions import is_of_pmem
from drgn_pmem.analysis.findings.splats import panic_functions, parse_splats, report_of_panic

WARNING = """\
[   18.054666] WARNING: CPU: 1 PID: 354 at ./source/fs/dax.c:380 dax_insert_entry+0x1aa/0x238
[   18.057176] CPU: 1 PID: 354 Comm: lab-xfs Not tainted 6.1.192-pmem #1
[   18.057681] RIP: 0010:dax_insert_entry+0x1aa/0x238
[   18.058000] RAX: ffffef5304620200 RBX: 0000000000000001 RCX: ffff8e2f10242880
[   18.060000] Call Trace:
[   18.060500]  <TASK>
[   18.061270]  dax_fault_iter+0x360/0x444
[   18.061438]  dax_iomap_pte_fault+0x158/0x1b9
[   18.062140] RIP: 0033:0x401e8b
[   18.063000]  </TASK>
[   18.063659] ---[ end trace 0000000000000000 ]---
[   19.000000] XFS (pmem5): Ending clean mount of ffff8e2f10242999
"""

HUNG_ON_ARM64 = """\
[  242.1] INFO: task lab-trunc:529 blocked for more than 120 seconds.
[  242.2]       Not tainted 6.12.117-pmem #1
[  242.3] task:lab-trunc  state:D stack:0  pid:529
[  242.4] Call trace:
[  242.5]  __switch_to+0xe8/0x150
[  242.6]  xfs_break_layouts+0x90/0x120
[  243.0] EXT4-fs (pmem2): mounted ffff0000c0ffee00
"""

OOPS = """\
[   50.000001][ T1234] BUG: unable to handle page fault for address: ffff88812d000000
[   50.000002][ T1234] #PF: supervisor read access in kernel mode
[   50.000003][ T1234] Oops: 0000 [#1] PREEMPT SMP
[   50.000004][ T1234] CPU: 0 UID: 0 PID: 1234 Comm: my task Tainted: G M 7.2.13 #1
[   50.000005][ T1234] RIP: 0010:pmem_do_read+0x10/0x80
[   50.000006][ T1234] ---[ end trace 0000000000000000 ]---
[   50.000007][ T1234] Kernel panic - not syncing: Fatal exception
[   50.000008][ T1234] WARNING: CPU: 0 PID: 1 at kernel/panic.c:1 late_thing+0x1/0x2
"""


def test_a_warning_has_its_task_functions_and_addresses_and_nothing_after_it() -> None:
    (splat,) = parse_splats(WARNING)
    assert (splat.time, splat.pid, splat.comm) == (18.054666, 354, "lab-xfs")
    assert splat.functions == ("dax_insert_entry", "dax_fault_iter", "dax_iomap_pte_fault")
    assert splat.addresses == (0xFFFFEF5304620200, 0xFFFF8E2F10242880)


def test_a_hung_task_ends_without_a_mark() -> None:
    (splat,) = parse_splats(HUNG_ON_ARM64)
    assert (splat.pid, splat.comm) == (529, "lab-trunc")
    assert splat.functions == ("__switch_to", "xfs_break_layouts")
    assert splat.addresses == ()


def test_an_oops_is_one_report_and_what_follows_the_panic_is_none() -> None:
    (splat,) = parse_splats(OOPS)
    assert splat.title == "BUG: unable to handle page fault for address: ffff88812d000000"
    assert (splat.pid, splat.comm) == (1234, "my task")
    assert 0xFFFF88812D000000 in splat.addresses


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        # arch/x86/mm/fault.c and kernel/traps.c, since v5.1 and before
        ("BUG: unable to handle page fault for address: ffff88812d000000", 0xFFFF88812D000000),
        ("BUG: unable to handle kernel paging request at ffff88812d000000", 0xFFFF88812D000000),
        ("BUG: kernel NULL pointer dereference, address: 0000000000000008", 8),
        (
            "general protection fault, maybe for address 0xffffea0004a57dc8: 0000 [#1] SMP",
            0xFFFFEA0004A57DC8,
        ),
        ("CR2: ffff88812d000000 CR3: 000000000220a000 CR4: 00000000000006f0", 0xFFFF88812D000000),
        # arch/arm64/mm/fault.c
        (
            "Unable to handle kernel paging request at virtual address ffff000059628000",
            0xFFFF000059628000,
        ),
        # arch/powerpc/mm/fault.c
        (
            "BUG: Unable to handle kernel data access on read at 0xc000000128000000",
            0xC000000128000000,
        ),
        (
            "Unable to handle kernel paging request for data at address 0xc000000128000000",
            0xC000000128000000,
        ),
    ],
)
def test_a_fault_has_its_address(line: str, fault: int) -> None:
    text = f"[ 1.0] Oops: 0000 [#1] SMP\n[ 1.0] {line}\n[ 1.1] RBX: ffff888100000000\n"
    assert parse_splats(text)[-1].fault == fault


def test_the_address_of_an_earlier_fault_is_not_that_of_a_warning() -> None:
    """CR2 keeps it."""
    line = "[   18.059711] CR2: 00007ff98abf2000 CR3: 0000000011069000 CR4: 00000000007506e0\n"
    before, trace, after = WARNING.partition("[   18.060000] Call Trace:")
    (splat,) = parse_splats(before + line + trace + after)
    assert splat.fault is None


def test_a_warning_of_a_new_kernel_names_its_task() -> None:
    line = "[ 1.0] WARNING: fs/dax.c:380 at dax_insert_entry+0x1/0x2, CPU#1: lab-ring/172\n"
    (splat,) = parse_splats(line)
    assert (splat.pid, splat.comm) == (172, "lab-ring")


def test_a_bad_page_has_its_pfn() -> None:
    (splat,) = parse_splats("[ 1.0] BUG: Bad page state in process sh  pfn:1295f5\n")
    assert splat.pfn == 0x1295F5


def test_the_calls_of_a_panic_follow_its_message() -> None:
    log = WARNING + (
        "[ 112.3] Kernel panic - not syncing: sysrq triggered crash\n"
        "[ 112.4] Call Trace:\n[ 112.5]  panic+0xfc/0x28c\n[ 112.6]  pmem_submit_bio+0x1/0x2\n"
    )
    assert panic_functions(log) == ["panic", "pmem_submit_bio"]
    assert panic_functions(WARNING) == []


def test_functions_of_pmem_are_told_from_others() -> None:
    for name in ("dax_insert_entry", "nd_pmem_probe", "__nd_region_probe", "xfs_break_layouts",
                 "acpi_nfit_ctl", "pmem_rw_page", "btt_submit_bio", "xfs_dax_fault"):  # fmt: skip
        assert is_of_pmem(name), name
    for name in (
        "schedule",
        "nd_jump_link",
        "ext4_file_write_iter",
        "namespace_unlock",
        "sysrq_handle_crash",
    ):
        assert not is_of_pmem(name), name


KEXEC_AFTER_OOPS = """\
[   66.902] BUG: unable to handle page fault for address: ffff8c1b01602000
[   66.903] #PF: supervisor write access in kernel mode
[   66.904] Oops: 0002 [#1] SMP
[   66.905] CPU: 0 PID: 230 Comm: insmod Kdump: loaded Tainted: G           O       6.1.192-pmem #1
[   66.906] RIP: 0010:pmem_do_write+0x0/0x8 [nd_pmem]
[   66.907] CR2: ffffffffc0346fee CR3: 000000001088c000 CR4: 00000000007506f0
[   66.908] Call Trace:
[   66.909]  <TASK>
[   66.910]  pmem_submit_bio+0xab/0x1000 [nd_pmem]
[   66.911]  ? dax_iomap_fault+0x10/0x20
[   66.912]  do_one_initcall+0x73/0x158
[   66.913]  </TASK>
[   66.914] Modules linked in: nd_pmem
[   66.915] CR2: ffff8c1b01602000
"""
"""After a real crash of x86 with a crash kernel loaded (names changed): panic() has printed
nothing, and the first CR2 is that of the code which could not be shown."""


def test_an_oops_with_a_crash_kernel_loaded_is_the_report_of_the_panic() -> None:
    report = report_of_panic(KEXEC_AFTER_OOPS, KEXEC_AFTER_OOPS.splitlines()[0][13:])
    assert report is not None
    assert (report.pid, report.fault) == (230, 0xFFFF8C1B01602000)
    # "?": what an earlier call left on the stack
    assert report.functions == ("pmem_do_write", "pmem_submit_bio", "do_one_initcall")
    assert report_of_panic(KEXEC_AFTER_OOPS, "sysrq triggered crash") is None


def test_calls_are_guesses_where_the_unwinder_knows_none() -> None:
    """CONFIG_UNWINDER_GUESS"""
    log = "[ 1.0] WARNING: a at f+0x1/0x2\n[ 1.1] Call Trace:\n[ 1.2]  ? dax_writeback+0x1/0x2\n"
    (splat,) = parse_splats(log)
    assert splat.functions == ("f", "dax_writeback")

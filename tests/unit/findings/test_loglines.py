# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which lines of a kernel log are about persistent memory or the crash."""

import pytest

from drgn_pmem.analysis.findings.loglines import LogTopic, parse_log_lines

LOG = """\
[    0.000000] Linux version 6.1.192-pmem
[    1.100000] nfit ACPI0012:00: found a zero length table '0' parsing nfit
[    1.200000] nd_pmem namespace1.0: unable to guarantee persistence of writes
[    1.300000] nmem2: region0: failed to read labels
[    1.400000] XFS (pmem5): Mounting V5 Filesystem
[    2.000000][  T354] WARNING: CPU: 1 PID: 354 at fs/dax.c:380 dax_insert_entry+0x1aa/0x238
[    2.000001][  T354] Modules linked in:
[    2.000002][  T354] RIP: 0010:dax_insert_entry+0x1aa/0x238
[    3.000000] Memory failure: 0x1295f5: recovery action for dax page: Recovered
[    4.000000] EXT4-fs error (device pmem2): ext4_find_entry:1463: inode #2: comm ls: reading
[    4.100000] EXT4-fs error (device sda1): ext4_find_entry:1463: inode #2: comm ls: reading
[    4.200000] usb 1-1: device not accepting address 2, error -71
[    5.000000] Kernel panic - not syncing: Fatal exception
"""

TOPICS = [
    (1.2, LogTopic.DRIVER),
    (1.3, LogTopic.DRIVER),
    (2.0, LogTopic.REPORT),
    (2.000002, LogTopic.REPORT),
    (3.0, LogTopic.MEMORY),
    (4.0, LogTopic.FILE_SYSTEM),
    (5.0, LogTopic.PANIC),
]


def test_lines_that_matter_in_their_order_and_no_others() -> None:
    answer = parse_log_lines(LOG.encode(), 12)
    assert answer.complete
    assert [(line.time, line.topic) for line in answer.value] == TOPICS
    assert answer.value[4].text.startswith("Memory failure: 0x1295f5: ")


@pytest.mark.parametrize(("lines", "complete"), [(500, True), (501, False)])
def test_a_log_of_too_many_is_cut_and_says_so(lines: int, complete: bool) -> None:
    answer = parse_log_lines(b"Memory failure: 0x1: recovery action for x: Failed\n" * lines, 12)
    assert len(answer.value) == 500
    assert answer.complete == complete

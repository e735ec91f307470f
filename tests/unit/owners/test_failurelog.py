# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Errors of memory are found in every kind of line that the kernel writes about them."""

import pytest

from drgn_pmem.kernel.failurelog import FailureEvent, FailureSource, history_of, parse_log

GHES = (
    b"[    2.0] {1}[Hardware Error]: event severity: %s\n"
    b"[    2.1] {1}[Hardware Error]:   physical_address: 0x00000008a398a400\n"
)


@pytest.mark.parametrize(
    ("line", "source", "event", "pfn"),
    [
        (b"Memory failure: 0x1295f5: recovery action for dax page: Recovered",
         "MEMORY_FAILURE", "HANDLED", 0x1295F5),
        (b"Memory failure: 0x118500: recovery action for dax page: Failed",
         "MEMORY_FAILURE", "NOT_HANDLED", 0x118500),
        (b"Memory failure: 0x1295f5: Sending SIGBUS to a:1 due to hardware memory corruption",
         "MEMORY_FAILURE", "SIGNALLED", 0x1295F5),
        (b"Memory failure: 0x1295f5: already hardware poisoned",
         "MEMORY_FAILURE", "REPORTED", 0x1295F5),
        (b"Injecting memory failure for pfn 0x131650 at process virtual address 0x7f0000000000",
         "MEMORY_FAILURE", "INJECTED", 0x131650),
        (b"Unpoison: Software-unpoisoned page 0x131650", "MEMORY_FAILURE", "CLEARED", 0x131650),
        (b"mce: Uncorrected hardware memory error in user-access at af34214200",
         "MCE", "REPORTED", 0xAF34214),
        (b"mce: [Hardware Error]: TSC 1234abcd ADDR 129c01040 MISC 8c ",
         "MCE", "REPORTED", 0x129C01),
        (GHES % b"recoverable", "GHES", "REPORTED", 0x8A398A),
        (GHES % b"corrected", "GHES", "CORRECTED", 0x8A398A),
        (b"{2}[Hardware Error]:     physical fault address: 0x0000000129c01000",
         "GHES", "REPORTED", 0x129C01),
        (b"[Firmware Warn]: GHES: Invalid address in generic error data: 0x129c01000",
         "GHES", "REPORTED", 0x129C01),
        (b"EDAC MC0: 1 UE memory read error on CPU_SrcID#0_Ha#0_Chan#0_DIMM#0 (channel:0 slot:0"
         b" page:0x129c01 offset:0x40 grain:32 - OVERFLOW err_code:0000:009f)",
         "EDAC", "REPORTED", 0x129C01),
        (b"EDAC MC0: 1 CE memory read error on DIMM (channel:0 slot:0 page:0x129c01 offset:0x40"
         b" grain:32 syndrome:0x0 - )", "EDAC", "CORRECTED", 0x129C01),
        (b"EDAC DEBUG: skx_mce_output_error: \nEDAC skx MC0: ADDR 0x129c01040 ",
         "EDAC", "REPORTED", 0x129C01),
        (b"MCE: CPU2: PID: 4 Comm: a NIP: [00000000100009f0] paddr: 0000000129c01000",
         "POWERPC", "REPORTED", 0x129C01),
    ],
)  # fmt: skip
def test_a_line_names_its_page(line: bytes, source: str, event: str, pfn: int) -> None:
    (found,) = parse_log(b"noise 0x1\n" + line, 12).value
    assert (found.source, found.event, found.pfn) == (
        FailureSource[source],
        FailureEvent[event],
        pfn,
    )


def test_a_corrected_machine_check_is_not_bad_memory() -> None:
    log = (
        b"mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 7: %s\n"
        b"mce: [Hardware Error]: TSC 1 ADDR 129c01040 MISC 8c "
    )
    events = [
        parse_log(log % status, 12).value[0].event
        for status in (b"8c00004000010090", b"bc00004000010090")
    ]
    assert events == [FailureEvent.CORRECTED, FailureEvent.REPORTED]


def test_an_address_of_a_memory_controller_is_a_problem_not_a_page() -> None:
    answer = parse_log(b"[Hardware Error]: TSC 1 ADDR 129c01040 SYND 4d IPID 9600050f00 ", 12)
    assert answer.value == []
    assert not answer.complete


def test_an_address_that_amds_decoder_prints_is_a_problem_not_a_page() -> None:
    answer = parse_log(b"[Hardware Error]: Error Addr: 0x0000000129c01040", 12)
    assert answer.value == []
    assert not answer.complete


@pytest.mark.parametrize("number", [b"", b"0"])
def test_an_alias_of_cxl_memory_is_taken_offline(number: bytes) -> None:
    log = b"[    3.5] cxl region0: Offlining aliased SPA address%s: 0x129c01040" % number
    (line,) = parse_log(log, 12).value
    assert (line.pfn, line.source.value, line.event) == (0x129C01, "CXL", FailureEvent.REPORTED)


def test_the_time_is_the_lines() -> None:
    found = parse_log(b"[   20.669765] Memory failure: 0x1295f5: already hardware poisoned", 12)
    assert found.value[0].time == 20.669765


def test_a_page_that_was_handled_and_cleared_is_reported_again() -> None:
    log = b"""[    1.0] mce: Uncorrected hardware memory error in user-access at 129c01040
[    2.0] Memory failure: 0x129c01: recovery action for dax page: Recovered
[    3.0] Unpoison: Software-unpoisoned page 0x129c01
[    4.0] MCE: CPU2: NIP: [c000000000001234] memcpy+0x4 paddr: 0000000129c01000
"""
    events = [event for _, event in history_of(parse_log(log, 12).value)]
    assert events == ["reported", "handled", "cleared", "reported again"]

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is set aside for the crash kernel, and how it is cut out of the elfcorehdr."""

from collections.abc import Sequence

from drgn import Architecture, Object, Platform, Program, TypeMember
import pytest

from drgn_pmem.analysis.headers.memory import _exclude
from drgn_pmem.formats.elfprepare import CrashRange
from drgn_pmem.kernel.kexec import NamedRange, crash_reservations

MIB = 1 << 20
Span = tuple[int, int]


def kernel(
    crashk_res: Span,
    low: Span = (0, 0),
    cma: Sequence[Span] | None = None,
    count: int | None = None,
) -> Program:
    """
    A program with the kernel's variables; ends are inclusive, as the kernel has them.

    :param cma: None for a kernel that has no such ranges.
    :param count: ``crashk_cma_cnt``, if it is not how many there are.
    """
    prog = Program(Platform(Architecture.X86_64))
    number = prog.int_type("unsigned long long", 8, False)
    integer = prog.int_type("int", 4, True)
    span = prog.struct_type(
        "range", 16, [TypeMember(number, "start"), TypeMember(number, "end", bit_offset=64)]
    )

    def one(value: Span) -> Object:
        return Object(prog, span, {"start": value[0], "end": value[1]})

    variables = {"crashk_res": one(crashk_res), "crashk_low_res": one(low)}
    if cma is not None:
        ranges = [{"start": start, "end": end} for start, end in cma]
        variables["crashk_cma_ranges"] = Object(prog, prog.array_type(span, len(cma)), ranges)
        variables["crashk_cma_cnt"] = Object(prog, integer, len(cma) if count is None else count)
    prog.register_object_finder(
        "variables", lambda prog, name, flags, file: variables.get(name), enable_index=0
    )
    return prog


def test_cma_ranges_come_last_and_are_named_by_number() -> None:
    prog = kernel(
        (16 * MIB, 32 * MIB - 1),
        (4 * MIB, 5 * MIB - 1),
        [(64 * MIB, 80 * MIB - 1), (96 * MIB, 97 * MIB - 1)],
    )
    assert crash_reservations(prog).whole() == [
        NamedRange(name="crashk_res", start=16 * MIB, end=32 * MIB),
        NamedRange(name="crashk_low_res", start=4 * MIB, end=5 * MIB),
        NamedRange(name="crashk_cma_ranges[0]", start=64 * MIB, end=80 * MIB),
        NamedRange(name="crashk_cma_ranges[1]", start=96 * MIB, end=97 * MIB),
    ]


def test_a_kernel_without_cma_ranges_has_none() -> None:
    assert crash_reservations(kernel((16 * MIB, 32 * MIB - 1))).whole() == [
        NamedRange(name="crashk_res", start=16 * MIB, end=32 * MIB)
    ]


def test_nothing_reserved_is_nothing() -> None:
    assert crash_reservations(kernel((0, 0), (0, 0), [])).whole() == []


@pytest.mark.parametrize("count", [-1, 3, 1 << 30])
def test_an_absurd_count_reads_no_further_than_the_array(count: int) -> None:
    prog = kernel((16 * MIB, 32 * MIB - 1), cma=[(64 * MIB, 80 * MIB - 1)] * 2, count=count)
    found = crash_reservations(prog)
    assert len(found.value) == (1 if count < 0 else 3)
    assert not found.complete
    assert f"implausible crashk_cma_cnt {count}" in str(found.problems[0])


def test_each_reservation_is_cut_out() -> None:
    prog = kernel((16 * MIB, 32 * MIB - 1), cma=[(64 * MIB, 80 * MIB - 1)])
    memory = _exclude([CrashRange(start=MIB, end=128 * MIB)], crash_reservations(prog).whole())
    assert [(item.start, item.end) for item in memory.ranges] == [
        (MIB, 16 * MIB),
        (32 * MIB, 64 * MIB),
        (80 * MIB, 128 * MIB),
    ]
    assert memory.cut_wrongly == ()

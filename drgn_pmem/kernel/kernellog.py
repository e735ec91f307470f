# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The kernel log
--------------

drgn's own helpers read it, without a bound: a changed index makes them read records until memory
or patience ends. So the ring is looked at first.

Sources: kernel/printk/printk_ringbuffer.h (``struct printk_ringbuffer``), kernel/printk/printk.c
(``struct printk_log``, ``log_buf``).
"""

from collections.abc import Callable
from typing import TypeVar

from drgn import Program, offsetof
from drgn.helpers.linux.printk import PrintkRecord, get_dmesg, get_printk_records

from drgn_pmem.errors import MissingDebugInfo
from drgn_pmem.kernel.byteorder import is_little_endian
from drgn_pmem.kernel.debuginfo import need_kernel_debug_info
from drgn_pmem.partial import WalkError

__all__ = ("check_log", "read_log", "read_log_records")

T = TypeVar("T")

_MAX_LOG_BITS = 31
"""``LOG_BUF_LEN_MAX`` is 2 GiB."""
_AVERAGE_BITS = 5
"""``PRB_AVGBITS``: a ring has a descriptor for each 32 bytes of text."""
_MAX_RECORDS = 1 << 22
"""drgn reads some 50,000 a second"""


def _checked(prog: Program, read: Callable[[Program], T]) -> T:
    """What a helper of drgn reads from the log, once that was looked at."""
    check_log(prog)
    try:
        return read(prog)
    except LookupError as error:
        raise MissingDebugInfo(f"this kernel's log has another layout: {error}") from None
    except ValueError as error:
        raise WalkError(str(error)) from None


def read_log(prog: Program) -> bytes:
    """
    The kernel log, as dmesg prints it.

    :raises PmemError: if it could not be read
    """
    return _checked(prog, get_dmesg)


def read_log_records(prog: Program) -> list[PrintkRecord]:
    """
    The records of the kernel log.

    :raises PmemError: if they could not be read
    """
    return _checked(prog, get_printk_records)


def check_log(prog: Program) -> None:
    """
    What is done before drgn reads the log.

    :raises WalkError: if the log has no end, or more records than it has room for
    """
    need_kernel_debug_info(prog, "the kernel log")
    try:
        # Linux commit 896fbe20b4e2 ("printk: use the lockless ringbuffer") (in v5.10).
        if "prb" in prog:
            _check_ring(prog)
        else:
            _check_buffer(prog)
    except (LookupError, AttributeError) as error:
        raise MissingDebugInfo(f"this kernel's log has another layout: {error}") from None


def _check_ring(prog: Program) -> None:
    ring = prog["prb"]
    bits = ring.desc_ring.count_bits.value_()
    text_bits = ring.text_data_ring.size_bits.value_()
    if bits + _AVERAGE_BITS != text_bits or text_bits > _MAX_LOG_BITS:
        raise WalkError(
            f"its ring is damaged: 2^{bits} descriptors for 2^{text_bits} bytes of text"
        )
    # The two upper bits are the state of a descriptor.
    id_mask = (1 << 8 * prog.type("unsigned long").size - 2) - 1
    head = ring.desc_ring.head_id.counter.value_()
    tail = ring.desc_ring.tail_id.counter.value_()
    records = ((head - tail) & id_mask) + 1
    if max(head, tail, records - 1) > id_mask or min(head, tail) < 0 or records > 1 << bits:
        raise WalkError(
            f"its ring is damaged: records {tail:#x} to {head:#x} in a ring of 2^{bits}"
        )
    if records > _MAX_RECORDS:
        raise WalkError(f"it has {records} records; at most {_MAX_RECORDS} are read")


def _check_buffer(prog: Program) -> None:
    """Follow the records once, from one length to the next."""
    record = prog.type("struct printk_log")
    size, little = record.size, is_little_endian(prog)
    # Other files have variables of these names, too.
    start, length, at, end = (
        prog.object(name, filename="printk.c").value_()
        for name in ("log_buf", "log_buf_len", "log_first_idx", "log_next_idx")
    )
    if not 0 < length <= 1 << _MAX_LOG_BITS:
        raise WalkError(f"its buffer is damaged: a length of {length} bytes")
    places = [offsetof(record, name) for name in ("len", "text_len", "dict_len")]
    wrapped = False
    while at != end:
        if at + size > length:
            raise WalkError(f"its buffer is damaged: a record at {at} of {length} bytes")
        data = prog.read(start + at, size)
        step, text, more = (
            int.from_bytes(data[place : place + 2], "little" if little else "big")
            for place in places
        )
        if not step:  # the rest is at the start of the buffer
            if wrapped or at < end:
                raise WalkError(f"its buffer is damaged: it wraps at {at}, and ends at {end}")
            at, wrapped = 0, True
            continue
        if size + text + more > step or (wrapped and at + step > end):
            raise WalkError(f"its buffer is damaged: a record of {step} bytes at {at}")
        at += step

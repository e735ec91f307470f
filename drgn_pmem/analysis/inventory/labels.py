# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Labels in a dump
----------------

The label areas of the DIMMs. They are not part of the persistent memory; the kernel keeps a copy of
each in RAM (``nvdimm_drvdata.data``, drivers/nvdimm/nd.h). Without debug info of libnvdimm that
copy is searched for by its signature at the beginning of every saved page.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from drgn import FaultError, Program, cast
import numpy as np

from drgn_pmem.dumpfile import State, coverage_of
from drgn_pmem.errors import PmemError
from drgn_pmem.formats.labelarea import LabelArea, parse_label_area
from drgn_pmem.kernel.debuginfo import has_type
from drgn_pmem.kernel.nvdimm import Dimm, for_each_dimm
from drgn_pmem.partial import Cause, NotSaved, Partial, Problem, Problems, WalkError
from drgn_pmem.record import Record, Show, shown

__all__ = ("FoundLabels", "find_labels")

_SIGNATURE = b"NAMESPACE_INDEX\0"
_PAGE = 4096
_CHUNK = 4 << 20
_MAX_BYTES = 16 << 30
"""Saved memory that is searched: a signature is looked for in every page."""
_MAX_AREA = 16 << 20
_MAX_FOUND = 256


class FoundLabels(Record):
    """A label area."""

    dimm: str | None
    """``"nmem0"``; None if found by its signature."""
    physical: int | None = shown(Show.ADDRESS)
    """Where, if it was found by its signature."""
    area: LabelArea

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "labels",
            "dimm": self.dimm,
            "address": None if self.physical is None else f"{self.physical:#x}",
            "labels": self.area.to_json(),
        }


def find_labels(prog: Program) -> Partial[list[FoundLabels]]:
    """All label areas; by the kernel's own pointers where debug info of libnvdimm is loaded."""
    problems = Problems()
    if has_type(prog, "struct nvdimm_drvdata"):
        found = list(_by_pointer(prog, problems))
    else:
        found = list(_by_signature(prog, problems))
    return problems.partial(found)


def _by_pointer(prog: Program, problems: Problems) -> Iterator[FoundLabels]:
    for dimm in problems.take(for_each_dimm(prog)):
        if dimm.enabled:
            with problems.trying(f"{dimm.dev}: label area"):
                found = _of_dimm(prog, dimm, problems)
                if found is not None:
                    yield found


def _of_dimm(prog: Program, dimm: Dimm, problems: Problems) -> FoundLabels | None:
    data = cast("struct nvdimm_drvdata *", dimm.object.dev.driver_data)
    if not data:
        return None  # enabled and without a label area: nvdimm_probe() keeps nothing (-ENOTTY)
    size, address = data.nsarea.config_size.value_(), data.data.value_()
    if not address or not size:
        return None  # a DIMM without labels
    if size > _MAX_AREA:
        raise WalkError(f"implausible size of {size} bytes")
    area, without = _read_area(prog, address, size)
    _missing_slots(dimm.dev, without, problems)
    return FoundLabels(dimm=dimm.dev, physical=None, area=area)


def _missing_slots(place: str, slots: list[int], problems: Problems) -> None:
    if slots:
        problems.add(
            Problem(
                cause=Cause.NOT_SAVED,
                what=place,
                why=f"labels in slots {', '.join(map(str, slots))} are not in the dump",
            )
        )


def _read_area(
    prog: Program, address: int, size: int, physical: bool = False
) -> tuple[LabelArea, list[int]]:
    """
    A label area whose free slots need not be in the dump: makedumpfile leaves out pages of zeroes.

    :return: The area; numbers of the slots in use that the dump does not hold.
    :raises NotSaved: if the dump does not hold the indexes
    :raises FormatError: if neither index is valid
    """
    coverage = coverage_of(prog)
    data = bytearray(size)
    missing: set[int] = set()
    position = 0
    while position < size:
        length = min(_PAGE - (address + position) % _PAGE, size - position)
        part = None
        if not physical or coverage.saved(address + position, length):
            part = _read(prog, address + position, length, physical)
        if part is not None:
            data[position : position + length] = part
        elif position == 0:
            raise NotSaved(f"cannot read {address:#x}: not in the dump", address=address)
        else:
            missing.update(range(position, position + length))
        position += length
    area = parse_label_area(bytes(data))
    index = area.indexes[area.current]
    if not missing or index is None:
        return area, []
    without = [
        slot.index
        for slot in area.slots
        if not missing.isdisjoint(
            range(
                index.labeloff + slot.index * area.label_size,
                index.labeloff + (slot.index + 1) * area.label_size,
            )
        )
    ]
    kept = tuple(slot for slot in area.slots if slot.index not in without)
    return replace(area, slots=kept), without


def _read(prog: Program, address: int, size: int, physical: bool) -> bytes | None:
    """None if the dump does not hold it; the caller says what is missing for it."""
    try:
        return prog.read(address, size, physical)
    except FaultError:
        return None  # not a problem: the caller says what is missing


def _by_signature(prog: Program, problems: Problems) -> Iterator[FoundLabels]:
    count = 0
    seen: set[LabelArea] = set()
    budget = _MAX_BYTES
    coverage = coverage_of(prog)
    for first, last in zip(*(a.tolist() for a in coverage.runs(State.SAVED)), strict=True):
        position = -(-first // _PAGE) * _PAGE
        while position + _PAGE <= last + 1:
            size = min(_CHUNK, (last + 1 - position) // _PAGE * _PAGE)
            if budget < size or count >= _MAX_FOUND:
                why = f"labels were searched for below {position:#x} only"
                problems.add(Problem(cause=Cause.LIMIT, why=why))
                return
            budget -= size
            for page in _signatures(prog, position, size, problems):
                physical = position + page * _PAGE
                area, without = _area_at(prog, physical, problems)
                if area is not None and area not in seen:
                    seen.add(area)
                    count += 1
                    _missing_slots(f"label area at {physical:#x}", without, problems)
                    yield FoundLabels(dimm=None, physical=physical, area=area)
            position += size


def _signatures(prog: Program, start: int, size: int, problems: Problems) -> list[int]:
    """Numbers of the pages that begin with the signature of a namespace index."""
    read = problems.attempt("search for labels", lambda: prog.read(start, size, True))
    if read is None:
        return []
    data = np.frombuffer(read, np.uint8).reshape(-1, _PAGE)
    wanted = np.frombuffer(_SIGNATURE, np.uint8)
    hits: list[int] = np.flatnonzero((data[:, : len(wanted)] == wanted).all(axis=1)).tolist()
    return hits


def _area_at(
    prog: Program, physical: int, problems: Problems
) -> tuple[LabelArea | None, list[int]]:
    """The area whose first index is there, if any, as :func:`_read_area` has it; its size
    follows from the index."""
    try:
        head = prog.read(physical, _PAGE, True)
        own, slots = int.from_bytes(head[0x20:0x28], "little"), head[0x38:0x3C]
        label_size = 128 << (head[0x13] & 1)
        size = 2 * own + int.from_bytes(slots, "little") * label_size
        # The kernel rounds nothing; firmware reports whole KiBs, the slots fill all but a rest.
        size = -(-size // 1024) * 1024
        if not 1024 <= size <= _MAX_AREA:
            return None, []
        return _read_area(prog, physical, size, physical=True)
    except FaultError as error:
        problems.add(error, f"label area at {physical:#x}")
        return None, []
    except PmemError:
        # not a problem: bytes that look like an index, as in a page of a file
        return None, []

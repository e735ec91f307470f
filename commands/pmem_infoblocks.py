# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``pmem-infoblocks``: info blocks, BTT arenas and labels in the dump's bytes."""

import argparse
from dataclasses import dataclass
from typing import Any

from drgn import Program

from drgn_pmem.output.table import Field
from drgn_pmem.spec import Answer, command


@dataclass(frozen=True)
class _Row:
    """One line of the table: a block, an arena or a label."""

    kind: str | None
    address: str | None
    namespace: str | None
    version: str | None = None
    uuid: str | None = None
    data: str | None = None
    detail: str | None = None
    valid: bool | None = None
    state: str | None = None
    notes: tuple[str, ...] = ()


@command(
    name="pmem-infoblocks",
    description="find info blocks, BTT arenas and labels in the dump's bytes",
    long_description=(
        "Find info blocks (fsdax, devdax), BTT arenas and DIMM labels in the bytes that the dump\n"
        "holds. Needs no debug info: it looks where the kernel, iomem, PF_DEV or the\n"
        "devm_memmap_vmcore list say that persistent memory is, and without them in all saved\n"
        "memory at every 2 MiB. A block that the kernel refuses (checksum, parent_uuid, version,\n"
        "size, alignment, class of the label) is shown with the reasons, a namespace whose block\n"
        "was not saved with the state of its bytes."
    ),
    fields=(
        Field("KIND", lambda r: r.kind,
              "fsdax, devdax, btt (the mode that it claims), label, index; none: no block there; "
              "-: not saved"),
        Field("ADDRESS", lambda r: r.address, "physical address of the block", right=True),
        Field("NAMESPACE", lambda r: r.namespace, "namespace (or DIMM) that it belongs to", keep=2),
        Field("VERSION", lambda r: r.version, "of its format"),
        Field("UUID", lambda r: r.uuid, "of the block"),
        Field("DATA", lambda r: r.data, "physical range of the user data"),
        Field("DETAIL", lambda r: r.detail, "details by kind", wrap=True),
        Field("VALID", lambda r: r.valid, "whether the kernel accepts it", keep=2),
        Field("STATE", lambda r: r.state, "what the dump holds of the block", keep=2,
              coloured=True),
        Field("NOTES", lambda r: "; ".join(r.notes) or None, "anomalies", keep=1, wrap=True),
    ),
    examples=(
        ("pmem-infoblocks", "all that the dump holds"),
        ("pmem-infoblocks --json", "every field of every block, arena and label"),
    ),
    code=(
        "from drgn_pmem import read_infoblocks\n\n"
        "found = read_infoblocks(prog)\n"
        "for block in found.value.blocks:\n"
        "    print(hex(block.address), block.kind, block.namespace, block.block, *block.notes)\n"
        "for labels in found.value.labels:\n"
        "    print(labels.dimm, *labels.area.labels)\n"
        "print(*found.problems)\n"
    ),
    modules={"libnvdimm": "DIMMs of the labels, where iomem has no persistent memory"},
)  # fmt: skip
def pmem_infoblocks(prog: Program, args: argparse.Namespace) -> Answer:
    from drgn_pmem.analysis.inventory.infoblocks import read_infoblocks
    from drgn_pmem.partial import Cause, Problems

    problems = Problems()
    answer = problems.take(read_infoblocks(prog))
    rows: list[_Row] = []
    for block in answer.blocks:
        rows += _block_rows(block)
    for labels in answer.labels:
        rows += _label_rows(labels)
    notes = [f"searched {answer.searched}"]
    # The blocks are found without debug info; what is not known then is which namespace has them.
    unnamed = [p for p in problems if p.cause is Cause.NO_DEBUG_INFO]
    notes += [f"namespaces may not be named: {problem}" for problem in unnamed]
    lacking = [p for p in problems if p.cause is not Cause.NO_DEBUG_INFO]
    records: list[Any] = [*answer.blocks, *answer.labels]
    return Answer(rows, notes, json=[record.to_json() for record in records], problems=lacking)


def _block_rows(found: Any) -> list[_Row]:
    from drgn_pmem.formats.btt import BttArena
    from drgn_pmem.formats.infoblock import PFN_MODE_PMEM

    address = f"{found.address:#x}"
    if found.chain is not None and found.chain.arenas:
        return [
            _Row(
                "btt",
                f"{found.start + place.offset:#x}",
                found.namespace,
                place.arena.version,
                place.arena.uuid,
                None,
                f"arena {number}: {place.arena.external_nlba} blocks of "
                f"{place.arena.external_lbasize} bytes, backup {place.backup}",
                found.valid,
                found.state.value,
                (*place.problems, *(found.notes if number == 0 else ())),
            )
            for number, place in enumerate(found.chain.arenas)
        ]
    block = found.block
    if isinstance(block, BttArena):
        return [
            _Row("btt", address, found.namespace, block.version, block.uuid,
                 valid=found.valid, state=found.state.value, notes=found.notes)
        ]  # fmt: skip
    if block is None:
        return [
            _Row(found.kind, address, found.namespace, state=found.state.value, notes=found.notes)
        ]
    start, end = found.data or (0, 0)
    detail = None
    if found.data:
        place = "on pmem" if block.mode == PFN_MODE_PMEM else "in RAM"
        detail = f"{block.npfns} pages, memmap {place}, align {block.align}"
    return [
        _Row(
            found.kind,
            address,
            found.namespace,
            block.version,
            block.uuid,
            f"{start:#x}-{end:#x}" if found.data else None,
            detail,
            found.valid,
            found.state.value,
            found.notes,
        )
    ]


def _label_rows(found: Any) -> list[_Row]:
    version = found.area.indexes[found.area.current]
    address = None if found.physical is None else f"{found.physical:#x}"
    bad = [
        _Row("index", address, found.dimm, detail=f"copy {copy}", valid=False, state="saved",
             notes=(f"the kernel refuses this copy of the index: {why}; copy {found.area.current} "
                    "is in force",))
        for copy, why in found.area.bad_indexes
    ]  # fmt: skip
    return bad + [
        _Row(
            "label",
            address,
            found.dimm,
            f"{version.major}.{version.minor}" if version else None,
            getattr(slot.label, "uuid", None),
            None,
            f"slot {slot.index}: {_label_text(slot.label)}",
            not slot.problems,
            "saved",
            slot.problems,
        )
        for slot in found.area.slots
    ]


def _label_text(label: Any) -> str:
    from drgn_pmem.output.text import escape

    parts = []
    if getattr(label, "name", None):
        parts.append(f"name {escape(label.name)}")
    for name in ("dpa", "rawsize", "nlabel", "position"):
        if hasattr(label, name):
            value = getattr(label, name)
            parts.append(f"{name} {value:#x}" if name == "dpa" else f"{name} {value}")
    return ", ".join(parts)

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The crash info header, field by field
-------------------------------------

The header read from memory, or reconstructed from the state of the kernel, each field with its
source and, of a header that was found, its expected value.
"""

from collections.abc import Sequence
import enum
from typing import Any

from drgn import FaultError, Program

from drgn_pmem.analysis.fadump.notes import crashing_registers, register_summary
from drgn_pmem.dumpfile import State, dump_of
from drgn_pmem.formats.clayout import ByteOrder
from drgn_pmem.formats.fadump import FADUMP_CPU_UNKNOWN, FadumpHeader, parse_fadump_header
from drgn_pmem.kernel.debuginfo import find_variable
from drgn_pmem.kernel.fadump import FadumpLayout, FwDump, crashing_cpu, relocated_vmcoreinfo
from drgn_pmem.kernel.physical import read_physical
from drgn_pmem.partial import NotSaved, Problems
from drgn_pmem.record import Record

__all__ = (
    "FadumpField",
    "FadumpSource",
    "byteorder_of",
    "compared_fields",
    "found_fields",
    "of_the_reader",
    "parse_header",
    "read_header",
    "reconstruct_header",
)

_ADDRESSES = frozenset(("elfcorehdr_addr", "vmcoreinfo_raddr"))

_OF_THE_READER = frozenset(("version", "pt_regs_sz", "cpu_mask_sz"))
"""Fields that a capture kernel has too; the others are the crashed kernel's only."""


class FadumpSource(enum.Enum):
    """Where the crash info header comes from."""

    FOUND = "found"
    """Read from memory."""
    RECONSTRUCTED = "reconstructed"
    """Derived from the state of the kernel."""


class FadumpField(Record):
    """A field of the crash info header, and where its value comes from."""

    name: str
    value: Any
    source: str
    expected: Any = None
    """What it should be, by the state of the kernel; None if that is not known."""
    differs: bool | None = None
    """Whether it is not what it should be; None if that is not known."""

    @property
    def is_address(self) -> bool:
        return self.name in _ADDRESSES

    def _json_value(self, value: Any) -> Any:
        return f"{value:#x}" if self.is_address and isinstance(value, int) else value

    def to_json(self) -> dict[str, Any]:
        return {
            "value": self._json_value(self.value),
            "from": self.source,
            "expected": self._json_value(self.expected),
            "differs": self.differs,
        }


def of_the_reader(field: FadumpField) -> FadumpField:
    """A field as far as the capture kernel knows it."""
    if field.name in _OF_THE_READER:
        return field
    return FadumpField(name=field.name, value=None, source="not known: the crashed kernel's")


def read_header(prog: Program, conf: FwDump, layout: FadumpLayout) -> bytes:
    raw = read_physical(prog, conf.fadumphdr_addr, layout.size)
    if not any(raw) and not dump_of(prog).hypervisor:
        # A page that the header shares with saved memory: /proc/vmcore fills it up with zeroes.
        raise NotSaved(
            f"physical {conf.fadumphdr_addr:#x} reads as zeroes in this dump",
            address=conf.fadumphdr_addr,
            state=State.ABSENT,
        )
    return raw


def parse_header(raw: bytes, layout: FadumpLayout) -> FadumpHeader:
    return parse_fadump_header(
        raw, pt_regs_sz=layout.pt_regs_size, cpu_mask_sz=layout.cpu_mask_size, lenient=True
    )


def found_fields(prog: Program, header: FadumpHeader, problems: Problems) -> list[FadumpField]:
    fields = [
        FadumpField(
            name=name,
            value=None if name == "crashing_cpu" and not header.crashed else value,
            source="header",
        )
        for name, value in header.fields.items()
    ]
    if header.crashed and header.regs:
        regs = problems.attempt("registers", lambda: register_summary(prog, header.regs))
        fields.append(FadumpField(name="regs", value=regs, source="header"))
    cpus = list(header.cpus) if header.cpu_mask else None
    fields.append(FadumpField(name="cpu_mask", value=cpus, source="header"))
    return fields


def compared_fields(
    prog: Program,
    conf: FwDump,
    layout: FadumpLayout,
    fields: Sequence[FadumpField],
    problems: Problems,
) -> list[FadumpField]:
    """Fields of the header that was found, each with its expected value."""
    made = problems.attempt(
        "expected header", lambda: reconstruct_header(prog, conf, layout, problems)
    )
    expected = {} if made is None else {field.name: field.value for field in made[1]}
    compared = []
    for field in fields:
        known = field.name in expected and field.name != "regs"
        if conf.active and field.name not in _OF_THE_READER:
            known = False
        if field.value is None and field.name != "crashing_cpu":  # there None is "none yet"
            known = False
        value = expected[field.name] if known else None
        compared.append(
            FadumpField(
                name=field.name,
                value=field.value,
                source=field.source,
                expected=value,
                differs=field.value != value if known else None,
            )
        )
    return compared


def byteorder_of(prog: Program) -> ByteOrder:
    platform = prog.platform
    little = platform is None or "IS_LITTLE_ENDIAN" in str(platform.flags)
    return "little" if little else "big"


def reconstruct_header(
    prog: Program, conf: FwDump, layout: FadumpLayout, problems: Problems
) -> tuple[FadumpHeader, list[FadumpField]]:
    """
    The header derived from the kernel's state: each field with its source.

    :raises PmemError: if one of its fields cannot be determined
    """
    fields = []

    def take(name: str, value: Any, source: str) -> Any:
        fields.append(FadumpField(name=name, value=value, source=source))
        return value

    cpu = take("crashing_cpu", crashing_cpu(prog), "variable crashing_cpu")
    values: dict[str, Any] = {}
    if layout.name != "FADMPINF":
        values["version"] = take("version", 1, "the only version that exists")
        note = relocated_vmcoreinfo(prog, conf)
        values["vmcoreinfo_raddr"] = take(
            "vmcoreinfo_raddr", note.start, "vmcoreinfo_note, moved as fw_dump's boot regions are"
        )
        values["vmcoreinfo_size"] = take("vmcoreinfo_size", note.size, "PAGE_SIZE")
        values["pt_regs_sz"] = take("pt_regs_sz", layout.pt_regs_size, "sizeof(struct pt_regs)")
        values["cpu_mask_sz"] = take("cpu_mask_sz", layout.cpu_mask_size, "sizeof(struct cpumask)")
    if layout.name != "FADMPSIG":
        values["elfcorehdr_addr"] = take(
            "elfcorehdr_addr",
            conf.fadumphdr_addr + layout.size,
            "fw_dump.fadumphdr_addr, after the header",
        )
    if layout.name == "FADMPSIG-v7":
        values["elfcorehdr_size"] = conf.elfcorehdr_size or 0
    crashed = cpu is not None
    mask_name = "__cpu_online_mask" if crashed else "__cpu_possible_mask"
    try:
        mask = find_variable(prog, mask_name, "vmlinux").to_bytes_()[: layout.cpu_mask_size]
    except FaultError as error:
        raise NotSaved(f"{mask_name}: {error}") from None
    regs = bytes(layout.pt_regs_size)
    if crashed:
        saved = problems.attempt("registers", lambda: crashing_registers(prog))
        registers = None if saved is None else problems.take(saved)
        if registers is None:
            take("regs", None, "not known")
        else:
            regs = registers.data
            source = "PRSTATUS note of the crashing CPU"
            if not registers.verified:
                source = "PRSTATUS note in the crashing CPU's place, not verified"
            take("regs", register_summary(prog, regs), source)
    header = FadumpHeader(
        layout=layout.name,
        byteorder=byteorder_of(prog),
        crashing_cpu=FADUMP_CPU_UNKNOWN if cpu is None else cpu,
        regs=regs,
        cpu_mask=mask,
        **values,
    )
    take("cpu_mask", list(header.cpus), mask_name)
    return header, fields

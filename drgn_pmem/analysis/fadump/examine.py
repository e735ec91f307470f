# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
A firmware-assisted dump, examined
----------------------------------

The crash info header *found* in memory, or *reconstructed* where the dump leaves it out (a real
fadump /proc/vmcore has everything but the reserve area, which contains the header); the verdict of
the kernel's own compatibility check; the elfcorehdr rebuilt and compared with the dump.
"""

from collections.abc import Iterator, Sequence
import enum
from typing import Any

from drgn import FaultError, Object, Program

from drgn_pmem.analysis.fadump.area import AreaPart, reserve_area, reserve_area_problems
from drgn_pmem.analysis.fadump.elf import FadumpElf, fadump_elf
from drgn_pmem.analysis.fadump.notes import crashing_registers, fadump_stack, register_summary
from drgn_pmem.dumpfile import State, coverage_of, dump_of
from drgn_pmem.errors import FormatError, MissingDebugInfo, NotFound
from drgn_pmem.formats.clayout import ByteOrder
from drgn_pmem.formats.fadump import (
    FADUMP_CPU_UNKNOWN,
    FadumpHeader,
    build_fadump_header,
    find_fadump_headers,
    parse_fadump_header,
)
from drgn_pmem.formats.fadump_check import (
    FadumpVerdict,
    fadump_header_problems,
    is_fadump_header_compatible,
)
from drgn_pmem.formats.fadump_rtas import RtasFadumpMem, check_rtas_fadump_mem
from drgn_pmem.kernel.debuginfo import find_type, find_variable
from drgn_pmem.kernel.fadump import (
    BootRegion,
    FadumpLayout,
    FadumpPlatform,
    FwDump,
    crashing_cpu,
    fadump_layout,
    firmware_structure,
    fw_dump,
    relocated_vmcoreinfo,
)
from drgn_pmem.kernel.physical import read_physical
from drgn_pmem.partial import Cause, NotSaved, Partial, Problem, Problems
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "Fadump",
    "FadumpField",
    "FadumpSource",
    "crashed_stack",
    "examine_fadump",
    "parsed_registers",
    "scan_for_headers",
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


class Fadump(Record):
    """Everything about a firmware-assisted dump."""

    state: str
    conf: FwDump | None
    """None without debug info: the header was found by a scan."""
    address: int | None = shown(Show.ADDRESS)
    """Physical address of the crash info header."""
    source: FadumpSource
    header: FadumpHeader
    fields: tuple[FadumpField, ...]
    verdict: FadumpVerdict
    area: tuple[AreaPart, ...]
    elf: FadumpElf | None
    wrong: tuple[str, ...]
    """What is wrong, one sentence each."""

    @property
    def boot_regions(self) -> tuple[BootRegion, ...]:
        return self.conf.boot_regions if self.conf is not None else ()

    def to_json(self) -> dict[str, Any]:
        platform = None if self.conf is None else self.conf.platform
        return {
            "state": self.state,
            "platform": None if platform is None else platform.value,
            "header": {
                "source": self.source.value,
                "address": None if self.address is None else f"{self.address:#x}",
                "layout": self.header.layout,
                "byteorder": self.header.byteorder,
                "fields": {field.name: field.to_json() for field in self.fields},
            },
            "verdict": self.verdict.words,
            "compatible": self.verdict.compatible,
            "reason": self.verdict.reason.value,
            "reserve_area": [part.to_json() for part in self.area],
            "boot_regions": [region.to_json() for region in self.boot_regions],
            "elfcorehdr": None if self.elf is None else self.elf.to_json(),
            "problems": list(self.wrong),
        }


def examine_fadump(prog: Program) -> Partial[Fadump]:
    """
    Examine the firmware-assisted dump that was saved, or that the kernel in the dump prepared.

    :raises NotFound: if there is none
    :raises PmemError: if its header can be neither read nor reconstructed
    """
    try:
        conf = fw_dump(prog)
        layout = fadump_layout(prog)
    except MissingDebugInfo as missing:
        return _examine_blindly(prog, missing)
    if not conf.fadumphdr_addr:
        raise NotFound(f"there is no firmware-assisted dump: {conf.state}")
    problems = Problems()
    wrong: list[str] = []
    raw: bytes | None = None
    header: FadumpHeader | None = None
    try:
        raw = _read_header(prog, conf, layout)
        header = _parse_header(raw, layout)
    except NotSaved as error:
        if conf.active:
            raise NotSaved(
                "the crash info header cannot be read, and the dump is of the capture kernel, whose"
                f" variables do not say what the kernel that crashed wrote into it: {error}",
                address=error.address,
                state=error.state,
            ) from error
        # The capture kernel's /proc/vmcore leaves the reserve area out.
        inherent = error.state is State.ABSENT and not dump_of(prog).hypervisor
        why = f"the crash info header is reconstructed: {error}"
        problems.add(
            Problem(cause=Cause.FORMAT if inherent else Cause.NOT_SAVED, why=why, state=error.state)
        )
    except FormatError as error:
        # The magic is invalid: the verdict is on these bytes, the fields are the expected ones.
        wrong.append(str(error))
        why = "the crash info header is damaged; the fields shown are the expected ones"
        problems.add(Problem(cause=Cause.DAMAGED, why=why))
    if header is None:
        header, fields = _reconstruct(prog, conf, layout, problems)
        if conf.active:
            fields = [_of_the_reader(field) for field in fields]
        source = FadumpSource.RECONSTRUCTED
    else:
        source = FadumpSource.FOUND
        fields = _found_fields(prog, header, problems)
        fields = _compared(prog, conf, layout, fields, problems)
        wrong += fadump_header_problems(header, conf.fadumphdr_addr)
    verdict = _judge(prog, build_fadump_header(header) if raw is None else raw, layout)
    firmware = problems.attempt(
        "what was registered with the firmware", lambda: _firmware(prog, conf)
    )
    if firmware is not None and conf.active:
        wrong += check_rtas_fadump_mem(firmware)
    area = problems.take(reserve_area_problems(prog, conf, layout.size, firmware))
    wrong += area
    known = header
    elf = None
    if conf.active and source is FadumpSource.RECONSTRUCTED:
        why = "it is made from the crash info header of the kernel that crashed"
        problems.add(Problem(cause=Cause.DAMAGED, what="elfcorehdr", why=why))
    else:
        taken = problems.attempt("elfcorehdr", lambda: fadump_elf(prog, conf, known))
        elf = None if taken is None else problems.take(taken, "elfcorehdr")
    if elf is not None:
        wrong += elf.wrong
    return problems.partial(
        Fadump(
            state=conf.state,
            conf=conf,
            address=conf.fadumphdr_addr,
            source=source,
            header=header,
            fields=tuple(fields),
            verdict=verdict,
            area=tuple(reserve_area(conf, layout.size)),
            elf=elf,
            wrong=tuple(wrong),
        )
    )


def _of_the_reader(field: FadumpField) -> FadumpField:
    """A field as far as the capture kernel knows it."""
    if field.name in _OF_THE_READER:
        return field
    return FadumpField(name=field.name, value=None, source="not known: the crashed kernel's")


def _read_header(prog: Program, conf: FwDump, layout: FadumpLayout) -> bytes:
    raw = read_physical(prog, conf.fadumphdr_addr, layout.size)
    if not any(raw) and not dump_of(prog).hypervisor:
        # A page that the header shares with saved memory: /proc/vmcore fills it up with zeroes.
        raise NotSaved(
            f"physical {conf.fadumphdr_addr:#x} reads as zeroes in this dump",
            address=conf.fadumphdr_addr,
            state=State.ABSENT,
        )
    return raw


def _parse_header(raw: bytes, layout: FadumpLayout) -> FadumpHeader:
    return parse_fadump_header(
        raw, pt_regs_sz=layout.pt_regs_size, cpu_mask_sz=layout.cpu_mask_size, lenient=True
    )


def _found_fields(prog: Program, header: FadumpHeader, problems: Problems) -> list[FadumpField]:
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


def _compared(
    prog: Program,
    conf: FwDump,
    layout: FadumpLayout,
    fields: Sequence[FadumpField],
    problems: Problems,
) -> list[FadumpField]:
    """Fields of the header that was found, each with its expected value."""
    made = problems.attempt("expected header", lambda: _reconstruct(prog, conf, layout, problems))
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


def _byteorder(prog: Program) -> ByteOrder:
    platform = prog.platform
    little = platform is None or "IS_LITTLE_ENDIAN" in str(platform.flags)
    return "little" if little else "big"


def _judge(prog: Program, raw: bytes, layout: FadumpLayout) -> FadumpVerdict:
    """The verdict on the header by the check of the kernel in the dump."""
    return is_fadump_header_compatible(
        raw,
        byteorder=_byteorder(prog),
        pt_regs_sz=layout.pt_regs_size,
        cpu_mask_sz=layout.cpu_mask_size,
        old_kernel=layout.name == "FADMPINF",
    )


def _firmware(prog: Program, conf: FwDump) -> RtasFadumpMem | None:
    if conf.platform is not FadumpPlatform.RTAS or not (conf.registered or conf.active):
        return None
    return firmware_structure(prog)


def _reconstruct(
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
        byteorder=_byteorder(prog),
        crashing_cpu=FADUMP_CPU_UNKNOWN if cpu is None else cpu,
        regs=regs,
        cpu_mask=mask,
        **values,
    )
    take("cpu_mask", list(header.cpus), mask_name)
    return header, fields


def scan_for_headers(prog: Program) -> Iterator[tuple[int, FadumpHeader]]:
    """
    Look for crash info headers in all memory that the dump holds: no debug info is needed.

    :return: Physical address and header.
    """

    def read(address: int, size: int) -> bytes | None:
        try:
            return read_physical(prog, address, size)
        except (NotSaved, NotFound):
            # not a problem: only what the dump holds is searched
            return None

    for part in coverage_of(prog).extent():
        if part.state is State.SAVED:
            yield from find_fadump_headers(read, part.start, part.end)


def _examine_blindly(prog: Program, missing: MissingDebugInfo) -> Partial[Fadump]:
    first = next(scan_for_headers(prog), None)
    if first is None:
        raise missing
    address, header = first
    problems = Problems()
    problems.add(missing, "found by a scan of memory")
    verdict = is_fadump_header_compatible(
        build_fadump_header(header).ljust(64, b"\0"),
        byteorder=_byteorder(prog),
        pt_regs_sz=header.pt_regs_sz or 0,
        cpu_mask_sz=header.cpu_mask_sz or 0,
        old_kernel=header.layout == "FADMPINF",
    )
    return problems.partial(
        Fadump(
            state="crashed" if header.crashed else "registered",
            conf=None,
            address=address,
            source=FadumpSource.FOUND,
            header=header,
            fields=tuple(_found_fields(prog, header, problems)),
            verdict=verdict,
            area=(),
            elf=None,
            wrong=tuple(fadump_header_problems(header, address)),
        )
    )


def parsed_registers(prog: Program, header: FadumpHeader) -> Object | None:
    """``struct pt_regs`` of a header, None if nothing has crashed yet."""
    if not header.crashed or not any(header.regs):
        return None
    return Object.from_bytes_(prog, find_type(prog, "struct pt_regs", "vmlinux"), header.regs)


def crashed_stack(prog: Program) -> Partial[tuple[int, list[str]]]:
    """
    The stack of the thread that crashed, from the header if the dump holds it, else from the
    PRSTATUS note.

    :return: Logical CPU; one line for each frame.
    :raises NotFound: if nothing has crashed, or no registers were saved
    """
    conf, layout = fw_dump(prog), fadump_layout(prog)
    if conf.active:
        raise NotFound(
            "this dump was taken from the capture kernel: the crashed thread's stack is in memory "
            "that the firmware moved; look at the /proc/vmcore that it saved"
        )
    problems = Problems()
    try:
        header = _parse_header(_read_header(prog, conf, layout), layout)
    except (NotSaved, FormatError):
        saved = problems.take(crashing_registers(prog))
        regs, cpu = saved.object(prog), saved.cpu
    else:
        found = parsed_registers(prog, header)
        if found is None:
            raise NotFound("no CPU has crashed: this dump was taken from a running kernel")
        regs, cpu = found, header.crashing_cpu
    frames = [str(frame) for frame in str(fadump_stack(prog, regs)).splitlines()]
    return problems.partial((cpu, frames))

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
A firmware-assisted dump, examined
----------------------------------

The crash info header *found* in memory, or *reconstructed* where the dump leaves it out (a real
fadump /proc/vmcore has everything but the reserve area, in which the header lies); the verdict of
the kernel's own compatibility check; the elfcorehdr rebuilt and compared with the dump.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from drgn import Object, Program

from drgn_pmem.analysis.fadump.area import AreaPart, reserve_area, reserve_area_problems
from drgn_pmem.analysis.fadump.elf import FadumpElf, fadump_elf
from drgn_pmem.analysis.fadump.notes import crashing_registers, fadump_stack, register_summary
from drgn_pmem.dumpfile import State, coverage_of
from drgn_pmem.errors import DumpFileError, FormatError, MissingDebugInfo, NotFound, PmemError
from drgn_pmem.formats.clayout import ByteOrder
from drgn_pmem.formats.fadump import (
    FadumpHeader,
    FadumpVerdict,
    build_fadump_header,
    fadump_header_problems,
    find_fadump_headers,
    is_fadump_header_compatible,
    parse_fadump_header,
)
from drgn_pmem.formats.fadump_rtas import RtasFadumpMem, check_rtas_fadump_mem
from drgn_pmem.kernel.fadump import (
    BootRegion,
    FadumpLayout,
    FwDump,
    crashing_cpu,
    fadump_layout,
    firmware_structure,
    fw_dump,
    relocated_vmcoreinfo,
)
from drgn_pmem.kernel.kexec import read_physical

__all__ = (
    "Fadump",
    "FadumpField",
    "crashed_stack",
    "examine_fadump",
    "parsed_registers",
    "scan_for_headers",
)

_ADDRESSES = frozenset(("elfcorehdr_addr", "vmcoreinfo_raddr"))


@dataclass(frozen=True)
class FadumpField:
    """A field of the crash info header, and where its value comes from."""

    name: str
    value: Any
    source: str

    def to_json(self) -> dict[str, Any]:
        value = self.value
        if self.name in _ADDRESSES and isinstance(value, int):
            value = f"{value:#x}"
        return {"value": value, "from": self.source}


@dataclass(frozen=True)
class Fadump:
    """All that a dump tells about a firmware-assisted dump."""

    state: str
    conf: FwDump | None
    """None without debug info: the header was found by a scan."""
    address: int | None
    """Physical address of the crash info header."""
    source: str
    """``"found"`` or ``"reconstructed"``"""
    header: FadumpHeader
    fields: tuple[FadumpField, ...]
    verdict: FadumpVerdict
    area: tuple[AreaPart, ...]
    elf: FadumpElf | None
    problems: tuple[str, ...]
    lacks: tuple[str, ...]
    """What the answer does not rest on because it could not be read."""

    @property
    def boot_regions(self) -> tuple[BootRegion, ...]:
        return self.conf.boot_regions if self.conf is not None else ()

    def to_json(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "platform": None if self.conf is None else self.conf.platform,
            "header": {
                "source": self.source,
                "address": None if self.address is None else f"{self.address:#x}",
                "layout": self.header.layout,
                "byteorder": self.header.byteorder,
                "fields": {field.name: field.to_json() for field in self.fields},
            },
            "verdict": self.verdict.words,
            "compatible": self.verdict.compatible,
            "reason": self.verdict.reason,
            "reserve_area": [part.to_json() for part in self.area],
            "boot_regions": [region.to_json() for region in self.boot_regions],
            "elfcorehdr": None if self.elf is None else self.elf.to_json(),
            "problems": list(self.problems),
            "notes": list(self.lacks),
        }


def examine_fadump(prog: Program) -> Fadump:
    """
    Examine the firmware-assisted dump that this dump is of, or that the kernel in it prepared.

    :raises NotFound: if there is none
    :raises PmemError: if nothing can be told
    """
    try:
        conf = fw_dump(prog)
        layout = fadump_layout(prog)
    except MissingDebugInfo as missing:
        return _examine_blindly(prog, missing)
    if not conf.fadumphdr_addr:
        raise NotFound(f"there is no firmware-assisted dump: {conf.state}")
    lacks: list[str] = []
    try:
        raw, header = _read_header(prog, conf, layout)
        source = "found"
        fields = _found_fields(prog, header)
    except (NotFound, FormatError) as error:
        why = str(error)
        if isinstance(error, FormatError):
            return _damaged(prog, conf, layout, error)
        lacks.append(f"the crash info header is reconstructed: {why}")
        header, fields = _reconstruct(prog, conf, layout)
        raw, source = build_fadump_header(header), "reconstructed"
    verdict = _judge(prog, raw, layout)
    firmware, problems = _firmware(prog, conf)
    problems += fadump_header_problems(header, conf.fadumphdr_addr)
    problems += reserve_area_problems(prog, conf, layout.size, firmware)
    elf = fadump_elf(prog, conf, header)
    problems += elf.problems
    return Fadump(
        conf.state,
        conf,
        conf.fadumphdr_addr,
        source,
        header,
        tuple(fields),
        verdict,
        tuple(reserve_area(conf, layout.size)),
        elf,
        tuple(problems),
        tuple(lacks),
    )


def _read_header(prog: Program, conf: FwDump, layout: FadumpLayout) -> tuple[bytes, FadumpHeader]:
    raw = read_physical(prog, conf.fadumphdr_addr, layout.size)
    if not any(raw):
        # A page that the header shares with saved memory: the bytes beside it are zeroes.
        raise NotFound(f"physical {conf.fadumphdr_addr:#x} reads as zeroes in this dump")
    header = parse_fadump_header(
        raw, pt_regs_sz=layout.pt_regs_size, cpu_mask_sz=layout.cpu_mask_size
    )
    return raw, header


def _found_fields(prog: Program, header: FadumpHeader) -> list[FadumpField]:
    fields = [FadumpField(name, value, "header") for name, value in header.fields.items()]
    if header.crashed:
        fields.append(FadumpField("regs", register_summary(prog, header.regs), "header"))
    fields.append(FadumpField("cpu_mask", list(header.cpus), "header"))
    return [
        FadumpField(field.name, None, field.source)
        if field.name == "crashing_cpu" and not header.crashed
        else field
        for field in fields
    ]


def _damaged(prog: Program, conf: FwDump, layout: FadumpLayout, error: FormatError) -> Fadump:
    """A header whose magic is no magic: what the kernel would say, and what should be there."""
    raw = read_physical(prog, conf.fadumphdr_addr, layout.size)
    header, fields = _reconstruct(prog, conf, layout)
    firmware, problems = _firmware(prog, conf)
    elf = fadump_elf(prog, conf, header)
    return Fadump(
        conf.state,
        conf,
        conf.fadumphdr_addr,
        "reconstructed",
        header,
        tuple(fields),
        _judge(prog, raw, layout),
        tuple(reserve_area(conf, layout.size)),
        elf,
        (
            str(error),
            *problems,
            *reserve_area_problems(prog, conf, layout.size, firmware),
            *elf.problems,
        ),
        ("the crash info header is damaged; the fields are what should be in it",),
    )


def _byteorder(prog: Program) -> ByteOrder:
    platform = prog.platform
    little = platform is None or "IS_LITTLE_ENDIAN" in str(platform.flags)
    return "little" if little else "big"


def _judge(prog: Program, raw: bytes, layout: FadumpLayout) -> FadumpVerdict:
    """What the kernel in the dump would say of the header, were it the capture kernel."""
    return is_fadump_header_compatible(
        raw,
        byteorder=_byteorder(prog),
        pt_regs_sz=layout.pt_regs_size,
        cpu_mask_sz=layout.cpu_mask_size,
        old_kernel=layout.name == "FADMPINF",
    )


def _firmware(prog: Program, conf: FwDump) -> tuple[RtasFadumpMem | None, list[str]]:
    if conf.platform != "rtas" or not (conf.registered or conf.active):
        return None, []
    try:
        firmware = firmware_structure(prog)
    except FormatError as error:
        return None, [f"what was registered with the firmware makes no sense: {error}"]
    if firmware is None or not conf.active:
        return firmware, []
    return firmware, check_rtas_fadump_mem(firmware)


def _reconstruct(
    prog: Program, conf: FwDump, layout: FadumpLayout
) -> tuple[FadumpHeader, list[FadumpField]]:
    """What the header must have been: each field with where it is taken from."""
    fields = []

    def take(name: str, value: Any, source: str) -> Any:
        fields.append(FadumpField(name, value, source))
        return value

    cpu = take("crashing_cpu", crashing_cpu(prog), "variable crashing_cpu")
    values: dict[str, Any] = {}
    if layout.name != "FADMPINF":
        values["version"] = take("version", 1, "the only version that there is")
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
            "fw_dump.fadumphdr_addr, behind the header",
        )
    if layout.name == "FADMPSIG-v7":
        values["elfcorehdr_size"] = conf.elfcorehdr_size or 0
    crashed = cpu is not None
    mask_name = "__cpu_online_mask" if crashed else "__cpu_possible_mask"
    mask = prog[mask_name].to_bytes_()[: layout.cpu_mask_size]
    regs = b""
    try:
        regs = crashing_registers(prog).data if crashed else bytes(layout.pt_regs_size)
        source = "PRSTATUS note of the crashing CPU" if crashed else "zero until a crash"
        take("regs", register_summary(prog, regs), source)
    except PmemError as error:
        regs = bytes(layout.pt_regs_size)
        take("regs", None, f"not known: {error}")
    header = FadumpHeader(
        layout=layout.name,
        byteorder=_byteorder(prog),
        crashing_cpu=cpu if cpu is not None else 0xFFFFFFFF,
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
        except NotFound:
            return None

    for part in coverage_of(prog).extent():
        if part.state is State.SAVED:
            yield from find_fadump_headers(read, part.start, part.end)


def _examine_blindly(prog: Program, missing: MissingDebugInfo) -> Fadump:
    try:
        first = next(scan_for_headers(prog), None)
    except DumpFileError:
        first = None
    if first is None:
        raise missing
    address, header = first
    verdict = is_fadump_header_compatible(
        build_fadump_header(header).ljust(64, b"\0"),
        byteorder=_byteorder(prog),
        pt_regs_sz=header.pt_regs_sz or 0,
        cpu_mask_sz=header.cpu_mask_sz or 0,
        old_kernel=header.layout == "FADMPINF",
    )
    return Fadump(
        "crashed" if header.crashed else "registered",
        None,
        address,
        "found",
        header,
        tuple(_found_fields(prog, header)),
        verdict,
        (),
        None,
        tuple(fadump_header_problems(header, address)),
        (f"found by a scan of memory: {missing}",),
    )


def parsed_registers(prog: Program, header: FadumpHeader) -> Object | None:
    """``struct pt_regs`` of a header, None if nothing has crashed yet."""
    if not header.crashed or not any(header.regs):
        return None
    return Object.from_bytes_(prog, prog.type("struct pt_regs"), header.regs)


def crashed_stack(prog: Program) -> tuple[int, list[str]]:
    """
    The stack of the thread that crashed, from the header if the dump holds it, else from the
    PRSTATUS note.

    :return: Logical CPU; one line for each frame.
    :raises NotFound: if nothing has crashed, or no registers were saved
    """
    conf, layout = fw_dump(prog), fadump_layout(prog)
    if conf.active:
        raise NotFound(
            "this dump was taken from the capture kernel: the stack that crashed lies in memory "
            "that the firmware moved; look at the /proc/vmcore that it saved"
        )
    try:
        _, header = _read_header(prog, conf, layout)
        regs = parsed_registers(prog, header)
        cpu = header.crashing_cpu
    except (NotFound, FormatError):
        saved = crashing_registers(prog)
        regs, cpu = saved.object(prog), saved.cpu
    if regs is None:
        raise NotFound("no CPU has crashed: this dump was taken from a running kernel")
    return cpu, [str(frame) for frame in str(fadump_stack(prog, regs)).splitlines()]

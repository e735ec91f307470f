# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
CXL memory devices and regions
------------------------------

What ``cxl list -M`` and ``cxl list -R`` show, as far as the kernel keeps it: a device's health and
alerts are asked of the device each time. So is its poison list, but the buffer with the device's
last answer stays. Sources: drivers/cxl/cxlmem.h, drivers/cxl/cxl.h, drivers/cxl/core/region.c,
drivers/cxl/core/mbox.c (``cxl_mem_get_poison()``).
"""

from typing import Any

from drgn import Object, Program, container_of

from drgn_pmem.errors import FormatError
from drgn_pmem.formats.cxlpoison import CxlPoisonList, parse_poison_list
from drgn_pmem.kernel.dax import for_each_dax_region
from drgn_pmem.kernel.debuginfo import find_type, member, optional_member
from drgn_pmem.kernel.device import device_name, for_each_device, uuid_text
from drgn_pmem.kernel.memory import memory_of
from drgn_pmem.kernel.nvdimm import for_each_bus
from drgn_pmem.kernel.strings import kernel_string
from drgn_pmem.partial import Partial, Problems, WalkError
from drgn_pmem.ranges import Range
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "ACPI_ROOT",
    "CxlMapping",
    "CxlMemdev",
    "CxlRegion",
    "for_each_cxl_memdev",
    "for_each_cxl_region",
    "has_cxl_memory",
)

_MAX_PARTITIONS = 16
_MAX_PAYLOAD = 1 << 20
"""Of a mailbox, bytes (CXL 3.0, 8.2.8.4.3)."""
_CORE = "cxl_core"

ACPI_ROOT = "ACPI0017"
"""The CXL root device, in whose folder of sysfs all of CXL is (drivers/cxl/acpi.c)."""


class CxlMemdev(Record):
    """``struct cxl_memdev``. JSON: the keys of ``cxl list -M``."""

    memdev: str
    pmem_size: int = shown(Show.SIZE)
    """bytes"""
    ram_size: int = shown(Show.SIZE)
    """bytes"""
    serial: int
    host: str
    """Its PCI device."""
    firmware_version: str | None = shown(optional=True)
    """None for a device that is not of the memory class."""
    last_poison_list: CxlPoisonList | None = shown(optional=True)
    """The device's last answer to a request for its poison list (trigger_poison_list in sysfs): of
    one region or partition, not known which. None if it had no records or nothing asked for it. The
    list itself is in the device only."""
    object: Object = shown(Show.HIDDEN)
    """``struct cxl_memdev *``"""

    def to_json(self) -> dict[str, Any]:
        # cxl leaves out sizes of 0
        empty = [key for key in ("pmem_size", "ram_size") if not getattr(self, key)]
        return {key: item for key, item in super().to_json().items() if key not in empty}


class CxlMapping(Record):
    """One device of a region's interleave set."""

    position: int
    memdev: str
    decoder: str
    dpa: Range | None = shown(json=False, default=None)
    """The part of the device that is in the region, in its own addresses; None if it has none."""


class CxlRegion(Record):
    """``struct cxl_region``. JSON: the keys of ``cxl list -R``."""

    region: str
    resource: int | None
    """Physical address; None if it has none yet."""
    size: int = shown(Show.SIZE)
    """bytes"""
    type: str
    """``"pmem"``, ``"ram"``, or another word of the kernel's."""
    interleave_ways: int
    interleave_granularity: int
    """bytes"""
    decode_state: str
    """``"commit"`` if it is in use, else another word of ``enum cxl_config_state``."""
    uuid: str | None = shown(optional=True)
    mappings: tuple[CxlMapping, ...]
    cache_size: int = shown(json=False, default=0)
    """Bytes at its start that are RAM, a cache of the devices' memory."""
    object: Object = shown(Show.HIDDEN)
    """``struct cxl_region *``"""

    def physical(self, memdev: str, addresses: Range) -> tuple[Range, int] | None:
        """
        Those of a range of addresses of a device that a region has, and the physical address of the
        first: ``cxl_dpa_to_hpa()`` of a region that is not interleaved. None if it is, or has none.
        """
        own = next((m.dpa for m in self.mappings if m.memdev == memdev), None)
        if self.interleave_ways != 1 or self.resource is None or own is None:
            return None
        if not own.overlaps(addresses):
            return None
        part = Range(max(own.start, addresses.start), min(own.end, addresses.end))
        return part, self.resource + self.cache_size + part.start - own.start


def has_cxl_memory(prog: Program) -> bool:
    """Whether a bus of NVDIMMs or a DAX region that could be read is of CXL."""
    # not a problem: whoever asks has taken what lists of NVDIMM buses lack
    if any(bus.provider == "CXL" for bus in Problems().take(for_each_bus(prog))):
        return True
    # not a problem: whoever asks has taken what lists of DAX devices lack
    return any(ACPI_ROOT in region.path for region in Problems().take(for_each_dax_region(prog)))


def for_each_cxl_memdev(prog: Program) -> Partial[list[CxlMemdev]]:
    """Memory devices, by number."""
    problems = Problems()
    found = []
    with problems.trying(""):
        for device in _devices(prog, "mem", "struct cxl_memdev", problems):
            with problems.trying(device_name(device)):
                memdev = container_of(device, "struct cxl_memdev", "dev")
                found.append(_read_memdev(memdev, problems))
    return problems.partial(found)


def for_each_cxl_region(prog: Program) -> Partial[list[CxlRegion]]:
    """Regions, by number."""
    problems = Problems()
    found = []
    with problems.trying(""):
        for device in _devices(prog, "region", "struct cxl_region", problems):
            name = device_name(device)
            with problems.trying(name):
                found.append(_read_region(container_of(device, "struct cxl_region", "dev"), name))
    return problems.partial(found)


def _devices(prog: Program, prefix: str, type_: str, problems: Problems) -> list[Object]:
    """Devices of the CXL bus of one kind: ``mem0`` is one of ``"mem"``."""
    found = []
    for device in problems.take(for_each_device(prog, "cxl_bus_type", _CORE)):
        name = device_name(device)
        if name.startswith(prefix) and name[len(prefix) :].isdigit():
            found.append((int(name[len(prefix) :]), device))
    if found:
        find_type(prog, type_, _CORE)
    return [device for _, device in sorted(found, key=lambda item: item[0])]


def _size(resource: Object) -> int:
    """``resource_size()``, in 64 bits: an empty partition is 0 to -1."""
    return int(resource.end.value_() + 1 - resource.start.value_()) % (1 << 64)


def _read_memdev(memdev: Object, problems: Problems) -> CxlMemdev:
    state = memdev.cxlds
    sizes = _partitions(state)
    name = device_name(memdev.dev.address_of_())
    poison = None
    with problems.trying(f"{name}: its last poison list"):
        poison = _last_poison_list(state)
    return CxlMemdev(
        memdev=name,
        pmem_size=sizes.get("pmem", 0),
        ram_size=sizes.get("ram", 0),
        serial=state.serial.value_(),
        host=device_name(state.dev),
        firmware_version=_firmware(state),
        last_poison_list=poison,
        object=memdev,
    )


def _partitions(state: Object) -> dict[str, int]:
    """bytes by kind"""
    # Since Linux kernel commit be5cbd084027 ("cxl: Kill enum cxl_decoder_mode") and its series (in
    # v6.15), a list of partitions.
    number = optional_member(state, "nr_partitions")
    if number is None:
        return {"ram": _size(state.ram_res), "pmem": _size(state.pmem_res)}
    count = number.value_()
    if count > _MAX_PARTITIONS:
        raise WalkError(f"implausible number of partitions {count}")
    parts = [state.part[i] for i in range(count)]
    return {_mode(part.mode): _size(part.res) for part in parts}


def _mode(value: Object) -> str:
    """``CXL_PARTMODE_PMEM`` (``CXL_DECODER_PMEM`` before 6.15) -> ``"pmem"``."""
    return _word(value).rpartition("_")[2]


def _word(value: Object) -> str:
    """Enumerator in lower case, without what all of its type have in common."""
    for enumerator in value.type_.enumerators or ():
        if enumerator.value == value.value_():
            return str(enumerator.name).lower()
    return str(value.value_())


def _memory_class(state: Object) -> Object | None:
    """``to_cxl_memdev_state()``"""
    if _word(state.type) != "cxl_devtype_classmem":
        return None
    return container_of(state, "struct cxl_memdev_state", "cxlds")


def _firmware(state: Object) -> str | None:
    device = _memory_class(state)
    return None if device is None else kernel_string(device.firmware_version)


def _last_poison_list(state: Object) -> CxlPoisonList | None:
    device = _memory_class(state)
    # Since Linux kernel commit d0abf5787adc ("cxl/mbox: Initialize the poison state") (in v6.4).
    buffer = None if device is None else optional_member(device, "poison.list_out")
    if device is None or buffer is None or not buffer:
        return None
    # Since Linux kernel commit 8d8081cecfb9 ("cxl: Move mailbox related bits to the same context")
    # (in v6.12).
    mailbox = optional_member(state, "cxl_mbox.payload_size")
    size = (member(device, "payload_size") if mailbox is None else mailbox).value_()
    if size > _MAX_PAYLOAD:
        raise WalkError(f"implausible payload_size {size}")
    start = state.dpa_res.start.value_()
    own = Range(start, start + _size(state.dpa_res))
    try:
        return parse_poison_list(memory_of(state.prog_).read(buffer.value_(), size), [own])
    except FormatError:
        # not a problem: kvmalloc() does not clear it, so that is a list that was never asked for
        return None


def _read_region(region: Object, name: str) -> CxlRegion:
    params = region.params
    resource = params.res.read_()
    most = len(params.targets)
    count = params.nr_targets.value_()
    if not 0 <= count <= most:
        raise WalkError(f"implausible nr_targets {count}")
    targets = [target for target in params.targets if target]
    uuid = uuid_text(params.uuid.address_of_())
    cache = optional_member(params, "cache_size")
    return CxlRegion(
        region=name,
        resource=resource.start.value_() if resource else None,
        size=_size(resource) if resource else 0,
        type=_mode(region.mode),
        interleave_ways=params.interleave_ways.value_(),
        interleave_granularity=params.interleave_granularity.value_(),
        decode_state=_word(params.state).removeprefix("cxl_config_"),
        uuid=uuid if uuid is not None and uuid.strip("0-") else None,
        mappings=tuple(_read_mapping(target) for target in targets),
        # Since "acpi/hmat / cxl: Add extended linear cache support for CXL" (in v6.15).
        cache_size=0 if cache is None else cache.value_(),
        object=region,
    )


def _read_mapping(target: Object) -> CxlMapping:
    """:param target: ``struct cxl_endpoint_decoder *``"""
    device = target.cxld.dev
    port = container_of(device.parent, "struct cxl_port", "dev")
    # Since Linux kernel commit 7481653dee32 ("cxl: Rename 'uport' to 'uport_dev'") (in v6.5).
    endpoint: Any = member(port, "uport_dev", "uport")
    own = target.dpa_res.read_()
    dpa = Range(own.start.value_(), own.start.value_() + _size(own)) if own else None
    return CxlMapping(
        position=target.pos.value_(),
        memdev=device_name(endpoint),
        decoder=device_name(device.address_of_()),
        dpa=dpa,
    )

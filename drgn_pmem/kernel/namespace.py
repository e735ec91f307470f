# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Namespaces
----------

Namespaces, as ``ndctl list -N`` shows them, from libnvdimm's own structures; what claims them is
read by :mod:`drgn_pmem.kernel.claim`. Sources: drivers/nvdimm/nd.h, namespace_devs.c;
include/linux/nd.h.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from drgn import Object, Program, container_of

from drgn_pmem.errors import MissingDebugInfo
from drgn_pmem.kernel.claim import ClaimReader
from drgn_pmem.kernel.dax import DaxDevice, DaxRegion, for_each_dax_device
from drgn_pmem.kernel.debuginfo import find_type, find_variable, optional_member
from drgn_pmem.kernel.device import (
    device_name,
    driver_name,
    for_each_nd_device,
    uuid_text,
)
from drgn_pmem.kernel.memory import cached
from drgn_pmem.kernel.outline import NamespaceOutline, for_each_outline
from drgn_pmem.kernel.page_layout import pfn_of
from drgn_pmem.kernel.pgmap import Pgmap
from drgn_pmem.kernel.strings import kernel_string
from drgn_pmem.partial import Cause, Partial, Problem, Problems
from drgn_pmem.ranges import Range
from drgn_pmem.record import Record, Show, shown

__all__ = ("NIL_UUID", "Namespace", "for_each_namespace", "namespace_of_pfn", "pgmap_of")

T = TypeVar("T")

NIL_UUID = "00000000-0000-0000-0000-000000000000"
"""What an info block has as parent_uuid in a namespace without label."""


class Namespace(Record):
    """``struct nd_namespace_common`` with what claims it."""

    dev: str
    bus: str | None
    """None without debug info of libnvdimm, and if the dump does not hold it."""
    region: str
    mode: str | None
    """``"fsdax"``, ``"devdax"``, ``"sector"``, ``"raw"``; None without debug info of libnvdimm, if
    it has no page map, and if the dump does not hold what claims it."""
    map: str | None
    """``"dev"``: struct pages on pmem; ``"mem"``: in RAM; ``"none"``; None where there are none."""
    size: int | None = shown(Show.SIZE)
    """Usable bytes, as ndctl; None if the dump does not hold it."""
    raw_size: int = shown(Show.SIZE)
    """bytes, with info block and struct pages"""
    resource: int = shown(Show.ADDRESS)
    """Physical address of the first byte."""
    data_offset: int | None = shown(Show.ADDRESS)
    """bytes from :attr:`resource` to the data; None if the dump does not hold it."""
    uuid: str | None
    raw_uuid: str | None
    sector_size: int | None
    align: int | None
    blockdev: str | None
    chardev: str | None
    daxregion: DaxRegion | None
    enabled: bool | None
    """Whether a driver is bound; None if the dump does not hold it."""
    seed: bool
    """The region's spare device that ``ndctl create-namespace`` takes next."""
    name: str | None
    numa_node: int | None
    target_node: int | None
    """None: kernels before v5.1, and without debug info of libnvdimm."""
    label_uuid: str | None = shown(json=False)
    """uuid of the namespace by its label, which info blocks in it have as parent_uuid;
    :data:`NIL_UUID` without a label; None if not known."""
    claim_class: str | None = shown(json=False)
    """Its purpose by its label: ``"none"``, ``"btt"``, ``"btt2"``, ``"pfn"``, ``"dax"``,
    ``"unknown"``. None if not known."""
    force_raw: bool | None = shown(json=False)
    """Whether it was forced to be raw, whatever info block it has; None if not known."""
    claim: str | None
    """Device that claims it: ``"pfn0.0"``."""
    pgmap: int = shown(Show.ADDRESS)
    """Address of its ``struct dev_pagemap``; 0 if it has none."""
    claim_object: Object | None = shown(Show.HIDDEN)
    """``struct nd_pfn *`` (also of a devdax namespace), ``struct nd_btt *`` or None"""
    object: Object | None = shown(Show.HIDDEN)
    """``struct nd_namespace_common *``; None without debug info of libnvdimm"""

    @property
    def idle(self) -> bool:
        """Without capacity or driver: ``ndctl list`` shows it only with ``-i``."""
        return self.enabled is False

    @property
    def is_persistent(self) -> bool:
        """Whether it is a namespace, of persistent memory; else a DAX device without one."""
        return self.dev.startswith("namespace")

    @property
    def has_no_claim(self) -> bool:
        """Whether it is certain that nothing claims it: a raw namespace, which needs no info block,
        although its region may map its pages (e820, virtio-pmem); or a DAX device without a
        namespace."""
        if not self.is_persistent:
            return True
        return self.claim is None and self.mode is not None and self.object is not None

    @property
    def devices(self) -> tuple[str, ...]:
        """Its block or character devices, without ``/dev/``."""
        own = [self.blockdev, self.chardev]
        own += [device.chardev for device in self.daxregion.devices] if self.daxregion else []
        return tuple(dict.fromkeys(device for device in own if device))

    @property
    def range(self) -> Range:
        """All of it, metadata included."""
        return Range(self.resource, self.resource + self.raw_size)

    def to_json(self) -> dict[str, Any]:
        values = {
            "mode": self.mode,
            "map": self.map,
            "size": self.size,
            "uuid": self.uuid,
            "raw_uuid": self.raw_uuid,
            "daxregion": self._daxregion_json(),
            "sector_size": self.sector_size,
            "align": self.align,
            "blockdev": self.blockdev,
            "state": "disabled" if self.idle else None,
            "name": self.name,
            "numa_node": None if (self.numa_node or 0) < 0 else self.numa_node,
            "target_node": None if (self.target_node or 0) < 0 else self.target_node,
        }
        return {"dev": self.dev} | {k: v for k, v in values.items() if v is not None}

    def _daxregion_json(self) -> Any:
        if self.daxregion is None:
            return None
        # ndctl prints no path of a DAX region, daxctl does.
        return {k: v for k, v in self.daxregion.to_json().items() if k != "path"}


def for_each_namespace(prog: Program) -> Partial[list[Namespace]]:
    """
    Namespaces of every region, idle ones included; without debug info of libnvdimm, what vmlinux
    says of the enabled ones.
    """
    problems = Problems()
    each = problems.take(_each_namespace(prog))
    return problems.partial([problems.take(namespace) for namespace in each])


def _each_namespace(prog: Program) -> Partial[list[Partial[Namespace]]]:
    """Namespaces, each with what is not known of it; the problems are those of the walk."""
    problems = Problems()
    try:
        find_variable(prog, "nvdimm_bus_type", "libnvdimm")
        find_type(prog, "struct nd_namespace_common", "libnvdimm")
        find_type(prog, "struct nd_pfn", "libnvdimm")
    except MissingDebugInfo as error:
        outlines = problems.take(for_each_outline(prog))
        problems.add(error)
        return problems.partial([Partial(_of_outline(outline)) for outline in outlines])
    dax_devices = for_each_dax_device(prog)
    found = []
    buses: dict[str, str | None] = {}
    for device in problems.take(for_each_nd_device(prog, "namespace")):
        with problems.trying(device_name(device)):
            own = Problems()
            namespace = _Reader(device, dax_devices, own).read()
            found.append(own.partial(namespace))
            buses[namespace.dev] = buses[namespace.region] = namespace.bus
    if problems:
        for outline in problems.take(for_each_outline(prog)):
            # Of other modes, iomem has the metadata alone where the data is used as RAM.
            if outline.mode == "fsdax" and outline.dev not in buses:
                own = Problems()
                why = "its device was not found; by iomem and the page maps alone"
                own.add(Problem(cause=Cause.NOT_SAVED, why=why, what=outline.dev))
                lost = replace(_of_outline(outline), bus=buses.get(outline.region))
                found.append(own.partial(lost))
    return problems.partial(found)


def _of_outline(outline: NamespaceOutline) -> Namespace:
    return Namespace(
        dev=outline.dev,
        bus=None,
        region=outline.region,
        mode=outline.mode,
        map=outline.map,
        size=None if outline.data is None else outline.end - outline.data,
        raw_size=outline.end - outline.start,
        resource=outline.start,
        data_offset=None if outline.data is None else outline.data - outline.start,
        uuid=None,
        raw_uuid=None,
        sector_size=None,
        align=None,
        blockdev=None,
        chardev=outline.chardev,
        daxregion=None,
        enabled=True,
        seed=False,
        name=None,
        numa_node=None,
        target_node=None,
        label_uuid=None,
        claim_class=None,
        force_raw=None,
        claim=None,
        pgmap=outline.pgmap,
        claim_object=None,
        object=None,
    )


def pgmap_of(namespace: Namespace, pgmaps: Iterable[Pgmap]) -> Pgmap | None:
    """
    The page map of a namespace; by its place where the debug info of nd_pmem or dax is missing.

    :param pgmaps: All of ``pgmap_array``.
    """
    if namespace.pgmap:
        return next((p for p in pgmaps if p.address == namespace.pgmap), None)
    if namespace.idle or namespace.map is None:
        return None
    return next((p for p in pgmaps if any(r.start in namespace.range for r in p.ranges)), None)


class _Reader:
    """Reads one namespace; keeps what can be read where pointers are wild."""

    def __init__(
        self, device: Object, dax_devices: Partial[list[DaxDevice]], problems: Problems
    ) -> None:
        self.prog = device.prog_
        self.device = device
        self.dev = device_name(device)
        self.ndns = container_of(device, "struct nd_namespace_common", "dev")
        self.nsio = container_of(self.ndns, "struct nd_namespace_io", "common")
        self.dax_devices = dax_devices
        self.problems = problems

    def attempt(self, what: str, read: Callable[[], T]) -> T | None:
        return self.problems.attempt(f"{self.dev}: {what}", read)

    def read(self) -> Namespace:
        resource = self.nsio.res
        start, end = resource.start.value_(), resource.end.value_() + 1
        claim_name = self.attempt("claim", self._claim)
        claim = self.ndns.claim.read_() if claim_name else None
        kind = (claim_name or "").rstrip("0123456789.")
        bound = claim if claim is not None else self.device
        driver = None
        if claim_name is not None:
            driver = self.attempt("driver", lambda: driver_name(bound) or "")
        labelled, own_uuid, alt_name, lbasize = self._label()
        region = container_of(self.device.parent, "struct nd_region", "dev")
        target_node = optional_member(region, "target_node")
        values: dict[str, Any] = {
            "mode": None if claim_name is None else "raw",
            "map": None,
            "size": None if claim_name is None else end - start,
            "data_offset": None if claim_name is None else 0,
            # What claims it has a uuid and a block size of its own.
            "uuid": None if claim_name is None else own_uuid,
            "raw_uuid": None,
            "sector_size": None if claim_name is None or lbasize is None else lbasize or 512,
            "align": None,
            "blockdev": None,
            "chardev": None,
            "daxregion": None,
            "pgmap": 0,
            "claim_object": None,
        }
        reader = ClaimReader(self.dev, Range(start, end), own_uuid, self.dax_devices, self.problems)
        if kind in ("pfn", "dax"):
            values |= reader.pfn(claim)
        if kind == "dax":
            values |= reader.dax(claim, driver)
        elif kind == "btt":
            values |= reader.btt(claim)
        elif driver:
            values |= reader.pmem(bound, raw=claim is None)
        return Namespace(
            dev=self.dev,
            bus=self.attempt("bus", lambda: device_name(self.device.parent.parent)),
            region=device_name(self.device.parent),
            raw_size=end - start,
            resource=start,
            enabled=None if driver is None else bool(driver),
            seed=bool(region.ns_seed == self.device),
            name=alt_name,
            numa_node=region.numa_node.value_(),
            target_node=None if target_node is None else target_node.value_(),
            claim=claim_name or None,
            label_uuid=own_uuid if labelled else None if labelled is None else NIL_UUID,
            claim_class=_claim_class(self.ndns),
            force_raw=bool(self.ndns.force_raw),
            object=self.ndns,
            **values,
        )

    def _claim(self) -> str:
        """Name of the device that claims it; empty if none does."""
        claim = self.ndns.claim.read_()
        return device_name(claim) if claim else ""

    def _label(self) -> tuple[bool | None, str | None, str | None, int | None]:
        """Whether it has a label (None if not known); uuid, name and block size by the label."""
        type_name = self.attempt("type", lambda: kernel_string(self.device.type.name))
        if type_name != "nd_namespace_pmem":
            # Label-less (namespace_io): no uuid, no name.
            known = type_name is not None
            return False if known else None, None, None, 0 if known else None
        nspm = container_of(self.nsio, "struct nd_namespace_pmem", "nsio")
        uuid = self.attempt("uuid", lambda: uuid_text(nspm.uuid) or NIL_UUID)
        name = self.attempt(
            "alt_name", lambda: kernel_string(nspm.alt_name) if nspm.alt_name else None
        )
        return True, uuid, name or None, nspm.lbasize.value_()


def _claim_class(ndns: Object) -> str | None:
    """``"none"``, ``"btt"``, ``"btt2"``, ``"pfn"``, ``"dax"``, ``"unknown"``."""
    # Since Linux kernel commit b3fde74ea195 ("libnvdimm, label: add address abstraction
    # identifiers") (in v4.13).
    value = ndns.claim_class
    for enumerator in value.type_.enumerators or ():
        if enumerator.value == value.value_():
            return str(enumerator.name).removeprefix("NVDIMM_CCLASS_").lower()
    return None


def namespace_of_pfn(prog: Program, page: "Object | int") -> Partial[Namespace | None]:
    """
    The namespace that a page is in, metadata included. None if it lies in none of those that
    could be read: in none at all if that is complete.

    :param page: PFN, or ``struct page *``.
    """
    problems = Problems()
    address = pfn_of(prog, page) << prog["PAGE_SHIFT"].value_()
    # Asked for every page of an answer.
    every: Partial[list[Partial[Namespace]]] = cached(
        prog, "each_namespace", lambda: _each_namespace(prog)
    )
    for partial in problems.take(every):
        own = Problems()
        namespace = own.take(partial)
        if address in namespace.range:
            # What is not known of other namespaces does not matter.
            return own.partial(namespace)
        problems.extend(own)
    return problems.partial(None)

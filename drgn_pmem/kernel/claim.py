# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What claims a namespace
-----------------------

The personality that claims a namespace (``struct nd_pfn``, ``nd_dax``, ``nd_btt``), or nd_pmem
itself on a raw one. Sources: drivers/nvdimm/nd.h, pfn_devs.c, btt_devs.c, pmem.h;
drivers/dax/pmem.c.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from drgn import Object, cast, container_of

from drgn_pmem.kernel.dax import DaxDevice, read_dax_region
from drgn_pmem.kernel.debuginfo import has_type, member
from drgn_pmem.kernel.device import uuid_text
from drgn_pmem.kernel.partitions import for_each_disk
from drgn_pmem.kernel.pgmap import for_each_pgmap, is_mapped
from drgn_pmem.kernel.strings import kernel_string
from drgn_pmem.partial import Partial, Problems, WalkError
from drgn_pmem.ranges import Range

__all__ = ("ClaimReader",)

T = TypeVar("T")


class ClaimReader:
    """
    Reads what claims one namespace; keeps what can be read where pointers are wild.

    :param dev: Name of the namespace, for problems.
    :param own: All of it, metadata included.
    :param own_uuid: uuid of the namespace itself.
    """

    def __init__(
        self,
        dev: str,
        own: Range,
        own_uuid: str | None,
        dax_devices: Partial[list[DaxDevice]],
        problems: Problems,
    ) -> None:
        self.dev = dev
        self.own = own
        self.own_uuid = own_uuid
        self.dax_devices = dax_devices
        self.problems = problems

    def attempt(self, what: str, read: Callable[[], T]) -> T | None:
        """One value, or None and a problem of this namespace."""
        return self.problems.attempt(f"{self.dev}: {what}", read)

    def pfn(self, claim: Object) -> dict[str, Any]:
        """``struct nd_pfn``: also the first member of a ``struct nd_dax``."""
        nd_pfn = container_of(claim, "struct nd_pfn", "dev")
        mode = nd_pfn.mode.value_()
        values = {
            "mode": "fsdax",
            "map": {1: "mem", 2: "dev"}.get(mode, "none"),
            "uuid": self.attempt("uuid of its claim", lambda: uuid_text(nd_pfn.uuid)),
            "raw_uuid": self.own_uuid,
            "align": nd_pfn.align.value_(),
            "claim_object": nd_pfn,
            "size": None,
            "data_offset": None,
        }
        pfn_sb = nd_pfn.pfn_sb.read_()
        if not pfn_sb:
            self.problems.add(
                WalkError("the kernel keeps no info block of it (pfn_sb is NULL)"), self.dev
            )
            return values
        geometry = self.attempt(
            f"info block at pfn_sb {pfn_sb.value_():#x}",
            lambda: (
                pfn_sb.start_pad.value_(),
                pfn_sb.end_trunc.value_(),
                pfn_sb.dataoff.value_(),
            ),
        )
        if geometry is not None:
            start_pad, end_trunc, dataoff = geometry
            size = self.own.size - start_pad - end_trunc - dataoff
            if size < 0:
                self.problems.add(
                    WalkError(
                        f"its info block does not fit it: dataoff {dataoff:#x}, start_pad "
                        f"{start_pad:#x}, end_trunc {end_trunc:#x} in {self.own.size:#x} bytes"
                    ),
                    self.dev,
                )
            else:
                values |= {"size": size, "data_offset": start_pad + dataoff}
        return values

    def dax(self, claim: Object, driver: str | None) -> dict[str, Any]:
        values: dict[str, Any] = {"mode": "devdax", "sector_size": None}
        if not driver:
            return values
        whole = self.dax_devices.complete
        devices_found = self.problems.take(self.dax_devices)
        if not has_type(claim.prog_, "struct dax_region"):
            return values
        # dax_pmem: driver_data of the nd_dax device is its dax_region (drivers/dax/bus.c).
        region = cast("struct dax_region *", claim.driver_data)
        devices = [d for d in devices_found if d.region == region.value_()]
        record = self.attempt("dax region", lambda: read_dax_region(region, devices))
        return values | {
            "daxregion": record,
            # With several devices, ndctl names none.
            "chardev": devices[0].chardev if whole and len(devices) == 1 else None,
            "pgmap": devices[0].pgmap if devices else 0,
        }

    def btt(self, claim: Object) -> dict[str, Any]:
        nd_btt = container_of(claim, "struct nd_btt", "dev")
        disk = self.attempt("disk", lambda: self._btt_disk(nd_btt))
        return {
            "mode": "sector",
            "size": nd_btt.size.value_(),
            # The arenas say where the data is.
            "data_offset": None,
            "uuid": self.attempt("uuid of its claim", lambda: uuid_text(nd_btt.uuid)),
            "raw_uuid": self.own_uuid,
            "sector_size": nd_btt.lbasize.value_(),
            "blockdev": disk,
            "claim_object": nd_btt,
        }

    def _btt_disk(self, nd_btt: Object) -> str | None:
        if not has_type(nd_btt.prog_, "struct btt"):
            return _disk_of(nd_btt.dev.address_of_())
        return kernel_string(nd_btt.btt.btt_disk.disk_name) if nd_btt.btt else None

    def pmem(self, bound: Object, raw: bool) -> dict[str, Any]:
        """
        ``struct pmem_device``: driver_data of the device that nd_pmem is bound to.

        :param raw: Whether that is the namespace itself.
        """
        pgmap: int | None
        if has_type(bound.prog_, "struct pmem_device"):
            pmem = cast("struct pmem_device *", bound.driver_data)
            disk = self.attempt("disk", lambda: kernel_string(pmem.disk.disk_name))
            pgmap = self.attempt(
                "page map", lambda: pmem.pgmap.address_of_().value_() * is_mapped(pmem.pgmap)
            )
        else:
            disk = self.attempt("disk", lambda: _disk_of(bound))
            pgmap = self._pgmap_by_place(bound)
        values: dict[str, Any] = {"blockdev": disk, "pgmap": pgmap or 0}
        if raw:
            if pgmap:
                # A raw namespace whose region maps its pages (e820, of_pmem, virtio-pmem).
                values |= {"mode": "fsdax", "map": "mem"}
            elif pgmap is None:
                values |= {"mode": None}
        return values

    def _pgmap_by_place(self, bound: Object) -> int | None:
        """Address of the fsdax page map in its range, 0 if there is none, None if not known."""
        pgmaps = for_each_pgmap(bound.prog_)
        for pgmap in self.problems.take(pgmaps):
            if pgmap.type.endswith("FS_DAX") and any(self.own.overlaps(r) for r in pgmap.ranges):
                return pgmap.address
        return 0 if pgmaps.complete else None


def _disk_of(device: Object) -> str | None:
    """
    Name of the disk whose parent a device is; needs no debug info of the driver.

    :param device: ``struct device *``
    """
    for disk in for_each_disk(device.prog_):
        # Since Linux kernel commit 0d02129e76ed ("block: merge struct block_device and struct
        # hd_struct") (in v5.11) part0 points to a struct block_device.
        if member(disk, "part0.bd_device", "part0.__dev").parent == device:
            return kernel_string(disk.disk_name)
    return None

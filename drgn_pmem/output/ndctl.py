# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
ndctl's shapes
--------------

Records nested as ``ndctl list`` nests them: DIMMs and regions in their bus, namespaces in their
region; without buses, kinds side by side. Source: ndctl/list.c and ndctl/filter.c of ndctl.
"""

from collections.abc import Callable, Sequence
from typing import Any

from drgn_pmem.analysis.inventory.listing import Inventory
from drgn_pmem.kernel.badblocks import read_badblocks
from drgn_pmem.kernel.dax import DaxRegion
from drgn_pmem.kernel.device import attribute_names
from drgn_pmem.kernel.namespace import Namespace
from drgn_pmem.kernel.nvdimm import Dimm
from drgn_pmem.kernel.region import Region
from drgn_pmem.partial import Problems

__all__ = ("nest",)

_VERBOSE_KEYS = frozenset(("numa_node", "raw_uuid"))
"""Keys that ndctl prints only with ``-v``."""


def nest(
    inventory: Inventory,
    *,
    buses: bool,
    dimms: bool,
    regions: bool,
    namespaces: bool,
    dax: bool,
    verbose: bool,
    dump: Callable[[Any], dict[str, Any]] | None,
    problems: Problems,
) -> Any:
    """
    The JSON value of ``ndctl list -BDRNX`` for those kinds.

    :param dump: Our own facts of a record; None leaves them out, as ``--ndctl``.
    :param problems: Gets those of bad sectors that could not be read.
    """

    hides_target_node = dump is None and not _exports_target_node(inventory, problems)
    bad = {region.dev: _bad_sectors(region, problems) for region in inventory.regions}
    by_name = {region.dev: region for region in inventory.regions}

    def badblocks(record: Any) -> dict[str, Any]:
        if isinstance(record, Region):
            return _badblocks(record, record.resource, record.size, bad[record.dev], verbose)
        if not isinstance(record, Namespace) or record.region not in bad:
            return {}
        region = by_name[record.region]
        if not record.raw_size:
            # ndctl does not know the address of a namespace without capacity, and prints that of
            # its region; only --ndctl repeats that.
            start, size = (region.resource, region.size) if dump is None else (0, 0)
        else:
            start = record.resource + (record.data_offset or 0)
            size = record.size or 0
        return _badblocks(region, start, size, bad[region.dev], verbose)

    def one(record: Any) -> dict[str, Any]:
        value = record.to_json() | badblocks(record)
        if hides_target_node and isinstance(record, Region | Namespace):
            value.pop("target_node", None)
        if not verbose:
            value = {k: v for k, v in value.items() if k not in _VERBOSE_KEYS}
        if not dax and "daxregion" in value:
            value = _chardev_only(value)
        if dump is not None:
            if isinstance(record, Dimm):
                value |= record.health_json()
            value["dump"] = dump(record)
        return value

    def dax_region(record: DaxRegion) -> dict[str, Any]:
        """daxctl's own keys, and what is known of the CXL region that it is."""
        facts = {} if dump is None else dump(record)
        more = {"dump": facts} if "cxl" in facts else {}
        return record.to_json() | more

    def region(record: Any) -> dict[str, Any]:
        value = one(record)
        if not verbose:
            value.pop("target_node", None)
        if namespaces:
            children = [one(n) for n in inventory.namespaces if n.region == record.dev]
            if children:
                value["namespaces"] = children
        return value

    def bus(name: str) -> dict[str, Any]:
        read = next((b for b in inventory.buses if b.dev == name), None)
        # The name of a bus that could not be read is known from its devices.
        value: dict[str, Any] = {"dev": name} if read is None else one(read)
        if dimms:
            value["dimms"] = [one(d) for d in inventory.dimms if d.bus == name]
        if regions:
            value["regions"] = [region(r) for r in inventory.regions if r.bus == name]
        elif namespaces:
            value["namespaces"] = [one(n) for n in inventory.namespaces if n.bus == name]
        if dump is None:
            # ndctl makes the list of a kind with the first of it; ours are always there
            return {key: item for key, item in value.items() if item != []}
        return value

    if buses:
        children: list[Any] = [*inventory.dimms, *inventory.regions, *inventory.namespaces]
        names = (*(b.dev for b in inventory.buses), *(child.bus for child in children))
        if any(names) or not children:
            return [bus(name) for name in dict.fromkeys(names) if name is not None]
    kinds: dict[str, Sequence[Any]] = {}
    if dimms:
        kinds["dimms"] = [one(d) for d in inventory.dimms]
    if regions and (inventory.regions or not inventory.namespaces):
        kinds["regions"] = [region(r) for r in inventory.regions]
    elif namespaces:
        kinds["namespaces"] = [one(n) for n in inventory.namespaces]
    if len(kinds) > 1:
        return kinds
    return next(iter(kinds.values()), [dax_region(d) for d in inventory.dax_regions])


def _exports_target_node(inventory: Inventory, problems: Problems) -> bool:
    """
    Whether ndctl could print the target node of regions and namespaces on that kernel.

    Since Linux kernel commit 06e8ccdab15f ("libnvdimm: Export the target_node attribute for regions
    and namespaces") (in v5.5); the kernel knows it since v5.1.
    """
    objects = [region.object for region in inventory.regions]
    objects += [n.object for n in inventory.namespaces if n.object is not None]
    if not objects:
        return True
    names = problems.attempt(
        "attributes in sysfs", lambda: attribute_names(objects[0].dev.address_of_())
    )
    return names is None or "target_node" in names


def _bad_sectors(region: Region, problems: Problems) -> list[tuple[int, int]]:
    """(first, number of) bad 512-byte sectors of a region, from its first byte."""
    found = problems.attempt(f"{region.dev}: bad blocks", lambda: read_badblocks(region.object.bb))
    return [(start, count) for start, count, _ in found or []]


def _badblocks(
    region: Region, start: int, size: int, bad: list[tuple[int, int]], verbose: bool
) -> dict[str, Any]:
    """
    Bad sectors within a range, counted from its start (``dev_badblocks_to_json()`` of ndctl).

    :param start: Physical address.
    :param size: bytes
    """
    first = (start - region.resource) // 512
    end = first + size // 512
    blocks: list[dict[str, Any]] = []
    for begin, count in bad:
        low, high = max(begin, first), min(begin + count, end)
        if low < high:
            block: dict[str, Any] = {"offset": low - first, "length": high - low}
            # Which DIMM of an interleave set holds a block is known only to the platform.
            if region.mappings is not None and len(region.mappings) == 1:
                block["dimms"] = [region.mappings[0].dimm]
            blocks.append(block)
    if not blocks:
        return {}
    value: dict[str, Any] = {"badblock_count": sum(block["length"] for block in blocks)}
    return value | {"badblocks": blocks} if verbose else value


def _chardev_only(value: dict[str, Any]) -> dict[str, Any]:
    """Without ``-X`` a namespace shows the name of its character device, not its DAX region."""
    devices = value["daxregion"]["devices"]
    result: dict[str, Any] = {}
    for key, item in value.items():
        if key != "daxregion":
            result[key] = item
        elif len(devices) == 1:
            result["chardev"] = devices[0]["chardev"]
    return result

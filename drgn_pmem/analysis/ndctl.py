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

from drgn_pmem.analysis.inventory import Inventory

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
) -> Any:
    """
    The JSON value of ``ndctl list -BDRNX`` for those kinds.

    :param dump: Our own facts of a record; None leaves them out, as ``--ndctl``.
    """

    def one(record: Any) -> dict[str, Any]:
        value = record.to_json()
        if not verbose:
            value = {k: v for k, v in value.items() if k not in _VERBOSE_KEYS}
        if not dax and "daxregion" in value:
            value = _chardev_only(value)
        if dump is not None:
            value["dump"] = dump(record)
        return value

    def region(record: Any) -> dict[str, Any]:
        value = one(record)
        if not verbose:
            value.pop("target_node", None)
        if namespaces:
            children = [one(n) for n in inventory.namespaces if n.region == record.dev]
            if children:
                value["namespaces"] = children
        return value

    def bus(record: Any) -> dict[str, Any]:
        value = one(record)
        if dimms:
            value["dimms"] = [one(d) for d in inventory.dimms if d.bus == record.dev]
        if regions:
            value["regions"] = [region(r) for r in inventory.regions if r.bus == record.dev]
        elif namespaces:
            value["namespaces"] = [one(n) for n in inventory.namespaces if n.bus == record.dev]
        return value

    if buses:
        return [bus(b) for b in inventory.buses]
    kinds: dict[str, Sequence[Any]] = {}
    if dimms:
        kinds["dimms"] = [one(d) for d in inventory.dimms]
    if regions:
        kinds["regions"] = [region(r) for r in inventory.regions]
    elif namespaces:
        kinds["namespaces"] = [one(n) for n in inventory.namespaces]
    if len(kinds) > 1:
        return kinds
    return next(iter(kinds.values()), [d.to_json() for d in inventory.dax_regions])


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

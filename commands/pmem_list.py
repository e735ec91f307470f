# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``pmem-list``: what ``ndctl list`` would have printed."""

import argparse
from typing import Any

from drgn import Program

from drgn_pmem.commands.common import MOUNT_MODULES, media_fields, nothing, reasons
from drgn_pmem.output.table import Field
from drgn_pmem.record import Show
from drgn_pmem.spec import Answer, Argument, command

_STATES = {True: "enabled", False: "disabled", None: "not known"}

_BUS = (
    Field("BUS", lambda b: b.dev, "bus"),
    Field("PROVIDER", lambda b: b.provider, "provider: ACPI.NFIT, e820, ..."),
)
_DIMM = (
    Field("DIMM", lambda d: d.dev, "DIMM"),
    Field("ID", lambda d: d.id, "unique id"),
    Field("HANDLE", lambda d: d.handle, "NFIT device handle", right=True),
    Field("PHYS_ID", lambda d: d.phys_id, "SMBIOS handle", right=True),
    Field(
        "FLAGS", lambda d: "not known" if d.flags is None else d.flags, "failures, by ndctl's keys"
    ),
    Field("SHUTDOWN", lambda d: d.shutdown_state, "dirty, where the firmware said so at boot"),
    Field(
        "DIRTY_COUNT",
        lambda d: d.shutdown_count,
        "dirty shutdowns counted by the firmware",
        right=True,
    ),
    Field("STATE", lambda d: "enabled" if d.enabled else "disabled", "driver bound or not"),
)
_REGION = (
    Field("REGION", lambda r: r.dev, "region"),
    Field("SIZE", lambda r: r.size, "bytes", right=True, show=Show.SIZE),
    Field("AVAILABLE", lambda r: r.available_size, "free bytes", right=True, show=Show.SIZE),
    Field("ALIGN", lambda r: r.align, "alignment of its namespaces", right=True, show=Show.SIZE),
    Field("PHYSICAL", lambda r: f"{r.resource:#x}", "first byte", right=True),
    Field("NODE", lambda r: r.numa_node, "NUMA node", right=True),
    Field("DIMMS", lambda r: r.mappings and [m.dimm for m in r.mappings], "its DIMMs"),
    Field("PERSISTENCE", lambda r: r.persistence_domain, "persistence domain"),
)
_NAMESPACE = (
    Field("NAMESPACE", lambda n: n.dev, "namespace"),
    Field("MODE", lambda n: n.mode, "fsdax, devdax, sector, raw"),
    Field("MAP", lambda n: n.map, "map given to ndctl: dev (struct pages on pmem), mem (RAM)"),
    Field("SIZE", lambda n: n.size, "usable bytes", right=True, show=Show.SIZE),
    Field("DEVICE", lambda n: n.blockdev or n.chardev, "block or character device"),
    Field("NAME", lambda n: n.name, "given name", keep=1),
    Field("UUID", lambda n: n.uuid, "uuid"),
    Field("STATE", lambda n: _STATES[n.enabled], "driver bound or not", keep=1),
    Field("WHY", nothing, "why it is raw or disabled", shown=False),
)
_DAX = (
    Field("DAX", lambda d: d.chardev, "character device"),
    Field("MODE", lambda d: d.mode, "devdax, system-ram"),
    Field("SIZE", lambda d: d.size, "bytes", right=True, show=Show.SIZE),
    Field("ALIGN", lambda d: d.align, "alignment of mappings", right=True, show=Show.SIZE),
    Field("TARGET_NODE", lambda d: d.target_node, "NUMA node when onlined", right=True),
    Field("PHYSICAL", lambda d: [f"{r.start:#x}" for r in d.ranges], "first byte"),
    Field("STATE", lambda d: "enabled" if d.mode else "disabled", "driver bound or not"),
)


def _switch_on(args: argparse.Namespace) -> None:
    """What each -v switches on, as ndctl/list.c has it; namespaces if no kind was asked for."""
    args.namespaces |= args.verbose > 0
    args.device_dax |= args.verbose > 0
    args.buses |= args.verbose > 1
    args.dimms |= args.verbose > 1
    args.regions |= args.verbose > 1
    args.idle |= args.verbose > 2
    if not (args.buses or args.dimms or args.regions or args.namespaces or args.device_dax):
        args.namespaces = True


def _code(args: argparse.Namespace) -> str:
    _switch_on(args)
    chosen = {
        name: getattr(args, name)
        for name in ("bus", "region", "namespace", "dimm", "mode", "idle")
        if getattr(args, name)
    }
    kinds = {
        "buses": ("bus", "bus.dev, bus.provider"),
        "dimms": ("dimm", "dimm.dev, dimm.id, dimm.enabled"),
        "regions": ("region", "region.dev, region.size, region.resource"),
        "namespaces": ("namespace", "namespace.dev, namespace.mode, namespace.size"),
        "device_dax": ("region", "region.id, [device.chardev for device in region.devices]"),
    }
    selection = ", ".join(f"{name}={value!r}" for name, value in chosen.items())
    loops = "".join(
        f"for {name} in inventory.{'dax_regions' if kind == 'device_dax' else kind}:\n"
        f"    print({shown})\n"
        for kind, (name, shown) in kinds.items()
        if getattr(args, kind)
    )
    return (
        "from drgn_pmem import Selection, read_inventory\n\n"
        f"found = read_inventory(prog, Selection({selection}))\n"
        f"inventory = found.value\n{loops}"
        "print(*found.problems)\n"
    )


@command(
    name="pmem-list",
    description="list NVDIMM buses, DIMMs, regions, namespaces and DAX devices, as ndctl list",
    long_description=(
        "List what `ndctl list` and `daxctl list` printed on the machine before the crash.\n"
        "With --json the keys and values are theirs; additional facts are in an object `dump`."
    ),
    arguments=(
        Argument("-B", "--buses", action="store_true", help="buses"),
        Argument("-D", "--dimms", action="store_true", help="DIMMs"),
        Argument("-R", "--regions", action="store_true", help="regions"),
        Argument("-N", "--namespaces", action="store_true", help="namespaces (the default)"),
        Argument("-X", "--device-dax", action="store_true", help="DAX regions and devices"),
        Argument("-i", "--idle", action="store_true", help="also disabled and unused devices"),
        Argument(
            "-v",
            "--verbose",
            action="count",
            default=0,
            help="more: -v keys and DAX devices, -vv all kinds, -vvv idle ones",
        ),
        Argument("-u", "--human", action="store_true", help="human-readable sizes and ids"),
        Argument("-b", "--bus", kind="bus", metavar="BUS", help="only this bus"),
        Argument("-r", "--region", kind="region", metavar="REGION", help="only this region"),
        Argument(
            "-n", "--namespace", kind="namespace", metavar="NAMESPACE", help="only this namespace"
        ),
        Argument(
            "-d",
            "--dimm",
            kind="dimm",
            metavar="DIMM",
            help="only this DIMM, and the regions and namespaces on it",
        ),
        Argument(
            "-m",
            "--mode",
            choices=("fsdax", "devdax", "sector", "raw"),
            help="only namespaces of this mode",
        ),
        Argument("--ndctl", action="store_true", help="JSON with ndctl's own keys only"),
    ),
    fields=_NAMESPACE,
    examples=(
        ("pmem-list", "the namespaces"),
        ("pmem-list -BDRNX -u", "everything, with human-readable sizes"),
        ("pmem-list -BDRNX -vv --json --ndctl", "what `ndctl list -BDRNX -vv` printed"),
        ("pmem-list -N -r region0 -o namespace,size -s -size", "two columns, largest first"),
    ),
    code=_code,
    modules=MOUNT_MODULES
    | {
        "libnvdimm": "buses, DIMMs, regions, and of namespaces all but place and mode",
        "nfit": "handles and flags of DIMMs",
        "cxl_core": "what `cxl list` shows of memory devices and regions",
        "papr_scm": "flags of DIMMs (POWER)",
        "nd_pmem": "block devices of fsdax and raw namespaces",
        "dax": "DAX regions and devices",
    },
)
def pmem_list(prog: Program, args: argparse.Namespace) -> Answer:
    from drgn_pmem.analysis.inventory.cxl import cxl_facts
    from drgn_pmem.analysis.inventory.listing import Selection, placed, read_inventory
    from drgn_pmem.analysis.inventory.media import lost_memory, read_media
    from drgn_pmem.output.ndctl import nest
    from drgn_pmem.partial import Problems

    _switch_on(args)
    selection = Selection(
        bus=args.bus,
        region=args.region,
        namespace=args.namespace,
        dimm=args.dimm,
        mode=args.mode,
        idle=args.idle,
    )
    problems = Problems()
    inventory = problems.take(read_inventory(prog, selection))
    media: dict[str, Any] = {}
    lost: list[str] = []
    if args.namespaces and not args.ndctl:
        media = problems.take(read_media(prog))
        lost = problems.take(lost_memory(prog)) if args.namespace is None else []
    namespace_fields = media_fields(_NAMESPACE, lambda n: media.get(n.dev))
    dax_devices = [d for r in inventory.dax_regions for d in r.devices if args.idle or d.size]
    kinds = (
        (args.buses, inventory.buses, _BUS),
        (args.dimms, inventory.dimms, _DIMM),
        (args.regions, inventory.regions, _REGION),
        (args.namespaces, inventory.namespaces, namespace_fields),
        (args.device_dax, dax_devices, _DAX),
    )
    shown = [(records, fields) for wanted, records, fields in kinds if wanted]
    cxl = problems.take(cxl_facts(prog, inventory))
    nested = nest(
        placed(prog, inventory) if args.buses else inventory,
        buses=args.buses,
        dimms=args.dimms,
        regions=args.regions,
        namespaces=args.namespaces,
        dax=args.device_dax,
        verbose=args.verbose > 0,
        dump=None if args.ndctl else lambda record: _dump(record, media) | cxl(record),
        problems=problems,
    )
    return Answer(
        records=[record for records, _ in shown for record in records],
        notes=[
            *(reasons(inventory.namespaces, media) if args.idle else ()),
            *lost,
        ],
        problems=problems,
        sections=[("", records, fields) for records, fields in shown],
        json=nested,
    )


def _dump(record: Any, media: dict[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    if record.object is not None:
        value["address"] = f"{record.object.value_():#x}"
    from drgn_pmem.kernel.namespace import Namespace
    from drgn_pmem.kernel.region import Region

    if isinstance(record, Region):
        value["volatile"] = record.type == "volatile"
    own = media.get(record.dev) if isinstance(record, Namespace) else None
    return value | (own.to_json() if own is not None else {})

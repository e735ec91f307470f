# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Advice
------

What to change to get the struct pages of a namespace into the next dump, for the dump at hand: by
what is missing, how it was made and what that kernel can do.
"""

import shlex
from typing import TYPE_CHECKING

from drgn import FaultError, Program

from drgn_pmem.dumpfile import DumpFile, State, dump_of, vmcoreinfo_of
from drgn_pmem.errors import PmemError
from drgn_pmem.kernel.kmod import how_to_get_kernel
from drgn_pmem.kernel.nvdimm import for_each_bus
from drgn_pmem.kernel.walk import collect

if TYPE_CHECKING:
    from drgn_pmem.analysis.coverage.namespaces import NamespaceCoverage

__all__ = ("advise",)

_DRIVERS = {
    "ACPI.NFIT": "nfit",
    "CXL": "cxl_pmem",
    "e820": "nd_e820",
    "virtio-pmem": "virtio_pmem",
}
"""Provider of a bus -> the module that makes it."""


def advise(prog: Program, item: "NamespaceCoverage") -> str:
    """One or two sentences; what to do and what it costs."""
    dump = dump_of(prog)
    if item.kmem:
        return "nothing to change: it is dumped as RAM is"
    if item.location is None and not item.has_memmap:
        if item.mode in ("fsdax", "devdax"):
            return f"{_load_kernel(prog)} to learn where its struct pages are"
        return "nothing to change: a namespace without struct pages loses nothing"
    if item.destroyed:
        return _keep_drivers_out(prog)
    if not item.struct_pages:
        return f"{_load_kernel(prog)} to learn what of them the dump holds"
    if item.memmap_saved == item.memmap_size:
        return _all_there(dump, item)
    missing = {s: n for s, n in item.struct_pages.items() if s is not State.SAVED}
    if State.UNKNOWN in missing:
        why = item.pages.why_unknown if item.pages is not None else None
        return f"cannot be determined: where its struct pages are is not known ({why})"
    worst = max(missing, key=lambda state: missing[state])
    if worst is State.TRUNCATED:
        return (
            f"the dump was cut short: give its target {_lost(dump)} more room, or leave more out "
            "(makedumpfile -d 31, -c)"
        )
    if worst is State.EXCLUDED:
        return _excluded(dump)
    if worst is State.UNMAPPED:
        return "nothing to change: the kernel had no struct pages there, that part was not in use"
    return _absent(prog, dump, item)


def _load_kernel(prog: Program) -> str:
    return f"load the kernel's debug info ({how_to_get_kernel(prog)})"


def _all_there(dump: DumpFile, item: "NamespaceCoverage") -> str:
    saved = item.userdata.get(State.SAVED, 0)
    if not saved:
        return "nothing to change"
    line = f"nothing to change for the struct pages; {saved} bytes of user data are in the dump too"
    if dump.hypervisor:
        return f"{line}, as in every dump of a hypervisor"
    return f"{line}: a makedumpfile that knows PF_DEV leaves them out"


def _lost(dump: DumpFile) -> str:
    lost = dump.coverage.count().get(State.TRUNCATED, 0)
    return f"up to {lost} bytes" if lost else "some"


def _excluded(dump: DumpFile) -> str:
    level = dump.kdump.dump_level if dump.kdump is not None else None
    used = f" (-d {level})" if level is not None else ""
    return (
        f"makedumpfile left them out{used}: save the whole of /proc/vmcore (cp, or makedumpfile "
        "-d 0), or use a makedumpfile that knows PF_DEV and the devm_memmap_vmcore list, without "
        "dump level bit 0x20"
    )


def _absent(prog: Program, dump: DumpFile, item: "NamespaceCoverage") -> str:
    """No program header covers them."""
    ram = f"{item.memmap_size} bytes of RAM"
    name = shlex.quote(item.namespace or "")  # this is for copying
    remake = (
        f"make the namespace anew with ndctl create-namespace -f -e {name} --map=mem: "
        f"its struct pages then take {ram} and are in every dump (the data moves: restore it from "
        "a backup)"
    )
    if item.location == "mem":
        return (
            "its struct pages are in RAM that the crash header does not cover: load the capture "
            "kernel again after memory is added"
        )
    if dump.hypervisor:
        return "dump the guest with its NVDIMMs: virsh dump --memory-only"
    has_list = "devm_memmap_vmcore_head" in vmcoreinfo_of(prog).symbols
    if has_list and _loader(prog) == "kexec_load":
        return (
            "load the capture kernel with kexec_file_load (kexec -s -p): this kernel then puts "
            "pmem into the crash header; kexec-tools (kexec -c) needs the PF_DEV patch for it; "
            f"or {remake}"
        )
    if has_list:
        return (
            "this kernel keeps the list of struct pages, but the crash header has no pmem: check "
            f"that its kexec_file_load has the PF_DEV patch; or {remake}"
        )
    return (
        f"{_why_absent(prog, dump)}: {remake}; or run a kernel with the pmem memmap dump patches "
        "(PF_DEV), and save with cp or a makedumpfile that knows them, its dump level without bit "
        "0x20; or, if it is a guest, dump it from its hypervisor: virsh dump --memory-only"
    )


def _why_absent(prog: Program, dump: DumpFile) -> str:
    """What left pmem out of this very dump; what was done with /proc/vmcore is not to blame."""
    who = {
        "kexec_file_load": "the crash header, which the kernel wrote (kexec_file_load), names RAM",
        "kexec_load": "the crash header, which kexec-tools wrote (kexec_load), names RAM",
    }.get(_loader(prog) or "", "no released kernel or kexec-tools put pmem into the crash header")
    if "names RAM" in who:
        who += " only, as with every released kernel"
    if dump.kdump is not None:
        level = dump.kdump.dump_level
        used = f" (-d {level})" if level is not None else ""
        who += f"; no option of makedumpfile{used} brings back what /proc/vmcore did not have"
    return who


def _loader(prog: Program) -> str | None:
    from drgn_pmem.kernel.kexec import crash_image

    try:
        image = crash_image(prog)
    except (PmemError, FaultError):
        return None
    return image.loader.value if image else None


def _keep_drivers_out(prog: Program) -> str:
    try:
        buses, _ = collect(for_each_bus(prog))
    except PmemError:
        buses = []
    modules = sorted({_DRIVERS.get(bus.provider, "libnvdimm") for bus in buses} | {"nd_pmem"})
    listed = ",".join(modules)
    return (
        f"keep {', '.join(modules)} out of the capture kernel: add rd.driver.blacklist={listed} "
        f"modprobe.blacklist={listed} to its command line (if built in: "
        f"initcall_blacklist), and leave them out of its initramfs; i_pages in this dump still "
        "tells which file owns which page"
    )

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Advice
------

What to change to get the struct pages of a namespace into the next dump, for this dump: by
what is missing, how it was made and what that kernel can do. Where something is unknown, the advice
is never "no change needed".
"""

import enum
import shlex
from typing import TYPE_CHECKING

from drgn import Architecture, Program

from drgn_pmem.analysis.coverage.writer import fadump_area
from drgn_pmem.analysis.inventory.machine import read_machine
from drgn_pmem.dumpfile import DumpFile, DumpFormat, State, dump_of, vmcoreinfo_of
from drgn_pmem.kernel.iomem import PERSISTENT_MEMORY, for_each_iomem
from drgn_pmem.kernel.kexec import crash_image
from drgn_pmem.kernel.kmod import has_kernel_debug_info, how_to_get_kernel
from drgn_pmem.kernel.nvdimm import for_each_bus
from drgn_pmem.kernel.root import refuse_unfit
from drgn_pmem.partial import Problems
from drgn_pmem.ranges import short_size

if TYPE_CHECKING:
    from drgn_pmem.analysis.coverage.records import NamespaceCoverage

__all__ = ("Advice", "advise", "decide")

_DRIVERS = {
    "ACPI.NFIT": "nfit",
    "CXL": "cxl_pmem",
    "e820": "nd_e820",
    "ibm,persistent-memory": "papr_scm",
    "virtio-pmem": "virtio_pmem",
}
"""Provider of a bus -> the module that registers it."""


class Advice(enum.Enum):
    """What to do about the struct pages of a namespace."""

    LIKE_RAM = "no change needed: dumped like RAM"
    RAM_THAT_IS_MARKED = "used as RAM, and marked with PF_DEV"
    NO_MEMMAP = "no change needed: there is no memmap to lose"
    ALL_SAVED = "no change needed: all were saved"
    NOT_MAPPED = "no change needed: the kernel had none"
    UNKNOWN = "what is missing is not known"
    LOAD_KERNEL = "debug info of the kernel is missing"
    KEEP_DRIVERS_OUT = "the capture kernel overwrote them"
    MORE_ROOM = "the dump was cut short"
    COPY_AGAIN = "pages of the file are damaged: copy it again, and compare the checksums"
    SAVE_ALL = "makedumpfile left them out"
    RELOAD_CAPTURE_KERNEL = "RAM that the crash header does not cover"
    DUMP_NVDIMMS = "the hypervisor left them out"
    CXL_FROM_OUTSIDE = "the hypervisor never dumps CXL memory"
    KEXEC_FILE_LOAD = "kexec-tools wrote the crash header, without pmem"
    CHECK_KEXEC_FILE_LOAD = "the kernel wrote the crash header, without pmem"
    NO_RESOURCE = "the kernel's resources do not name it persistent"
    FADUMP = "a firmware-assisted dump never has pmem"
    OTHER_KERNEL = "no kernel like this one puts pmem into the crash header"


def decide(prog: Program, item: "NamespaceCoverage", problems: Problems) -> Advice:
    """
    What to do.

    :param problems: What could not be read is added here.
    """
    if item.kmem:
        return Advice.RAM_THAT_IS_MARKED if _marked(prog, item, problems) else Advice.LIKE_RAM
    if item.destroyed:
        return Advice.KEEP_DRIVERS_OUT
    if item.pages is not None and item.pages.unknown:
        return Advice.UNKNOWN
    if item.location is None and not item.has_memmap:
        if item.map is not None or item.mode in ("fsdax", "devdax"):
            return _not_located(prog)
        return Advice.UNKNOWN if item.mode is None else Advice.NO_MEMMAP
    if not item.struct_pages:
        return _not_located(prog)
    missing = {s: n for s, n in item.struct_pages.items() if s is not State.SAVED and n}
    if not missing:
        return Advice.ALL_SAVED
    lost = {s: n for s, n in missing.items() if s is not State.UNMAPPED}
    if not lost:
        return Advice.NOT_MAPPED
    worst = max(lost, key=lambda state: lost[state])
    if worst is State.TRUNCATED:
        return Advice.MORE_ROOM
    if worst is State.DAMAGED:
        return Advice.COPY_AGAIN
    if worst is State.EXCLUDED:
        return Advice.SAVE_ALL
    return _absent(prog, item, problems) if worst is State.ABSENT else Advice.UNKNOWN


def _not_located(prog: Program) -> Advice:
    """Where its struct pages are was not found out."""
    if not has_kernel_debug_info(prog) or refuse_unfit(prog) is not None:
        return Advice.LOAD_KERNEL
    return Advice.MORE_ROOM if dump_of(prog).truncated else Advice.UNKNOWN


def _absent(prog: Program, item: "NamespaceCoverage", problems: Problems) -> Advice:
    """No program header covers them."""
    if item.location == "mem":
        return Advice.RELOAD_CAPTURE_KERNEL
    if dump_of(prog).hypervisor:
        cxl = problems.take(read_machine(prog)).cxl
        behind = cxl.overlap(item.start, item.start + 1)
        return Advice.CXL_FROM_OUTSIDE if behind else Advice.DUMP_NVDIMMS
    if _is_fadump(prog, problems):
        return Advice.FADUMP
    if not _has_list(prog):
        return Advice.OTHER_KERNEL
    if not _is_resource(prog, item, problems):
        return Advice.NO_RESOURCE
    by_tools = _by_kernel(prog, problems) is False
    return Advice.KEXEC_FILE_LOAD if by_tools else Advice.CHECK_KEXEC_FILE_LOAD


def _is_resource(prog: Program, item: "NamespaceCoverage", problems: Problems) -> bool:
    """Whether a resource says that it is persistent memory, as far as is known: of_pmem and
    papr_scm add none."""
    resources = for_each_iomem(prog)
    found = problems.take(resources)
    marked = any(r.desc in PERSISTENT_MEMORY and item.start in r.range for r in found)
    return marked or not resources.complete


def advise(prog: Program, item: "NamespaceCoverage", problems: Problems) -> str:
    """
    One or two sentences: what to do and what it costs.

    :param problems: What could not be read is added here.
    """
    dump = dump_of(prog)
    advice = decide(prog, item, problems)
    if advice is Advice.RAM_THAT_IS_MARKED:
        return (
            "it was used as RAM, and the crash header marks it with PF_DEV, so a makedumpfile that "
            "knows PF_DEV leaves it out as user data of pmem: save it with cp, or with a "
            "makedumpfile that does not know PF_DEV"
        )
    if advice is Advice.UNKNOWN:
        why = item.pages.why_unknown if item.pages is not None else None
        return f"the location of its struct pages is unknown{f': {why}' if why else ''}"
    if advice is Advice.LOAD_KERNEL:
        unfit = refuse_unfit(prog)
        if unfit is not None:
            return f"the location of its struct pages is unknown: {unfit}"
        return f"load the kernel's debug info ({how_to_get_kernel(prog)}) to read its struct pages"
    if advice is Advice.KEEP_DRIVERS_OUT:
        return _keep_drivers_out(prog, problems)
    if advice is Advice.ALL_SAVED:
        return _all_saved(dump, item)
    if advice is Advice.MORE_ROOM:
        return (
            f"the dump was cut short: give its target {_lost(dump)} more space, or exclude more "
            "(makedumpfile -d 31, -c)"
        )
    if advice is Advice.SAVE_ALL:
        return _save_all(dump)
    if advice is Advice.NOT_MAPPED:
        return "no change needed: the kernel had no struct pages there, that part was not in use"
    if advice is Advice.RELOAD_CAPTURE_KERNEL:
        return (
            "its struct pages are in RAM that the crash header does not cover: load the capture "
            "kernel again after memory is added"
        )
    if advice is Advice.DUMP_NVDIMMS:
        return "dump the guest with its NVDIMMs: virsh dump --memory-only"
    if advice is Advice.CXL_FROM_OUTSIDE:
        return (
            "QEMU never dumps CXL memory, which is no RAM to it: read it from outside while the "
            f"guest runs (drgn-pmem --qemu); {_remake(item)}"
        )
    if advice is Advice.FADUMP:
        drivers = ", ".join(_drivers(prog, problems))
        return (
            "a firmware-assisted dump has RAM only, pmem never, and its capture kernel writes new "
            f"struct pages over those on the pmem (keep {drivers} out of it): dump the partition "
            f"from its hypervisor before it boots again; {_remake(item)}"
        )
    live = _LIVE if dump.contained is DumpFormat.LIVE else ""
    if advice in _PATCHED:
        return f"{live}{_PATCHED[advice]}; {_remake(item)}"
    if advice is Advice.OTHER_KERNEL:
        return f"{live}{_other_kernel(prog, dump, item, problems)}"
    return advice.value


_LIVE = (
    "/proc/kcore has no persistent memory (--live-pmem reads it where the kernel allows it); for a "
    "crash dump: "
)

_PATCHED = {
    Advice.KEXEC_FILE_LOAD: (
        "load the capture kernel with kexec_file_load (kexec -s -p): this kernel then puts pmem "
        "into the crash header; kexec-tools (kexec_load, kexec -c) needs the PF_DEV patch for it"
    ),
    Advice.CHECK_KEXEC_FILE_LOAD: (
        "this kernel keeps the list of struct pages, but the crash header has no pmem: check that "
        "its kexec_file_load has the PF_DEV patch"
    ),
    Advice.NO_RESOURCE: (
        'no resource of the kernel (/proc/iomem) is "Persistent Memory" there, as with of_pmem and '
        "papr_scm, and kexec_file_load looks for those: if it is a guest, dump it from its "
        "hypervisor (virsh dump --memory-only)"
    ),
}


def _marked(prog: Program, item: "NamespaceCoverage", problems: Problems) -> bool:
    """Whether the crash header has the namespace as persistent memory. A compressed dump does not
    keep the flags: then whether this kernel wrote the header, and marks it so."""
    segments = dump_of(prog).segments
    if not segments:
        return _has_list(prog) and _by_kernel(prog, problems) is not False
    return any(
        s.pmem
        and s.physical is not None
        and s.physical < (item.end or item.start + 1)
        and item.start < s.physical + s.memory_size
        for s in segments
    )


def _has_list(prog: Program) -> bool:
    return "devm_memmap_vmcore_head" in vmcoreinfo_of(prog).symbols


def _all_saved(dump: DumpFile, item: "NamespaceCoverage") -> str:
    saved = item.userdata.get(State.SAVED, 0)
    if not saved or dump.contained is DumpFormat.LIVE:
        known = not any(item.unknown.values())
        return "no change needed" if known else "no change needed for the struct pages"
    line = f"no change needed for the struct pages; {short_size(saved)} of user data was saved too"
    if dump.hypervisor:
        return f"{line}, as in every dump that a hypervisor makes"
    return f"{line}: a makedumpfile that knows PF_DEV leaves them out"


def _lost(dump: DumpFile) -> str:
    lost = dump.coverage.count().get(State.TRUNCATED, 0)
    return f"up to {short_size(lost)}" if lost else "some"


def _save_all(dump: DumpFile) -> str:
    level = dump.kdump.dump_level if dump.kdump is not None else None
    used = f" (-d {level})" if level is not None else ""
    return (
        f"makedumpfile left them out{used}: save the whole of /proc/vmcore (cp, or makedumpfile "
        "-d 0), or use a makedumpfile that knows PF_DEV and the devm_memmap_vmcore list, without "
        "dump level bit 0x20"
    )


def _remake(item: "NamespaceCoverage") -> str:
    """The last resort."""
    name = shlex.quote(item.namespace or "NAMESPACE")  # a command to copy
    return (
        "as a last resort, THIS DESTROYS THE DATA (restore it from a backup): ndctl "
        f"create-namespace -f -e {name} --map=mem; its struct pages then take "
        f"{short_size(item.memmap_size)} of RAM and are in every dump"
    )


def _other_kernel(
    prog: Program, dump: DumpFile, item: "NamespaceCoverage", problems: Problems
) -> str:
    return (
        f"{_why_absent(prog, dump, problems)}: run a kernel with the pmem memmap dump patches "
        "(PF_DEV), and save with cp or a makedumpfile that knows them, its dump level without bit "
        "0x20; or, if it is a guest, dump it from its hypervisor: virsh dump --memory-only; "
        f"{_remake(item)}"
    )


def _why_absent(prog: Program, dump: DumpFile, problems: Problems) -> str:
    """What left pmem out of this dump before makedumpfile read /proc/vmcore."""
    by_kernel = _by_kernel(prog, problems)
    if by_kernel is None:
        who = "no released kernel or kexec-tools put pmem into the crash header"
    else:
        loader = "kernel wrote (kexec_file_load)" if by_kernel else "kexec-tools wrote (kexec_load)"
        who = (
            f"the crash header, which {'the ' if by_kernel else ''}{loader}, names RAM only, as "
            "with every released kernel"
        )
    if dump.kdump is not None:
        level = dump.kdump.dump_level
        used = f" (-d {level})" if level is not None else ""
        who += f"; no option of makedumpfile{used} adds what /proc/vmcore did not have"
    return who


def _by_kernel(prog: Program, problems: Problems) -> bool | None:
    """Whether the kernel wrote the crash header (kexec_file_load), or kexec-tools did; None if no
    crash kernel was loaded, or that is not known."""
    image = problems.attempt("crash kernel", lambda: crash_image(prog))
    return None if image is None else image.file_mode


def _is_fadump(prog: Program, problems: Problems) -> bool:
    """Whether the firmware was to keep the dump, and no elfcorehdr of kexec made it."""
    if prog.platform is None or prog.platform.arch is not Architecture.PPC64:
        return False
    area = problems.attempt("firmware-assisted dump", lambda: fadump_area(prog))
    return area is not None


def _drivers(prog: Program, problems: Problems) -> list[str]:
    """Modules that bind the persistent memory of this machine."""
    providers = {bus.provider or "" for bus in problems.take(for_each_bus(prog))}
    # papr_scm has a bus for each DIMM: "ibm,persistent-memory:ibm,pmemory@44100000".
    found = {_DRIVERS.get(provider.partition(":")[0], "libnvdimm") for provider in providers}
    return sorted(found | {"nd_pmem"})


def _keep_drivers_out(prog: Program, problems: Problems) -> str:
    modules = _drivers(prog, problems)
    listed = ",".join(modules)
    return (
        f"keep {', '.join(modules)} out of the capture kernel: add rd.driver.blacklist={listed} "
        f"modprobe.blacklist={listed} to its command line (if built in: "
        "initcall_blacklist), and leave them out of its initramfs; i_pages in this dump still "
        "shows which file owns which page"
    )

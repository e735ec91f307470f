# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Persistent memory in Linux kernel crash dumps, on top of drgn.

In plain Python::

    import drgn_pmem

    prog = drgn_pmem.open("vmcore", ["vmlinux"])
    for namespace in drgn_pmem.for_each_namespace(prog):
        print(namespace.dev, namespace.mode, namespace.map)

At drgn's prompt, ``from drgn_pmem import *`` gives the walkers their short names.
"""

from collections.abc import Sequence
import importlib
from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drgn import Program

_PUBLIC = {
    "coverage_of": "dumpfile",
    "dump_of": "dumpfile",
    "find_namespace": "kernel.namespace",
    "find_pgmap": "kernel.pgmap",
    "for_each_bus": "kernel.nvdimm",
    "for_each_dax_device": "kernel.dax",
    "for_each_dax_region": "kernel.dax",
    "for_each_dimm": "kernel.nvdimm",
    "for_each_iomem": "kernel.iomem",
    "for_each_memmap_entry": "kernel.devm_memmap",
    "for_each_namespace": "kernel.namespace",
    "for_each_pgmap": "kernel.pgmap",
    "for_each_region": "kernel.region",
    "namespace_of_pfn": "kernel.namespace",
}
"""Public names and the modules that they come from on first use: drgn imports this package at every
start, and a start that uses no walker must not wait for them."""

__all__ = tuple(_PUBLIC)


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})


def open(
    path: "str | PathLike[str]",
    symbols: "Sequence[str | PathLike[str]]" = (),
    *,
    debug_directories: "Sequence[str | PathLike[str]]" = (),
    kernel_directories: "Sequence[str | PathLike[str]]" = (),
    vmcoreinfo: "str | PathLike[str] | None" = None,
    architecture: "str | None" = None,
) -> "Program":
    """
    Open a crash dump, with debug info, as ``drgn-pmem -c PATH -s SYMBOLS`` does.

    :param symbols: vmlinux and files of modules; without, debug info is searched as drgn does.
    :param debug_directories: Searched before the standard ones, as with ``--debug-directory``.
    :param kernel_directories: The same for the kernel and its modules, as ``--kernel-directory``.
    :param vmcoreinfo: File with vmcoreinfo text instead of the dump's.
    :param architecture: Name in :class:`drgn.Architecture`, if the file does not tell.
    :return: The program; also drgn's default one from now on.
    :raises PmemError: if the file is no dump, or debug info is of another build
    """
    from drgn_pmem.shell.target import open_path

    return open_path(
        path,
        symbols,
        debug_directories=debug_directories,
        kernel_directories=kernel_directories,
        vmcoreinfo=vmcoreinfo,
        architecture=architecture,
    )

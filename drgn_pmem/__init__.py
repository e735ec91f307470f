# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Persistent memory in Linux kernel crash dumps, on top of drgn.

In plain Python::

    import drgn_pmem

    prog = drgn_pmem.open("vmcore", ["vmlinux"])
    for namespace in drgn_pmem.for_each_namespace(prog):
        print(namespace.dev, namespace.mode, namespace.map)

At drgn's prompt, ``from drgn_pmem import *`` gives everything that the commands answer by its short
name.
"""

import importlib
from typing import Any

_GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "Opening a dump": {
        "session": ("open", "open_other"),
    },
    "What was there": {
        "kernel.nvdimm": ("for_each_bus", "for_each_dimm"),
        "kernel.region": ("for_each_region",),
        "analysis.inventory.names": ("find_namespace",),
        "kernel.namespace": ("for_each_namespace", "namespace_of_pfn"),
        "kernel.dax": ("for_each_dax_device", "for_each_dax_region"),
        "kernel.pgmap": ("find_pgmap", "for_each_pgmap"),
        "kernel.iomem": ("for_each_iomem",),
        "kernel.devm_memmap": ("for_each_memmap_entry",),
        "analysis.inventory.listing": ("Selection", "read_inventory"),
        "analysis.inventory.infoblocks": ("read_infoblocks",),
        "analysis.inventory.media": ("read_media",),
    },
    "What the dump holds of it": {
        "dumpfile": ("coverage_of", "dump_of"),
        "analysis.memmap.sources": ("read_memmaps",),
        "analysis.coverage.namespaces": ("read_namespace_coverage",),
        "analysis.coverage.segments": ("read_segments",),
        "analysis.coverage.usage": ("read_usage",),
    },
    "Pages, files and processes": {
        "kernel.page": ("read_page",),
        "analysis.pages.words": ("parse_page", "resolve_page"),
        "analysis.pages.one": ("read_pmem_page",),
        "analysis.pages.filter": ("Filter", "parse_flags", "parse_refcount"),
        "analysis.pages.states": ("read_page_report",),
        "analysis.pages.scan": ("scan_pages",),
        "analysis.owners.search": ("owners_of",),
        "analysis.owners.files": ("list_files", "pages_of_file"),
    },
    "What is wrong": {
        "analysis.findings.diagnose": ("diagnose", "findings"),
        "analysis.findings.crash": ("read_crash",),
        "analysis.findings.backtraces": ("read_backtraces",),
        "analysis.findings.loglines": ("read_log_lines",),
        "analysis.findings.poison": ("find_poison",),
        "analysis.findings.pins": ("find_pins",),
        "analysis.headers.compare": ("read_crash_headers",),
        "analysis.fadump.examine": ("read_fadump",),
        "analysis.fadump.stack": ("read_crashed_stack",),
        "commands.report": ("for_each_report_section",),
    },
    "Two dumps": {
        "analysis.changes.compare": ("diff_dumps",),
    },
    "A dump to hand on": {
        "analysis.trim.plan": ("TrimPlan", "plan_trim"),
        "commands.pmem_trim": ("trim",),
    },
    "What an answer may lack": {
        "partial": (
            "Cause",
            "Incomplete",
            "NotSaved",
            "Partial",
            "Problem",
            "Problems",
            "State",
            "WalkError",
        ),
    },
    "Errors": {
        "errors": (
            "DumpFileError",
            "FormatError",
            "MissingDebugInfo",
            "NotFound",
            "NotInKernel",
            "PmemError",
            "UsageError",
        ),
    },
}
"""Public names by subject and module, imported on first use: drgn imports this package at every
start, and a start that uses no name must not wait for them."""

_PUBLIC = {
    name: module
    for modules in _GROUPS.values()
    for module, names in modules.items()
    for name in names
}

__all__ = tuple(_PUBLIC)


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    except (ImportError, RuntimeError) as error:
        from drgn_pmem.errors import numpy_error

        line = numpy_error(error)
        if line is None:
            raise
        raise line from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

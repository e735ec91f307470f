# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Candidates
----------

Values from the dump for completion: namespaces, devices, files, PIDs, PFNs. They are read once, in
small steps while the shell is idle, on the main thread (drgn must not be used from two); answers of
commands add theirs. Completing a word only looks them up.
"""

from collections.abc import Iterator
import itertools
from typing import Any, TypeVar

from drgn import Program, SymbolKind

from drgn_pmem.output.text import escape
from drgn_pmem.partial import Partial, Problems
from drgn_pmem.shell.idle import Step
from drgn_pmem.spec import Answer

__all__ = ("Candidates",)

T = TypeVar("T")

_LIMIT = 5000
"""Maximum number of values of a kind."""

_SECTOR = 512

_POISONED, _PINNED, _OTHER = range(3)
"""In this order pages are offered."""

_ROOTS = (
    *("task_struct", "page", "pglist_data", "inode", "super_block", "vm_area_struct", "dentry"),
    *("nd_namespace_common", "nd_namespace_pmem", "nd_region", "nd_pfn", "nd_btt", "nvdimm_bus"),
    *("dax_device", "dev_dax", "dev_pagemap", "block_device", "gendisk", "kimage"),
    *("xfs_inode", "xfs_mount", "ext4_inode_info", "ext4_sb_info"),
)
"""Structures from whose members the names of others are learned."""

_RANKS = {"pmem-poison": _POISONED, "pmem-pins": _PINNED}
"""What kind of page the records of a command are."""


class Candidates:
    """Values by kind of argument, each with a description."""

    def __init__(self, prog: Program) -> None:
        self._prog = prog
        self._values: dict[str, dict[str, str]] = {}
        self._ranks: dict[str, int] = {}
        self._symbols: dict[str, str] | None = None
        self._page_shift = 0
        self._disks: list[tuple[int, int, str]] = []
        """Physical start and end of the data of each disk that has it in one piece; its name."""

    def get(self, kind: str) -> dict[str, str]:
        """Known values of a kind, with their descriptions; pages and sectors with those first that
        are poisoned, then pinned."""
        values = self._values.get(kind, {})
        if kind not in ("page", "sector"):
            return values
        order = sorted(values, key=lambda value: self._ranks.get(value, _OTHER))
        return {value: values[value] for value in order}

    def add(self, kind: str, value: Any, description: str = "") -> None:
        """Add a value, unless it has characters that cannot be typed or printed safely."""
        values = self._values.setdefault(kind, {})
        text = "" if value is None else str(value)
        if not text or escape(text) != text or len(values) >= _LIMIT:
            return
        if description or text not in values:
            values[text] = escape(description)

    def _add_page(self, pfn: int, description: str, rank: int) -> None:
        """A page, and the sector of a disk where it begins."""
        texts = [("page", hex(pfn))]
        physical = pfn << self._page_shift
        for start, end, disk in self._disks:
            if start <= physical < end:
                texts.append(("sector", f"{disk}:{(physical - start) // _SECTOR}"))
        for kind, text in texts:
            if rank <= self._ranks.get(text, _OTHER):
                self.add(kind, text, description)
                self._ranks[text] = rank

    def symbols(self) -> dict[str, str]:
        """The kernel's functions and variables, read when they are first asked for."""
        if self._symbols is None:
            self._symbols = {
                symbol.name: "function" if symbol.kind is SymbolKind.FUNC else "variable"
                for symbol in self._prog.symbols()
                if symbol.kind in (SymbolKind.FUNC, SymbolKind.OBJECT)
                and symbol.name.isidentifier()
            }
        return self._symbols

    def types(self) -> dict[str, str]:
        """Types that can be reached from those that are looked at most, by their C names."""
        return self.get("type")

    def steps(self) -> Iterator[Step]:
        """Sources of values, each an iterator whose items are small pieces of work."""
        yield Step("devices", self._devices)
        yield Step("dax devices", self._dax_devices)
        yield Step("files", self._files)
        yield Step("bad ranges", self._bad_ranges)
        yield Step("log", self._logged_failures)
        yield Step("types", self._types)

    def _found(self, entries: Partial[list[T]]) -> list[T]:
        """What could be read."""
        # not a problem: values to complete; commands report what is missing
        return Problems().take(entries)

    def learn(self, line: str, answer: Answer) -> None:
        """Add the values of the records of an answer."""
        for record in itertools.islice(answer.records, _LIMIT):
            pfn = getattr(record, "pfn", None)
            if isinstance(pfn, int):
                name = line.split()[0]
                self._add_page(pfn, f"from {name}", _RANKS.get(name, _OTHER))
            path = getattr(record, "path", None)
            if isinstance(path, str):
                self.add("path", path, "DAX file")
            for task in getattr(record, "mapped_by", None) or ():
                self._add_task(task)

    def _add_task(self, task: Any) -> None:
        tgid = getattr(task, "tgid", None)
        if isinstance(tgid, int):
            self.add("pid", str(tgid), getattr(task, "comm", ""))

    def _devices(self) -> Iterator[None]:
        from drgn_pmem.kernel.namespace import for_each_namespace
        from drgn_pmem.kernel.nvdimm import for_each_bus, for_each_dimm
        from drgn_pmem.kernel.page_layout import page_layout
        from drgn_pmem.kernel.region import for_each_region

        self._page_shift = page_layout(self._prog).page_shift
        for bus in self._found(for_each_bus(self._prog)):
            self.add("bus", bus.dev, bus.provider or "")
            yield
        for region in self._found(for_each_region(self._prog)):
            self.add("region", region.dev, f"{region.type}, {_size(region.size)}")
            yield
        for dimm in self._found(for_each_dimm(self._prog)):
            self.add("dimm", dimm.dev, dimm.id or "")
            yield
        for namespace in self._found(for_each_namespace(self._prog)):
            if namespace.enabled:
                what = ", ".join(
                    part
                    for part in (namespace.mode, _size(namespace.size or 0), namespace.name)
                    if part
                )
                self.add("namespace", namespace.dev, what)
                for kind, device in (
                    ("blockdev", namespace.blockdev),
                    ("daxdev", namespace.chardev),
                ):
                    self.add(kind, device, f"{namespace.dev}, {namespace.mode}")
                self._add_disk(namespace)
            yield

    def _add_disk(self, namespace: Any) -> None:
        # In sector mode a block is anywhere.
        if namespace.blockdev and namespace.mode in ("fsdax", "raw"):
            offset, size = namespace.data_offset, namespace.size
            if offset is not None and size is not None:
                start = namespace.resource + offset
                self._disks.append((start, start + size, namespace.blockdev))

    def _dax_devices(self) -> Iterator[None]:
        from drgn_pmem.kernel.dax import for_each_dax_device

        for device in self._found(for_each_dax_device(self._prog)):
            self.add("daxdev", device.chardev, f"{device.mode}, {_size(device.size)}")
            if device.mode == "devdax":
                self.add("path", f"/dev/{device.chardev}", f"device DAX, {_size(device.size)}")
            yield

    def _files(self) -> Iterator[None]:
        from drgn_pmem.kernel.daxfs import for_each_dax_inode, for_each_dax_super
        from drgn_pmem.kernel.paths import paths_of_inode
        from drgn_pmem.kernel.rmap import vmas_of_mapping
        from drgn_pmem.kernel.tasks import tasks_of
        from drgn_pmem.partial import Problems

        # Words to complete: what could not be read only shortens the list.
        problems = Problems()
        by_mm = problems.take(tasks_of(self._prog)).by_mm
        yield
        for super_ in problems.take(for_each_dax_super(self._prog)):
            inodes = for_each_dax_inode(self._prog, super_, problems)
            for inode in itertools.islice(inodes, _LIMIT):
                names = problems.take(paths_of_inode(self._prog, inode))
                if inode.mode & 0o170000 == 0o100000:
                    for path in names.paths:
                        self.add("path", path, f"{_size(inode.size)}, inode {inode.ino}")
                yield
                vmas = problems.take(vmas_of_mapping(self._prog, inode.mapping))
                for vma in vmas[:_LIMIT]:
                    for task in by_mm.get(vma.mm, ()):
                        self._add_task(task)
                    yield

    def _logged_failures(self) -> Iterator[None]:
        import re

        from drgn_pmem.kernel.kernellog import read_log_records

        records = read_log_records(self._prog)
        yield
        for record in records:
            match = re.search(rb"Memory failure: (0x[0-9a-f]+): ", record.text)
            if match:
                what = "poisoned: memory failure in the kernel's log"
                self._add_page(int(match[1], 16), what, _POISONED)
                yield

    def _bad_ranges(self) -> Iterator[None]:
        from drgn_pmem.kernel.badblocks import read_bad_ranges
        from drgn_pmem.kernel.page_layout import page_layout

        shift = page_layout(self._prog).page_shift
        for bad in self._found(read_bad_ranges(self._prog)):
            self._add_page(bad.start >> shift, f"poisoned: {bad.source or 'badblocks'}", _POISONED)
            yield

    def _types(self) -> Iterator[None]:
        from drgn_pmem.shell.typenames import reachable_types

        for name, size in reachable_types(self._prog, _ROOTS, _LIMIT):
            self.add("type", name, "" if size is None else f"{size} bytes")
            yield


def _size(size: float) -> str:
    """Short size, for a menu."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"

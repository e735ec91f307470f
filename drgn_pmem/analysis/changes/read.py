# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Reading the facts of a dump
---------------------------

Each kind as the command about it reads it: pmem-list, pmem-namespaces, pmem-coverage, pmem-poison,
pmem-pins, pmem-files.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from drgn import Program

from drgn_pmem.analysis.changes.facts import PERHAPS, UNKNOWN, DumpFacts, Facts, Item, Kind
from drgn_pmem.analysis.changes.identity import read_identity
from drgn_pmem.analysis.coverage.namespaces import read_namespace_coverage
from drgn_pmem.analysis.findings.pins import PinnedPage, find_pins
from drgn_pmem.analysis.findings.poison import PoisonedPage, find_poison
from drgn_pmem.analysis.inventory.listing import Inventory, read_inventory
from drgn_pmem.analysis.memmap.sources import read_memmaps
from drgn_pmem.analysis.owners.files import FileSummary, list_files
from drgn_pmem.analysis.owners.records import Owner
from drgn_pmem.dumpfile import State
from drgn_pmem.errors import NotFound
from drgn_pmem.kernel.devm_memmap import for_each_memmap_entry, judge_memmap_entries
from drgn_pmem.kernel.kmod import has_kernel_debug_info, how_to_get_kernel
from drgn_pmem.kernel.namespace import for_each_namespace
from drgn_pmem.kernel.tasks import Task
from drgn_pmem.partial import Cause, Partial, Problem, Problems

__all__ = ("read_facts",)


def read_facts(prog: Program, begin: Callable[[str], None]) -> Partial[DumpFacts]:
    """
    What a dump shows of the things that are compared. The problems of each kind are in its
    :class:`Facts`; those of the :class:`~drgn_pmem.partial.Partial` are about the machine. After
    Ctrl-C the kinds that were not read are unknown.

    :param begin: Called with the name of each kind before it is read.
    """
    reader = _Reader(prog)
    kinds: dict[Kind, Facts] = {}
    stopped: list[Problem] = []
    for kind, read in reader.kinds.items():
        if not stopped:
            begin(kind.value)
            kinds[kind] = _facts(kind, read)
            stopped = [p for p in kinds[kind].problems if p.cause is Cause.INTERRUPTED]
        else:
            kinds[kind] = Facts(kind=kind, items=(), problems=tuple(stopped))
    problems = Problems()
    inventory = reader.inventory
    if not has_kernel_debug_info(prog):
        kinds = {
            kind: replace(facts, problems=_once(facts.problems, prog))
            for kind, facts in kinds.items()
        }
    identity = problems.take(
        read_identity(
            prog,
            [dimm.id for dimm in inventory.dimms if dimm.id] if inventory else (),
            reader.uuids.values(),
        )
    )
    found = problems.partial(DumpFacts(identity=identity, kinds=kinds))
    if has_kernel_debug_info(prog):
        return found
    return Partial(problems.take(found), _once(problems, prog))


def _once(problems: Iterable[Problem], prog: Program) -> tuple[Problem, ...]:
    """One problem for all that debug info of the kernel is missing for."""
    missing = Problem(
        cause=Cause.NO_DEBUG_INFO,
        why=f"no debug info of the kernel: {how_to_get_kernel(prog)}",
        module="vmlinux",
    )
    found = (missing if problem.module == "vmlinux" else problem for problem in problems)
    return tuple(dict.fromkeys(found))


def _facts(kind: Kind, read: "Callable[[Problems], list[Item]]") -> Facts:
    problems = Problems()
    items: list[Item] = []
    absent = None
    try:
        items = problems.attempt("", lambda: _found(read, problems)) or []
    except _Absent as error:
        absent = str(error)
    except KeyboardInterrupt as error:
        problems.add(error, kind.value)
    # What is None where not all could be read may be unknown as well as none.
    if problems:
        items = [replace(item, values=_doubted(item.values)) for item in items]
    return Facts(kind=kind, items=tuple(items), problems=tuple(problems), absent=absent)


class _Absent(Exception):
    """This kernel had none of a kind."""


def _found(read: "Callable[[Problems], list[Item]]", problems: Problems) -> list[Item]:
    try:
        return read(problems)
    except NotFound as error:
        raise _Absent(str(error)) from None


def _doubted(values: dict[str, Any]) -> dict[str, Any]:
    return {name: PERHAPS if value in (None, ()) else value for name, value in values.items()}


def _text(*parts: Any) -> str:
    """Parts of a summary, without those that are empty."""
    return ", ".join(str(part) for part in parts if part not in (None, "", (), UNKNOWN))


def _states(states: dict[State, int]) -> str | None:
    """``"saved 4096, absent 8192"`` (bytes)"""
    parts = [f"{state.value} {states[state]}" for state in State if states.get(state)]
    return ", ".join(parts) or None


def _people(tasks: Iterable[Task]) -> tuple[str, ...]:
    """``"399/lab-victim"`` of each process, once."""
    return tuple(sorted({f"{task.tgid}/{task.comm}" for task in tasks}))


class _Reader:
    """Reads each kind; names what they are about by uuid where there is one."""

    def __init__(self, prog: Program) -> None:
        self.prog = prog
        self.inventory: Inventory | None = None
        self.uuids: dict[str, str] = {}
        """Name of a namespace -> its uuid."""
        self.devices: dict[str, str] = {}
        """Name of a block device or DAX device -> the namespace."""
        self.kinds: dict[Kind, Callable[[Problems], list[Item]]] = {
            Kind.DIMM: self._dimms,
            Kind.REGION: self._regions,
            Kind.NAMESPACE: self._namespaces,
            Kind.ENTRY: self._entries,
            Kind.COVERAGE: self._coverage,
            Kind.POISON: self._poison,
            Kind.PIN: self._pins,
            Kind.FILE: self._files,
        }

    def _all(self, problems: Problems) -> Inventory:
        self.inventory = problems.take(read_inventory(self.prog))
        return self.inventory

    def _same(self, name: str | None) -> str | None:
        """What is the same in every dump of a namespace: its uuid, else its name."""
        return None if name is None else self.uuids.get(name, name)

    def _dimms(self, problems: Problems) -> list[Item]:
        return [
            Item(
                name=dimm.dev,
                key=dimm.id,
                place=dimm.dev,
                values={
                    "name": dimm.dev,
                    "id": dimm.id,
                    "flags": dimm.flags,
                    "shutdown state": dimm.shutdown_state,
                    "shutdown count": dimm.shutdown_count,
                    "enabled": dimm.enabled,
                    "security": dimm.security,
                    "frozen": dimm.frozen,
                },
                summary=_text(dimm.id, dimm.flags and " ".join(dimm.flags)),
            )
            for dimm in self._all(problems).dimms
        ]

    def _regions(self, problems: Problems) -> list[Item]:
        return [
            Item(
                name=region.dev,
                key=f"{region.resource:#x}" if region.resource else None,
                place=region.dev,
                values={
                    "name": region.dev,
                    "resource": f"{region.resource:#x}",
                    "size": region.size,
                    "available": region.available_size,
                    "type": region.type,
                    "interleave set": region.iset_id,
                    "persistence": region.persistence_domain,
                    "enabled": region.enabled,
                    "DIMMs": None
                    if region.mappings is None
                    else tuple(mapping.dimm for mapping in region.mappings),
                },
                summary=_text(region.type, f"{region.size} bytes at {region.resource:#x}"),
            )
            for region in self._all(problems).regions
        ]

    def _namespaces(self, problems: Problems) -> list[Item]:
        namespaces = [n for n in self._all(problems).namespaces if not n.seed]
        for namespace in namespaces:
            if namespace.uuid:
                self.uuids[namespace.dev] = namespace.uuid
            for device in (namespace.blockdev, namespace.chardev):
                if device:
                    self.devices[device] = namespace.dev
        memmaps = {m.namespace.dev: m for m in problems.take(read_memmaps(self.prog)).memmaps}
        items = []
        for n in namespaces:
            memmap = memmaps.get(n.dev)
            items.append(
                Item(
                    name=n.dev,
                    key=n.uuid,
                    place=f"{n.dev} at {n.resource:#x}",
                    values={
                        "name": n.dev,
                        "uuid": n.uuid,
                        "given name": n.name,
                        "mode": n.mode,
                        "map": n.map,
                        "size": n.size,
                        "raw size": n.raw_size,
                        "resource": f"{n.resource:#x}",
                        "data offset": n.data_offset,
                        "sector size": n.sector_size,
                        "align": n.align,
                        "device": n.blockdev or n.chardev,
                        "enabled": n.enabled,
                        "numa node": n.numa_node,
                        "memmap": memmap and memmap.place,
                    },
                    summary=_text(n.mode, f"{n.raw_size} bytes at {n.resource:#x}", n.uuid),
                )
            )
        return items

    def _entries(self, problems: Problems) -> list[Item]:
        entries = problems.take(for_each_memmap_entry(self.prog))
        shift = int(self.prog["PAGE_SHIFT"])
        namespaces = for_each_namespace(self.prog)
        judged = judge_memmap_entries(entries, namespaces, shift)
        # The list is whole all the same: only which namespace an entry belongs to is not known.
        lacks = next((f"its namespace is not known: {p}" for p in namespaces.problems), None)
        return [
            Item(
                name=f"PFN {entry.start_pfn:#x}",
                key=f"{entry.start_pfn:#x} {number}",
                number=None,
                values={
                    "end": f"PFN {entry.end_pfn:#x}",
                    "state": UNKNOWN if entry.state == "unknown" else entry.state,
                    "namespace": UNKNOWN if lacks and entry.namespace is None else entry.namespace,
                    "reason": UNKNOWN if entry.state == "unknown" else entry.reason,
                },
                summary=_text(f"to PFN {entry.end_pfn:#x}", entry.state, entry.namespace),
                why=lacks if entry.namespace is None else None,
            )
            for entry, number in _numbered(judged, lambda entry: entry.start_pfn)
        ]

    def _coverage(self, problems: Problems) -> list[Item]:
        items = []
        for item in problems.take(read_namespace_coverage(self.prog)).namespaces:
            undivided = bool(item.unknown)
            state: Any = None
            if item.memmap_saved:
                state = "intact" if item.intact else UNKNOWN
            if item.destroyed:
                state = "initialised again after the crash"
            items.append(
                Item(
                    name=item.namespace or f"{item.start:#x}",
                    key=self._same(item.namespace) or f"{item.start:#x}",
                    # Without debug info the namespaces of a dump have no names.
                    place=f"at {item.start:#x}",
                    # Known by its info block alone, it may have been disabled: not one of these.
                    certain=item.namespace is not None,
                    values={
                        "info block": UNKNOWN if undivided else _states(item.infoblock),
                        "metadata": UNKNOWN if undivided else _states(item.metadata),
                        "user data": UNKNOWN if undivided else _states(item.userdata),
                        "struct pages": _states(item.struct_pages)
                        if item.memmap_known
                        else UNKNOWN,
                        "memmap state": state,
                    },
                    summary=_text(
                        item.metadata and f"metadata {_states(item.metadata)}",
                        item.userdata and f"user data {_states(item.userdata)}",
                    ),
                )
            )
        return items

    def _poison(self, problems: Problems) -> list[Item]:
        return [self._bad(page) for page in problems.take(find_poison(self.prog)).pages]

    def _bad(self, page: PoisonedPage) -> Item:
        sources = tuple(sorted({s for s in page.sources if s != "HWPoison"}))
        files = _files(page.owners.owners, page.owners.unowned)
        marked = page.owners.page.hwpoison if page.owners.trusted else None
        return Item(
            name=f"PFN {page.pfn:#x}",
            key=f"{page.pfn:#x}",
            number=page.pfn,
            values={
                "sources": sources,
                "HWPoison": UNKNOWN if marked is None else marked,
                "place": page.place.value,
                "files": files,
            },
            summary=_text(" ".join(page.sources), page.place.value, *_listed(files)),
        )

    def _pins(self, problems: Problems) -> list[Item]:
        return [self._pinned(page) for page in problems.take(find_pins(self.prog)).pages]

    def _pinned(self, page: PinnedPage) -> Item:
        files = _files(page.owners.owners, page.owners.unowned)
        pins = page.count("pins")
        held = tuple(sorted({f"{h.process} {h.kind.value}".strip() for h in page.holders}))
        return Item(
            name=f"PFN {page.pfn:#x}",
            key=f"{page.pfn:#x}",
            number=page.pfn,
            values={
                "pins": UNKNOWN if pins is None else pins,
                "files": files,
                "held by": held,
                "waited by": _people(waiter.task for waiter in page.waiters),
            },
            summary=_text(None if pins is None else f"pins {pins}", *_listed(files), *held),
        )

    def _files(self, problems: Problems) -> list[Item]:
        found = problems.take(list_files(self.prog))
        return [
            self._file(file, number)
            for file, number in _numbered(found, lambda file: (file.device, file.inode))
        ]

    def _file(self, file: FileSummary, number: int) -> Item:
        # Whether it is deleted is a value of its own, known or not.
        name = file.paths[0] if file.paths else f"inode {file.inode} of {file.device}"
        # The number of a device node is one of /dev, which is made anew at every boot.
        node = not file.device.startswith("dax")
        where = self._same(self.devices.get(file.device)) or file.device
        return Item(
            name=name,
            key=f"{where} {file.inode if node else ''} {number}",
            place=f"{file.device} {name}" if file.paths else None,
            # Without pages and mappings it would not be listed.
            certain=file.pages is not None or bool(file.mapped_by) or not node,
            values={
                "path": file.paths,
                "deleted": file.deleted,
                "size": file.size,
                "pages": file.pages,
                "huge": file.huge,
                "dirty": file.dirty,
                "towrite": file.towrite,
                "locked": file.locked,
                "shared": file.shared,
                "copies": file.copies,
                "mapped by": _people(file.mapped_by),
                "open by": _people(opened.task for opened in file.open_by),
            },
            summary=_text(
                file.device,
                "deleted" if file.deleted else None,
                None if file.pages is None else f"pages {file.pages}",
            ),
        )


def _numbered(items: Sequence[Any], key: Callable[[Any], Any]) -> Iterable[tuple[Any, int]]:
    """Items with their number among those of the same key: two of a key stay two."""
    seen: dict[Any, int] = {}
    for item in items:
        number = seen[key(item)] = seen.get(key(item), -1) + 1
        yield item, number


def _files(owners: Sequence[Owner], unowned: bool | None) -> Any:
    """Names of a page's files."""
    if not owners and unowned is None:
        return UNKNOWN
    return tuple(sorted({o.name or f"inode {o.inode} of {o.device}" for o in owners}))


def _listed(value: Any) -> Sequence[str]:
    return value if isinstance(value, tuple) else ()

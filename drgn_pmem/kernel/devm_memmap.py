# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
devm_memmap_vmcore
------------------

The list of pmem ranges that hold struct pages ("[RFC PATCH v2 0/3] pmem memmap dump support",
2023): a kernel that has it exports it in vmcoreinfo, so it can be walked with debug info and, from
five vmcoreinfo lines, with none::

    struct devm_memmap_vmcore {
        struct list_head entry;
        unsigned long start;   /* first PFN */
        unsigned long end;     /* end PFN, exclusive */
        void *match;           /* the struct nd_namespace_common; not in vmcoreinfo */
    };

The kernel adds an entry when it sets a namespace up and seldom removes one, so an entry may be
stale.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from drgn import FaultError, PlatformFlags, Program
from drgn.helpers.linux.list import list_for_each_entry

from drgn_pmem.dumpfile.faults import guard_reads
from drgn_pmem.dumpfile.vmcoreinfo import Vmcoreinfo, vmcoreinfo_of
from drgn_pmem.errors import MissingDebugInfo, NotFound
from drgn_pmem.kernel.debuginfo import has_member, has_type, has_variable
from drgn_pmem.kernel.namespace import Namespace
from drgn_pmem.kernel.walk import bounded
from drgn_pmem.partial import NotSaved, Partial, Problems, WalkError
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "MemmapEntry",
    "for_each_memmap_entry",
    "for_each_memmap_entry_vmcoreinfo",
    "judge_memmap_entries",
)

_HEAD = "devm_memmap_vmcore_head"
_STRUCT = "devm_memmap_vmcore"
_LIMIT = 1 << 16
_SUBSECTION = 2 << 20
"""bytes; SUBSECTION_SIZE of include/linux/mmzone.h"""


class MemmapEntry(Record):
    """``struct devm_memmap_vmcore``."""

    address: int = shown(Show.ADDRESS)
    start_pfn: int
    end_pfn: int
    """Exclusive."""
    match: int | None = shown(Show.ADDRESS, json=False)
    """Address of the namespace that it belongs to; None if read without debug info."""
    state: str = "unknown"
    """``"live"``, ``"stale"``, ``"overlapping"``, ``"duplicate"`` or ``"unknown"`` (not judged)."""
    reason: str | None = shown(optional=True, default=None)
    """Why it is not live, in words."""
    namespace: str | None = None


def for_each_memmap_entry(prog: Program) -> Partial[list[MemmapEntry]]:
    """
    Entries of the list, newest or oldest first as the kernel links them; by debug info where it is
    loaded, else by vmcoreinfo.

    :raises NotFound: if the kernel does not have the list
    """
    guard_reads(prog)
    if not has_variable(prog, _HEAD) or not has_type(prog, f"struct {_STRUCT}"):
        return for_each_memmap_entry_vmcoreinfo(prog)
    problems = Problems()
    return problems.partial(problems.collect(_walk_typed(prog)))


def _walk_typed(prog: Program) -> Iterator[MemmapEntry]:
    head = prog[_HEAD]
    # The RFC's head is a whole struct devm_memmap_vmcore, other versions have a plain list_head.
    head = head.entry if has_member(head, "entry") else head
    for entry in bounded(
        list_for_each_entry(f"struct {_STRUCT}", head.address_of_(), "entry"), _HEAD, limit=_LIMIT
    ):
        yield _checked(
            MemmapEntry(
                address=entry.value_(),
                start_pfn=entry.start.value_(),
                end_pfn=entry.end.value_(),
                match=entry.match.value_(),
            )
        )


def _checked(entry: MemmapEntry) -> MemmapEntry:
    if entry.start_pfn >= entry.end_pfn or entry.end_pfn >> 52:
        reason = f"PFNs {entry.start_pfn:#x} to {entry.end_pfn:#x} are not a range"
        return replace(entry, state="stale", reason=reason)
    return entry


def for_each_memmap_entry_vmcoreinfo(prog: Program) -> Partial[list[MemmapEntry]]:
    """
    The same without debug info, from the five lines in vmcoreinfo.

    :raises NotFound: if vmcoreinfo does not have them: the kernel does not have the list
    """
    guard_reads(prog)
    problems = Problems()
    info = vmcoreinfo_of(prog)
    if info == Vmcoreinfo():
        problems.add(MissingDebugInfo("the dump has no vmcoreinfo", "vmlinux"), _HEAD)
        return problems.partial([])
    head = info.symbols.get(_HEAD)
    if head is None:
        raise NotFound(
            "this kernel keeps no devm_memmap_vmcore list (vmcoreinfo has no "
            f"SYMBOL({_HEAD}); no released kernel does)"
        )
    return problems.partial(problems.collect(_walk_raw(prog, info, head)))


def _offset(info: Vmcoreinfo, member: str) -> int:
    try:
        return info.offsets[f"{_STRUCT}.{member}"]
    except KeyError:
        raise MissingDebugInfo(
            f"vmcoreinfo has SYMBOL({_HEAD}) but no OFFSET({_STRUCT}.{member}): "
            "the list cannot be read without debug info",
            "vmlinux",
        ) from None


def _walk_raw(prog: Program, info: Vmcoreinfo, symbol: int) -> Iterator[MemmapEntry]:
    entry, start, end = (_offset(info, member) for member in ("entry", "start", "end"))
    head = _head_address(prog, symbol, entry)
    count = 0
    seen: set[int] = set()
    node = head
    try:
        while (node := prog.read_word(node)) != head:
            address = node - entry
            if node in seen:
                raise WalkError(
                    f"{_HEAD}: stopped after {count} entries: the list is cyclic at {address:#x}"
                )
            if count >= _LIMIT:
                raise WalkError(
                    f"{_HEAD}: stopped after {_LIMIT} entries: too many to be plausible"
                )
            seen.add(node)
            record = MemmapEntry(
                address=address,
                start_pfn=prog.read_word(address + start),
                end_pfn=prog.read_word(address + end),
                match=None,
            )
            count += 1
            yield _checked(record)
    except FaultError as error:
        raise NotSaved(
            f"{_HEAD}: stopped after {count} entries: {error}", address=error.address
        ) from None


def _head_address(prog: Program, symbol: int, entry_offset: int) -> int:
    """Where the list begins: at the symbol, or at the entry of a whole struct at the symbol."""
    if not entry_offset:
        return symbol
    fault: FaultError | None = None
    for head in (symbol + entry_offset, symbol):
        try:
            # A list's first node points back to its head: list_head.prev follows list_head.next.
            if prog.read_word(prog.read_word(head) + _word_size(prog)) == head:
                return head
        except FaultError as error:
            fault = fault or error
    if fault is not None:
        raise NotSaved(f"{_HEAD}: {fault}", address=fault.address)
    raise WalkError(f"{_HEAD}: the first entry does not point back to the head of the list")


def _word_size(prog: Program) -> int:
    platform = prog.platform
    return 8 if platform is None or platform.flags & PlatformFlags.IS_64_BIT else 4


def judge_memmap_entries(
    entries: Sequence[MemmapEntry], namespaces: Partial[Sequence[Namespace]], page_shift: int
) -> list[MemmapEntry]:
    """
    Which entries are live, and why the others are not.

    :param namespaces: All; an entry of none of them is stale only if they are complete.

    An entry is live if its namespace is enabled, keeps its struct pages on pmem and starts where
    the entry says. Entries with one ``match`` twice, or that overlap, mean corruption: the kernel
    replaces the entry of a namespace.
    """
    return [_judge(i, entries, namespaces, page_shift) for i in range(len(entries))]


def _judge(
    index: int,
    entries: Sequence[MemmapEntry],
    namespaces: Partial[Sequence[Namespace]],
    page_shift: int,
) -> MemmapEntry:
    entry = entries[index]
    others = [other for i, other in enumerate(entries) if i != index]
    # not a problem: the verdict says that the namespace was not found
    namespace = _namespace_of(entry, Problems().take(namespaces), page_shift)
    name = namespace.dev if namespace else None

    def verdict(state: str, reason: str | None = None) -> MemmapEntry:
        return replace(entry, state=state, reason=reason, namespace=name)

    if entry.state != "unknown":
        return verdict(entry.state, entry.reason)
    if any(other.match is not None and other.match == entry.match for other in others):
        return verdict("duplicate", "two entries belong to one namespace")
    for other in others:
        if other.start_pfn < entry.end_pfn and entry.start_pfn < other.end_pfn:
            return verdict("overlapping", f"overlaps the entry at {other.address:#x}")
    if namespace is None:
        if not namespaces.complete:
            return verdict("unknown", "not all namespaces could be read")
        return verdict("stale", "its namespace is gone")
    if namespace.idle:
        return verdict("stale", f"{name} is disabled")
    if namespace.enabled is None or namespace.mode is None:
        return verdict("unknown", f"{name}: what claims it could not be read")
    if namespace.map != "dev":
        kept = "its struct pages in RAM" if namespace.map == "mem" else "no struct pages"
        return verdict("stale", f"{name} is {namespace.mode} now and has {kept}")
    start = (namespace.resource >> page_shift) << page_shift
    pad = _start_pad(namespace)
    if namespace.data_offset is None or pad is None:
        return verdict("unknown", f"{name}: its info block could not be read")
    begins = {start >> page_shift, start // _SUBSECTION * _SUBSECTION >> page_shift}
    begins |= {(b + (pad >> page_shift)) for b in begins}
    if entry.start_pfn not in begins:
        return verdict("stale", f"{name} starts at PFN {start >> page_shift:#x} now")
    pages = (namespace.data_offset - pad) >> page_shift
    if entry.end_pfn - entry.start_pfn != pages:
        return verdict("stale", f"{name} has {pages:#x} pages of metadata now")
    return verdict("live")


def _start_pad(namespace: Namespace) -> int | None:
    """bytes; None if the dump does not hold it."""
    claim = namespace.claim_object
    # not a problem: the namespace has one that says so
    return Problems().attempt(
        "", lambda: int(claim.pfn_sb.start_pad) if claim is not None and claim.pfn_sb else 0
    )


def _namespace_of(
    entry: MemmapEntry, namespaces: Sequence[Namespace], page_shift: int
) -> Namespace | None:
    if entry.match is not None:
        return next(
            (n for n in namespaces if n.object is not None and n.object.value_() == entry.match),
            None,
        )
    address = entry.start_pfn << page_shift
    return next((n for n in namespaces if n.raw_size and address in n.range), None)

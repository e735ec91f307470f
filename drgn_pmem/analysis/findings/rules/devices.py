# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rules about DIMMs, namespaces, DAX devices, and what is written on the media about them."""

from collections.abc import Iterable

from drgn_pmem.analysis.findings.case import Case, rule
from drgn_pmem.analysis.findings.model import Heading, Severity
from drgn_pmem.analysis.findings.words import few, plural, short_size
from drgn_pmem.analysis.inventory.media import lost_memory
from drgn_pmem.formats.btt import BttArena, BttArenaPlace
from drgn_pmem.formats.label import CxlRegionLabel
from drgn_pmem.kernel.namespace import NIL_UUID, Namespace
from drgn_pmem.partial import Cause, Problem

__all__ = ("namespace_counts",)

_FLAGS = {
    "flag_failed_map": "its memory could not be mapped",
    "flag_failed_save": "save failed: the last shutdown lost data",
    "flag_failed_arm": "not armed: a power loss now loses data",
    "flag_failed_restore": "restore failed",
    "flag_failed_flush": "flush failed: the last shutdown lost data",
    "flag_smart_event": "its health changed (SMART event)",
}

_CLAIMS = {"pfn": "fsdax", "dax": "devdax", "btt": "sector", "btt2": "sector"}
"""Class of a label -> the mode that it is for."""


def _each(case: Case) -> Iterable[Namespace]:
    """Namespaces with capacity."""
    return [n for n in case.take(case.facts.inventory).namespaces if n.raw_size > 0]


@rule("dimm-failed", Heading.ODD, "failures of DIMMs", "pmem-list -D")
def dimm_failed(case: Case) -> None:
    """What the NFIT and the firmware say: not armed, save failed, dirty shutdown."""
    dimms = case.take(case.facts.inventory).dimms
    unknown = [dimm.dev for dimm in dimms if dimm.flags is None]
    if unknown and not case.problems:
        why = "what the firmware says of it is not known: no debug info of nfit or papr_scm"
        case.problems.add(Problem(cause=Cause.NO_DEBUG_INFO, why=why), few(unknown))
    for dimm in dimms:
        said = [_FLAGS.get(flag, flag) for flag in dimm.flags or ()]
        if dimm.shutdown_state == "dirty":
            count = "" if dimm.shutdown_count is None else f" ({dimm.shutdown_count} in all)"
            said.append(f"its last shutdown was dirty{count}")
        if said:
            smart_only = dimm.flags == ("flag_smart_event",) and dimm.shutdown_state != "dirty"
            case.found(
                Severity.WARNING if smart_only else Severity.CRITICAL,
                dimm.dev,
                "; ".join(said),
                evidence=[f"flags: {', '.join(dimm.flags or ())}"],
                do=f"check the data of the regions of {dimm.dev} before it is used",
            )


@rule("dimm-disabled", Heading.ODD, "disabled DIMMs", "pmem-list -Di")
def dimm_disabled(case: Case) -> None:
    """DIMMs without a driver: their label areas were not read."""
    for dimm in case.take(case.facts.inventory).dimms:
        if not dimm.enabled:
            case.found(Severity.WARNING, dimm.dev, "disabled: no driver is bound")


@rule("region-disabled", Heading.ODD, "disabled regions", "pmem-list -Ri")
def region_disabled(case: Case) -> None:
    """Regions without a driver: none of their namespaces exists."""
    for region in case.take(case.facts.inventory).regions:
        if not region.enabled:
            size = short_size(region.size)
            case.found(Severity.WARNING, region.dev, f"disabled: no driver is bound ({size})")


@rule("namespace-disabled", Heading.ODD, "disabled namespaces", "pmem-list -Ni")
def namespace_disabled(case: Case) -> None:
    """Namespaces with capacity that no driver is bound to, and why."""
    media = None
    for namespace in _each(case):
        if namespace.enabled is not False:
            continue
        if media is None:
            media = case.take(case.facts.media)
        own = media.get(namespace.dev)
        named = f" ({namespace.name})" if namespace.name else ""
        case.found(
            Severity.WARNING,
            f"{namespace.dev}{named}",
            (own.why if own is not None and own.why else None) or "disabled",
            more=f"pmem-list -Ni -n {namespace.dev}",
            do=_how_to_enable(namespace),
        )


def _how_to_enable(namespace: Namespace) -> str:
    """What to do about a namespace that is not enabled."""
    dev, enable = namespace.dev, f"ndctl enable-namespace {namespace.dev}"
    if namespace.label_uuid in (None, NIL_UUID):
        return f"enable {dev} if it should be in use: {enable}"
    name = f"its label names it {namespace.name}" if namespace.name else "it has a label"
    return (
        f"enable {dev} if it should be in use ({name}): {enable}; do not re-create it before its"
        " data is checked"
    )


@rule("namespace-raw", Heading.ODD, "namespaces that should not be raw", "pmem-list -N")
def namespace_raw(case: Case) -> None:
    """Raw namespaces whose label says that they are for something else."""
    for namespace in _each(case):
        meant = _CLAIMS.get(namespace.claim_class or "")
        if namespace.mode != "raw" or not namespace.enabled or namespace.force_raw or not meant:
            continue
        own = case.take(case.facts.media).get(namespace.dev)
        why = own.why if own is not None and own.why else "raw"
        case.found(
            Severity.CRITICAL,
            namespace.dev,
            f"its label is for {meant} mode: {why}",
            do=f"write nothing to {namespace.dev}: its info block may be repaired",
        )


@rule("namespace-gone", Heading.ODD, "labels without a namespace", "pmem-infoblocks")
def namespace_gone(case: Case) -> None:
    """Valid labels of which the kernel made no namespace: a part of the interleave set is missing,
    or the labels contradict each other."""
    labels = case.take(case.facts.labels)
    found = case.facts.inventory()
    known = {n.label_uuid for n in case.problems.take(found).namespaces}
    if None in known or not found.complete:
        # A label's namespace may be one of those that are not known.
        why = "the uuids of some namespaces are not known"
        case.problems.add(Problem(cause=Cause.NOT_SAVED, why=why), "labels without a namespace")
        return
    for area in labels:
        for slot in area.area.slots:
            label = slot.label
            if isinstance(label, CxlRegionLabel) or slot.problems or label.uuid in known:
                continue
            name = label.name.partition(b"\0")[0].decode("utf-8", "backslashreplace")
            case.found(
                Severity.WARNING,
                f"namespace {name or label.uuid}",
                f"{area.dimm or 'a DIMM'} has its label (slot {slot.index}), the kernel made no "
                "namespace of it",
                evidence=[f"uuid {label.uuid}"],
            )


@rule("kmem-left", Heading.ODD, "memory of namespaces that are gone", "pmem-list -N")
def kmem_left(case: Case) -> None:
    """Memory that is still online as RAM after its namespace was destroyed."""
    for sentence in case.take(lambda: lost_memory(case.prog)):
        case.found(Severity.WARNING, "RAM on pmem", sentence)


@rule("dax-without-driver", Heading.ODD, "DAX devices without a driver", "pmem-list -Xi")
def dax_without_driver(case: Case) -> None:
    """DAX devices with memory that neither device_dax nor kmem is bound to."""
    for region in case.take(case.facts.inventory).dax_regions:
        for device in region.devices:
            if device.mode is None and device.size:
                case.found(
                    Severity.WARNING,
                    device.chardev,
                    f"has no driver ({short_size(device.size)})",
                )


@rule("memory-not-movable", Heading.ODD, "pmem as RAM that cannot go offline", "pmem-list -X -v")
def memory_not_movable(case: Case) -> None:
    """Memory of DAX devices that is online in a zone whose pages cannot be moved."""
    for region in case.take(case.facts.inventory).dax_regions:
        for device in region.devices:
            blocks = device.memory_blocks
            if device.mode == "system-ram" and blocks and blocks.online and blocks.movable is None:
                why = "the zone of its memory blocks is not known"
                case.problems.add(Problem(cause=Cause.NOT_SAVED, why=why), device.chardev)
            if device.mode != "system-ram" or blocks is None or blocks.movable is not False:
                continue
            case.found(
                Severity.INFO,
                device.chardev,
                f"{plural(blocks.online, 'memory block')} of it online in a kernel zone: cannot be "
                "sure to go offline",
            )


@rule("infoblock-refused", Heading.ODD, "info blocks that the kernel refuses", "pmem-infoblocks")
def infoblock_refused(case: Case) -> None:
    """Info blocks in a place where one belongs, which fail a check of the kernel."""
    for block in case.take(case.facts.infoblocks).blocks:
        if block.block is None or not block.refused:
            continue
        case.found(
            Severity.WARNING,
            block.namespace or f"physical {block.start:#x}",
            f"the kernel refuses its {block.kind} info block: {block.refused[0].why}",
            evidence=[refusal.why for refusal in block.refused],
        )


@rule("btt-error", Heading.ODD, "BTT arenas in error", "pmem-infoblocks")
def btt_error(case: Case) -> None:
    """Arenas that the kernel made read-only, chains that end early, backups that differ."""
    for block in case.take(case.facts.infoblocks).blocks:
        subject = f"BTT of {block.namespace or f'physical {block.start:#x}'}"
        if block.chain is None:
            if isinstance(block.block, BttArena) and not block.refused:
                why = "; ".join(("its arenas could not be read", *block.notes))
                case.problems.add(Problem(cause=Cause.NOT_SAVED, why=why), subject)
            continue
        for problem in block.chain.problems:
            if problem.cause is Cause.DAMAGED:
                case.found(Severity.CRITICAL, subject, str(problem))
            else:
                case.problems.add(problem, subject)
        for number, place in enumerate(block.chain.arenas):
            if place.backup == "unreadable":
                why = f"the backup of the info block of arena {number} was not saved"
                case.problems.add(Problem(cause=Cause.NOT_SAVED, why=why), subject)
            said = _arena(place)
            if said:
                case.found(Severity.CRITICAL, subject, f"arena {number}: {'; '.join(said)}")


def _arena(place: BttArenaPlace) -> list[str]:
    """What is wrong with an arena."""
    said = list(place.problems)  # the error flag is one of them
    if place.backup in ("differs", "damaged"):
        said.append(f"the backup of its info block {_BACKUP[place.backup]}")
    return said


_BACKUP = {"differs": "differs from it", "damaged": "is damaged"}


@rule("label-damaged", Heading.ODD, "labels that the kernel skips", "pmem-infoblocks")
def label_damaged(case: Case) -> None:
    """Slots and index blocks of label areas that fail a check of the kernel."""
    for found in case.take(case.facts.labels):
        dimm = found.dimm or "a DIMM"
        for copy, why in found.area.bad_indexes:
            case.found(
                Severity.WARNING,
                f"label area of {dimm}",
                f"copy {copy} of its index is bad ({why}); the other is in force",
            )
        for slot in found.area.slots:
            if slot.problems:
                case.found(
                    Severity.WARNING,
                    f"label area of {dimm}",
                    f"the kernel skips the label in slot {slot.index}: {slot.problems[0]}",
                    evidence=slot.problems,
                )


@rule("duplicate-uuid", Heading.ODD, "namespaces with the same uuid", "pmem-list -N")
def duplicate_uuid(case: Case) -> None:
    """Two namespaces of one uuid: a DIMM was copied, or its labels were restored twice."""
    by_uuid: dict[str, list[str]] = {}
    for namespace in _each(case):
        if namespace.label_uuid not in (None, NIL_UUID):
            by_uuid.setdefault(str(namespace.label_uuid), []).append(namespace.dev)
    for uuid, names in by_uuid.items():
        if len(names) > 1:
            case.found(Severity.CRITICAL, few(names), f"have the same uuid {uuid}")


def namespace_counts(namespaces: Iterable[Namespace]) -> str:
    """``"5 fsdax, 3 devdax"``, by mode; those of unknown mode as such."""
    counts: dict[str, int] = {}
    for namespace in namespaces:
        mode = namespace.mode or "of unknown mode"
        counts[mode] = counts.get(mode, 0) + 1
    return ", ".join(f"{count} {mode}" for mode, count in counts.items())

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Every fault that the lab made is on the first screen of pmem-diagnose, no other is, and a rule whose
evidence was not saved is not decided.
"""

import re
from typing import Any

import pytest

from drgn_pmem.analysis.findings.case import RULES
from drgn_pmem.analysis.findings.diagnose import Diagnosis, diagnose, diagnose_in_steps
from drgn_pmem.analysis.findings.model import Ruling, Severity
from drgn_pmem.output.text import short_size
from drgn_pmem.partial import Problems

from ..samples import (
    ASKED,
    CASES,
    CUT_SHORT,
    Case,
    pmem_samples,
    run_json,
    run_text,
    without_debug_info,
)
from .test_every_command import ALL
from .test_pins import held
from .test_poison import expected as poisoned, lines
from .truth_owners import events, iomem, kept_by_memory_failure

pytestmark = pytest.mark.holds("pmem-diagnose")

_DIAGNOSES: dict[str, Diagnosis] = {}


def diagnosis(case: Case) -> Diagnosis:
    """Made once: several tests look at each. It keeps text, no program."""
    name = str(case)
    ASKED.add((case.sample.name, case.format, "pmem-diagnose"))
    if name not in _DIAGNOSES:
        _DIAGNOSES[name] = diagnose(case.prog).value
    return _DIAGNOSES[name]


def screen(case: Case) -> dict[str, str]:
    """The first screen."""
    return {line.label: line.text for line in diagnosis(case).lines}


def found(case: Case, *rules: str) -> list[Any]:
    return [item for item in diagnosis(case).findings if item.id in rules]


def is_known(case: Case, rule: str) -> bool:
    """Whether a rule could read all that it looks at."""
    (ruling,) = (ruling for ruling in diagnosis(case).rulings if ruling.rule == rule)
    return ruling.complete


def test_poison_is_named_with_file_offset_and_victims(case: Case) -> None:
    line = screen(case).get("POISON", "")
    truth = [event for event in poisoned(case).values() if event["path"]]
    for event in truth:
        assert f"{event['path']} at {event['offset']:#x}" in line
    wanted = {(event["path"], event["offset"]) for event in truth}
    assert {
        (item.subject, int(offset, 16))
        for item in found(case, "poison-in-file")
        for offset in re.findall(r"at offsets? (0x\w+)", item.finding)
    } == wanted


def test_poison_that_software_injected_is_no_loss_of_data(case: Case) -> None:
    """The lab's machine checks are; those of madvise(MADV_HWPOISON) and what was written to the
    badblocks of a block device are not."""
    asked = re.findall(r"Injecting memory failure for pfn (0x\w+)", case.truth("dmesg"))
    injected = {int(pfn, 16) for pfn in asked}
    for pfn, event in poisoned(case).items():
        if not event["path"]:
            continue
        (item,) = [i for i in found(case, "poison-in-file") if i.subject == event["path"]]
        written = event["source"].endswith(" badblocks")
        intact = written or pfn in injected
        assert ("injected by software" in item.finding) == (pfn in injected)
        assert ("written there by hand" in item.finding) == written
        assert item.severity is (Severity.WARNING if intact else Severity.CRITICAL)
        assert str(item.do).startswith("nothing to restore") == (pfn in injected)
        assert str(item.do).startswith("restore ") == (not intact)


def test_who_was_sent_sigbus_and_maps_the_page_still_runs(case: Case) -> None:
    for item in found(case, "poison-in-file"):
        assert "(ended)" not in item.finding, "no process of the lab ends"
        if is_known(case, "layout-break"):  # the task list could be read
            assert ("SIGBUS to" in item.finding) == ("(still running)" in item.finding)


def test_memory_that_was_used_as_ram_has_the_size_that_iomem_had(case: Case) -> None:
    sizes = [end - start for start, end in iomem(case.sample.truth, "System RAM (kmem)")]
    line = screen(case)["PMEM"]
    if sizes and "used as RAM (" in line:
        assert f"used as RAM ({short_size(sum(sizes))})" in line
    elif not sizes:
        assert "used as RAM" not in line


def test_poison_in_struct_pages_names_those_of_their_namespace(case: Case) -> None:
    pages = {pfn for pfn, event in poisoned(case).items() if not event["path"]}
    hit = found(case, "poison-in-struct-pages")
    physical = {int(re.findall(r"physical (0x\w+)", item.finding)[0], 16) for item in hit}
    assert {address // case.page for address in physical} == pages
    for item in hit:
        assert f"struct pages ({item.brief})" in screen(case)["POISON"]
        assert item.brief.startswith(item.subject.split()[-1])


def test_error_that_the_kernel_failed_to_handle_is_said(case: Case) -> None:
    """By the log that the machine kept."""
    failed = {
        int(pfn, 16)
        for pfn in re.findall(
            r"Memory failure: (0x\w+): recovery action for .*: (?:Failed|Ignored)",
            case.truth("dmesg"),
        )
    }
    assert failed <= {
        int(item.subject.split()[1], 16) for item in found(case, "machine-check-not-handled")
    }


def test_who_waits_for_whom_is_one_chain(case: Case) -> None:
    chains = {item.subject: item for item in found(case, "layout-break")}
    stuck = events(case, "PUNCH", "TRUNCATE")
    assert set(chains) == {f"{e.values['pid']}/{e.values['comm']}" for e in stuck}
    pinned = {e.values["path"]: e for e in held(case)}
    for event in stuck:
        item = chains[f"{event.values['pid']}/{event.values['comm']}"]
        holder = pinned[event.values["path"]]
        assert f"for {event.values['path']} offset" in item.finding
        assert f"held by {holder.values['pid']}/" in item.finding
        assert re.search(r" for \d+\.\d s; ", item.finding)
        assert item.subject in screen(case)["PINNED"]
        assert "in a DAX layout break" in screen(case)["TASKS"]


def test_every_pinned_file_is_named_with_its_holder(case: Case) -> None:
    line = screen(case).get("PINNED", "")
    for event in held(case):
        assert f"{event.values['path']} offset" in line
        assert f"by {event.values['pid']}/" in line
    pinned = {event.values["path"] for event in held(case)}
    pinned |= set(kept_by_memory_failure(case).values())
    assert {item.subject for item in found(case, "pinned-page")} == pinned
    assert {item.more for item in found(case, "pinned-page")} <= {"pmem-pins"}


def test_task_in_state_d_is_named(case: Case) -> None:
    """By ps of the machine, without those that wait in a layout break."""
    blocked = set(re.findall(r"^ *(\d+) +\d+ D\w* +(lab-\w+)", case.truth("ps"), re.MULTILINE))
    named = {item.subject for item in found(case, "task-stuck-on-pmem", "layout-break")}
    assert {f"{pid}/{comm}" for pid, comm in blocked} <= named


def test_suspended_device_is_named(case: Case) -> None:
    """The lab suspends the one that lab-direct writes to."""
    suspended = {"slow"} if events(case, "DIRECT") else set()
    named = {
        re.findall(r"/dev/mapper/(\w+)", item.subject)[0] for item in found(case, "dm-suspended")
    }
    assert named == suspended
    for event in events(case, "DIRECT"):
        task = f"{event.values['pid']}/lab-direct in direct I/O to the suspended dm-1"
        assert f"{task} (/dev/mapper/slow) (" in screen(case)["TASKS"]
        # It is named once: with the task that waits for it.
        assert screen(case)["TASKS"].count("/dev/mapper/slow") == 1


def test_warning_of_dax_in_the_log_is_decoded(case: Case) -> None:
    """The kernel names source and function; the file is that of the process that it names."""
    recorded = re.findall(
        r"WARNING: .*PID: (\d+) at \S*/(fs/dax\.c:\d+) (\w+)", case.truth("dmesg")
    )
    reports = found(case, "kernel-report")
    assert {item.subject for item in reports} == {
        f"WARNING {place} {function}" for _, place, function in recorded
    }
    for item, (pid, _, _) in zip(reports, recorded, strict=True):
        assert f" s, {pid}/" in item.finding
        assert "/mnt/" in item.finding
        assert item.subject in screen(case)["KERNEL"]


def disabled(case: Case) -> set[str]:
    """Namespaces with capacity that were disabled, by ndctl."""
    return {
        namespace["dev"]
        for bus in case.truth_json("ndctl.all.json")
        for region in bus["regions"]
        for namespace in region.get("namespaces", [])
        if namespace.get("state") == "disabled" and namespace.get("size")
    }


def test_disabled_namespace_is_odd_and_its_list_entry_stale(case: Case) -> None:
    wanted = disabled(case)
    named = {item.subject.split()[0] for item in found(case, "namespace-disabled")}
    assert named == wanted
    for dev in wanted:
        assert dev in screen(case)["ODD"]
    stale = found(case, "memmap-list")
    assert all(item.finding.startswith("stale: ") for item in stale)
    assert len(stale) <= len(wanted)


def added(case: Case) -> set[tuple[int, int]]:
    """RAM that was added after the crash kernel was loaded, by /proc/iomem before and after."""
    truth = case.sample.truth
    if not (truth / "iomem.before").exists():
        return set()
    before, after = (set(iomem(truth, name)) for name in ("System RAM", "System RAM"))
    old = {
        (int(start, 16), int(end, 16) + 1)
        for start, end in re.findall(
            r"^ *(\w+)-(\w+) : System RAM$", (truth / "iomem.before").read_text(), re.MULTILINE
        )
    }
    assert before == after
    return after - old


def dax_ram_left_out(case: Case) -> set[tuple[int, int]]:
    """RAM of DAX devices, which kexec-tools leaves out of its headers on arm64."""
    by_tools = case.sample.architecture == "arm64" and case.sample.loader == "kexec_load"
    if not by_tools or case.format.startswith("qemu"):
        return set()
    return set(iomem(case.sample.truth, "System RAM (kmem)"))


def test_ram_added_after_the_crash_kernel_is_missing(case: Case) -> None:
    """Of a kernel with crash hotplug the header was updated, by kexec_file_load at least."""
    updates = "7.2-fileload" in str(case)
    lacking = found(case, "header-outdated", "ram-missing")
    if dax_ram_left_out(case):
        assert {f"{start:#x}-{end:#x}" for start, end in dax_ram_left_out(case)} == {
            place for item in lacking for place in re.findall(r"0x\w+-0x\w+", item.finding)
        }
        return
    if updates or not added(case):
        assert not lacking
        return
    for start, end in added(case):
        (item,) = lacking
        assert f"{start:#x}-{end:#x}" in item.finding
        assert f"{start:#x}-{end:#x}" in screen(case)["LACKS"]


def test_memory_that_firmware_assisted_dump_reserves_is_lacking(case: Case) -> None:
    """From the kernel's log. A hypervisor's dump has it."""
    pattern = r"fadump: Reserved \d+MB of memory at 0x0*([0-9a-f]+)"
    reserved = re.search(pattern, case.truth("dmesg"))
    lacking = screen(case).get("LACKS", "")
    if reserved is None or case.format.startswith("qemu"):
        assert "firmware-assisted dump had reserved" not in lacking
    else:
        assert f"RAM 0x{reserved[1]}-" in lacking


def test_struct_pages_that_a_capture_kernel_wrote_are_not_trusted(case: Case) -> None:
    overwritten = {item.subject for item in found(case, "memmap-overwritten")}
    assert overwritten == ({"namespace0.0"} if case.sample.name == "6.1-clobbered" else set())
    if overwritten:
        assert "overwritten" in screen(case)["TRUST"]
        assert "pmem-files, which needs no struct pages" in screen(case)["DO"]


def maps_on_cxl(case: Case) -> set[str]:
    """Namespaces whose struct pages are on CXL memory, by ndctl."""
    return {
        namespace["dev"]
        for bus in case.truth_json("ndctl.json")
        if bus["provider"] == "CXL"
        for region in bus["regions"]
        for namespace in region["namespaces"]
        if namespace.get("map") == "dev"
    }


def test_struct_pages_are_lost_where_the_dump_has_no_pmem(case: Case) -> None:
    """pmem is in a dump if the kernel put it into the header or a hypervisor saved everything."""
    lost = found(case, "memmap-not-saved")
    if case.format.endswith(CUT_SHORT):
        return
    has_pmem = case.format.startswith("qemu") or case.sample.name in (
        "6.1-fileload",
        "6.1-clobbered",
        "6.1-hotadd",
        "6.1-hotadd-load",
        "arm64-6.12",
    )
    # The lab's kernels for arm64, of any page size, all have the patch.
    has_pmem |= case.sample.architecture == "arm64" and case.sample.release.endswith("-pmem")
    if "6.1-hotadd-load" in str(case) and not case.format.startswith("qemu"):
        has_pmem = False
    on_cxl = maps_on_cxl(case)
    if on_cxl:  # no RAM to QEMU, which saved all else
        assert {item.subject for item in lost} == on_cxl
        return
    assert bool(lost) != has_pmem
    none = "persistent memory: none of its " in screen(case).get("LACKS", "")
    assert none == bool(lost)
    if not lost and not found(case, "memmap-overwritten"):
        trust = screen(case)["TRUST"]
        assert "struct pages not in the dump" not in trust
        if not found(case, "fadump-refused"):
            assert trust.startswith("all struct pages are in the dump")


def test_a_file_that_was_cut_is_truncated(case: Case) -> None:
    cut = case.format.endswith(CUT_SHORT)
    assert bool(found(case, "dump-truncated")) == cut
    assert ("truncated" in screen(case)["DUMP"]) == cut
    if cut:
        assert "truncated" in screen(case)["LACKS"]


def test_nothing_else_is_found(case: Case) -> None:
    """The lab made no other fault: a machine without any has no finding."""
    made = {
        "poison-in-file", "poison-in-struct-pages", "machine-check-not-handled", "layout-break",
        "pinned-page", "task-stuck-on-pmem", "dm-suspended",
        "kernel-report", "namespace-disabled", "memmap-list", "header-outdated",
        "memmap-overwritten", "memmap-not-saved", "dump-truncated",
    }  # fmt: skip
    if dax_ram_left_out(case):
        made.add("ram-missing")
    # A kernel without dax_kmem cannot give the lab a namespace as RAM.
    if '"state":"disabled"' in case.truth("daxctl.json").replace(" ", ""):
        made.add("dax-without-driver")
    if '"flag_failed_arm":true' in case.truth("ndctl.all.json").replace(" ", ""):
        made.add("dimm-failed")
    if case.sample.loader == "fadump":  # test_fadump.py
        made.add("fadump-refused")
    if case.sample.loader == "none":
        made.add("no-crash-kernel")
    # e820 and virtio-pmem have no flush of their own that libnvdimm knows of.
    if "unable to guarantee persistence of writes" in case.truth("dmesg"):
        made.add("persistence-not-guaranteed")
    assert {item.id for item in diagnosis(case).findings} <= made


def test_a_machine_without_a_fault_has_no_finding(case: Case) -> None:
    """Nobody hurt the machines of these samples, and only memory was added to some."""
    if case.sample.name not in ("6.1-hotadd", "6.1-hotadd-load"):
        pytest.skip("not a healthy machine: the lab made faults in it")
    ids = {item.id for item in diagnosis(case).findings}
    assert ids <= {"header-outdated", "memmap-not-saved"}
    assert not {"POISON", "PINNED", "TASKS", "KERNEL"} & set(screen(case)) or not all(
        is_known(case, rule) for rule in RULES
    )


def test_the_first_screen_says_what_the_dump_and_the_machine_are(case: Case) -> None:
    line, pmem = screen(case)["DUMP"], screen(case)["PMEM"]
    assert line.startswith(str(case.dump))
    machine = {"arm64": "aarch64"}.get(case.sample.architecture, case.sample.architecture)
    assert f"Linux {case.sample.release} {machine}" in line
    if case.format.startswith("qemu"):
        assert "snapshot of a RUNNING guest: no panic" in line
        wanted = {
            "fadump": "firmware-assisted dump is registered",
            "none": "no crash kernel loaded: a panic would leave no vmcore",
        }.get(case.sample.loader, "a crash kernel is loaded")
        assert wanted in line
    else:
        # sysrq c writes to address 0 before Linux 4.20.
        text = "sysrq triggered crash"
        if case.sample.release.startswith("4."):
            text = "BUG: unable to handle kernel NULL pointer dereference at 0000000000000000"
        assert f'panic "{text}", PID ' in line
    buses = case.truth_json("ndctl.all.json")
    dimms = sum(len(bus.get("dimms", ())) for bus in buses)
    enabled = [
        namespace
        for bus in buses
        for region in bus["regions"]
        for namespace in region.get("namespaces", [])
        if namespace.get("state") != "disabled"
    ]
    if case.format.endswith(CUT_SHORT):
        return
    # two virtio-pmem devices have a bus each
    ordered = sorted(buses, key=lambda bus: bus["dev"])
    names = list(dict.fromkeys(bus["provider"] for bus in ordered))
    if case.sample.architecture == "ppc64le":
        assert all(name.startswith("ibm,persistent-memory:ibm,pmemory@") for name in names)
        names = [f"{len(names)} papr buses"]
    assert len(names) <= 4, "all are named"
    on = f" on {dimms} NVDIMMs" if dimms else ""
    assert f"{on} ({', '.join(names)}), {len(enabled)} namespaces enabled" in pmem
    for mode in {namespace["mode"] for namespace in enabled}:
        count = sum(namespace["mode"] == mode for namespace in enabled)
        assert f"{count} {mode}" in pmem


def test_the_first_screen_says_how_long_the_machine_was_up(case: Case) -> None:
    """Not less than the last line of the log that the machine kept, and not much more."""
    times = re.findall(r"^\[ *(\d+\.\d+)\]", case.truth("dmesg"), re.MULTILINE)
    shown = re.findall(r", up (?:(\d+) min )?([\d.]+) s", screen(case)["DUMP"])
    if not shown:
        assert not diagnosis(case).findings or case.format.endswith(CUT_SHORT)
        return
    minutes, seconds = shown[0]
    up = 60 * int(minutes or 0) + float(seconds)
    assert not times or float(times[-1]) - 1 <= up <= float(times[-1]) + 120


def test_the_first_screen_says_what_tainted_the_kernel(case: Case) -> None:
    """The lab's machine checks do, and the warning of one kernel."""
    if ", up " not in screen(case)["DUMP"]:
        return  # a dump that is cut short: nothing is known of the machine's state
    machine_checks, log = lines(case, "machine-checks"), case.truth("dmesg")
    assert ("tainted: machine check" in screen(case)["DUMP"]) == bool(machine_checks)
    # One of POWER is about what a guest keeps for its firmware, no call of WARN().
    warned = re.search("WARNING: (?!nvram)", log) is not None
    assert ("warning (" in screen(case)["DUMP"]) == warned


def test_the_first_screen_says_what_the_dump_is_complete_in(case: Case) -> None:
    line = screen(case)["DUMP"]
    if case.format.endswith(CUT_SHORT):
        assert "vmcore" in line
        assert "complete" not in line
    elif case.format in ("raw", "qemu-elf"):
        # /proc/vmcore and QEMU leave no byte out of their segments.
        assert re.search(r", complete: all [\d.]+ [MG]iB that its headers describe \(ELF", line)
    else:
        assert re.search(
            r", complete but filtered: (without )?[\d.]+ ([MG]iB|bytes) of the [\d.]+ [MG]iB", line
        )


EACH = [case for case in CASES if case.format == next(iter(case.sample.formats))]
"""One dump of each machine."""

of_each_machine = pytest.mark.parametrize("case", EACH, ids=str)


@of_each_machine
def test_the_text_fits_and_lines_are_in_order(case: Case) -> None:
    out, _ = run_text(case.prog, "pmem-diagnose")
    head = out.partition("\n\n")[0].splitlines()
    assert max(map(len, out.splitlines())) <= 120
    labels = [line.split()[0] for line in head if not line.startswith(" ")]
    order = ["DUMP", "PMEM", "POISON", "PINNED", "TASKS", "KERNEL", "ODD", "TRUST", "LACKS", "DO"]
    for item in diagnosis(case).findings:
        assert f"[{item.more}]" in out, "a command is on one line"
    assert labels == [label for label in order if label in labels]
    assert labels[:2] == ["DUMP", "PMEM"]
    severities = [
        line.split()[0] for line in out.partition("\n\n")[2].splitlines() if line[0] > " "
    ]
    ranks = ["critical", "warning", "info", "unknown"]
    assert severities == sorted(severities, key=ranks.index)


@pytest.mark.parametrize("busy", [c for c in CASES if str(c) == "6.1-fileload:elf"], ids=str)
def test_each_line_comes_before_the_rules_of_the_next_are_asked(busy: Case) -> None:
    rulings: list[Ruling] = []
    asked = {
        line.label: len(rulings)
        for line in diagnose_in_steps(busy.prog, rulings, Problems())
        if line is not None
    }
    assert list(asked) == list(screen(busy))
    assert asked["DUMP"] == asked["PMEM"] == 0 < asked["POISON"] < asked["PINNED"] < asked["TASKS"]
    assert asked["TASKS"] < asked["KERNEL"] < asked["ODD"] < asked["TRUST"] <= len(rulings)


@of_each_machine
def test_every_finding_names_a_command_that_answers(case: Case) -> None:
    lines = {item.more.split()[0]: item.more for item in diagnosis(case).findings}
    for line in lines.values():
        if not line.startswith("%crash"):
            run_text(case.prog, line)


@of_each_machine
def test_without_debug_info_no_rule_about_the_kernel_says_that_there_is_nothing(case: Case) -> None:
    """Unknown is never nothing."""
    answer = diagnose(without_debug_info(case)).value
    rulings = answer.rulings
    assert "whether it panicked is not known" in answer.lines[0].text
    of_the_file = {"dump-truncated", "dump-erased", "dump-damaged", "vmcoreinfo-wrong"}
    of_the_file |= {"debug-info-missing", "infoblock-refused", "btt-error", "label-damaged"}
    of_the_file |= {"memmap-list"}
    not_power = {"fadump-not-registered", "fadump-refused"}
    for ruling in rulings:
        if ruling.rule not in of_the_file | not_power:
            assert not ruling.complete, ruling.rule
    # What only the kernel knows is no fault: a namespace that is disabled, where a BTT ends.
    assert {"memmap-not-saved", "btt-error"}.isdisjoint(f.id for f in answer.findings)


@of_each_machine
def test_json_is_as_documented(case: Case) -> None:
    keys = {"id", "severity", "subject", "finding", "evidence", "more", "complete"}
    rows = run_json(case.prog, "pmem-diagnose")
    for row in rows:
        assert keys <= set(row)
        assert row["severity"] in ("critical", "warning", "info")
        assert isinstance(row["evidence"], list)
        assert row["complete"] or row["why"]
    decided = [row["id"] for row in rows if row["finding"] != "cannot be decided"]
    assert decided == [item.id for item in diagnosis(case).findings]


OF_POWER = [
    case for case in ALL if case.sample.loader == "fadump" and case.sample not in pmem_samples()
]


@pytest.mark.parametrize("power", OF_POWER, ids=str)
def test_machines_of_fadump_have_no_pmem_and_the_right_kernel(power: Case) -> None:
    result = diagnosis(power)
    lines = {line.label: line.text for line in result.lines}
    # These kernels cannot know what they have no driver for.
    assert lines["PMEM"].startswith("this kernel knew of no persistent memory: no NVDIMM bus")
    assert "it had no libnvdimm, so NVDIMMs that the machine may have" in lines["PMEM"]
    ids = {item.id for item in result.findings}
    assert ("capture-kernel" in ids) == (power.format == "qemu-capture")
    assert ("CAPTURE kernel" in lines["DUMP"]) == (power.format == "qemu-capture")
    place = "the memory of the kernel that crashed (447.9 MiB) is at 0x14010000-"
    assert (place in lines["DUMP"]) == (power.format == "qemu-capture")
    if power.format == "qemu-elf":
        assert "snapshot of a RUNNING guest: no panic, firmware-assisted dump" in lines["DUMP"]
    # The notes of firmware-assisted dump have no process ids: the stack is read all the same.
    assert "KERNEL" not in lines
    assert " ppc64le" in lines["DUMP"]
    # SLOF puts its run-time services into the reserve area: what fadump says, too.
    assert ids <= {"capture-kernel", "fadump-refused"}

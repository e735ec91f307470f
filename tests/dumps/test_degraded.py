# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Debug info that is missing: no answer is wrong, each names what would help, none is a traceback.

The crashed kernels are a distribution's (``make test-distro``), whose pmem drivers are modules.
"""

from collections.abc import Iterable, Iterator
import functools
import http.server
import json
import os
from pathlib import Path
import subprocess
import sys
import threading
import time
from typing import Any

from drgn import Program
import pytest

import drgn_pmem
from drgn_pmem.commands import load_commands
from drgn_pmem.formats.build_id import build_id_of_file
from drgn_pmem.kernel.kmod import lacking_modules
from drgn_pmem.spec import Spec

from ..samples import Case, dax_without_namespace, open_crash, run_json, truth_pages
from .conftest import DISTRIBUTION
from .test_list import by_name
from .test_owners import shown_path
from .test_poison import expected
from .truth_owners import sysfs

SPECS = {spec.name: spec for spec in load_commands()}
OF_PMEM = [spec for spec in SPECS.values() if spec.modules]
SECONDS = 3.0
"""What an answer may take, beyond what opening the dump does."""


@pytest.fixture(params=[Case(sample, "raw") for sample in DISTRIBUTION], ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def file_of_module(case: Case, name: str) -> Path:
    """The file of a module's debug info in the distribution's package."""
    (folder,) = case.sample.kernel_directories
    for spelling in (name, name.replace("_", "-")):
        for found in folder.rglob(f"{spelling}.ko*"):
            return found
    raise AssertionError(f"no debug info of {name} in {folder}")


def opened(case: Case, modules: Iterable[str] = ()) -> Program:
    """The dump with the debug info of vmlinux and of these modules only."""
    return _opened(case.sample.name, tuple(modules))


@functools.lru_cache(maxsize=2)
def _opened(name: str, modules: tuple[str, ...]) -> Program:
    (case,) = (Case(sample, "raw") for sample in DISTRIBUTION if sample.name == name)
    (folder,) = case.sample.kernel_directories
    files = [folder / "vmlinux", *(file_of_module(case, module) for module in modules)]
    return drgn_pmem.open(case.dump, files)


def lines_of(case: Case) -> dict[str, str]:
    """A command line of each command that answers with something on the lab's machine."""
    page = next(p for p in truth_pages(case.sample) if p.path == "/mnt/ext4/alpha" and p.present)
    words = {
        "pmem-diff": str(case.dump),
        "pmem-file": "/mnt/ext4/alpha",
        "pmem-list": "-BDRNXi -vv",
        "pmem-page": f"{page.pfn:#x}",
        "pmem-rmap": f"{page.pfn:#x}",
    }
    return {name: f"{name} {words.get(name, '')}".strip() for name in SPECS}


def command_line(
    case: Case, *words: str, environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    dump = str(case.dump)
    return subprocess.run(
        [sys.executable, "-m", "drgn_pmem", "-c", dump, *words],
        capture_output=True, text=True, timeout=120, env=environment,
    )  # fmt: skip


@pytest.mark.parametrize("spec", OF_PMEM, ids=lambda spec: spec.name)
def test_debug_info_of_the_modules_that_a_command_names_is_enough(case: Case, spec: Spec) -> None:
    whole = open_crash(case.sample, case.dump)
    wanted = lacking_modules(opened(case), spec.modules)
    line = lines_of(case)[spec.name]
    part, full = run_json(opened(case, wanted), line), run_json(whole, line)
    if spec.name == "pmem-report":
        for answer in (part, full):
            del answer["report"]["made"]
    assert part == full


def test_with_all_debug_info_none_is_missing(case: Case) -> None:
    whole = open_crash(case.sample, case.dump)
    assert not lacking_modules(whole, {name for spec in OF_PMEM for name in spec.modules})


def namespaces(case: Case) -> dict[str, dict[str, Any]]:
    return {
        namespace["dev"]: namespace
        for bus in case.truth_json("ndctl.json")
        for region in bus["regions"]
        for namespace in region.get("namespaces", [])
    }


def test_vmlinux_alone_names_only_namespaces_that_were_there(case: Case) -> None:
    prog = opened(case)
    truth, others = namespaces(case), dax_without_namespace(case)
    for line in ("pmem-list", "pmem-namespaces", "pmem-memmap", "pmem-coverage"):
        answer = {item.get("dev") or item["namespace"]: item for item in run_json(prog, line)}
        assert answer.keys() - others.keys() == truth.keys()
        for name, recorded in truth.items():
            item = answer[name]
            for key in ("mode", "map", "size"):
                if item.get(key) is not None:
                    assert item[key] == recorded[key], line


def test_vmlinux_alone_finds_struct_pages_where_all_debug_info_does(case: Case) -> None:
    ours = {m["namespace"]: m for m in run_json(opened(case), "pmem-memmap")}
    full = {m["namespace"]: m for m in case.json("pmem-memmap")}
    compared = 0
    for name, memmap in ours.items():
        if memmap["struct_pages"] is not None:
            compared += 1
            assert memmap["struct_pages"] == full[name]["struct_pages"]
            assert memmap["altmap"] == full[name]["altmap"]
    assert compared > 5


def test_vmlinux_alone_finds_every_owner_and_process(case: Case) -> None:
    """ext4 is built in, of XFS the generic inode is enough."""
    wanted = [page for page in truth_pages(case.sample) if page.present]
    prog = opened(case)
    line = " ".join(sorted({f"{page.pfn:#x}" for page in wanted}))
    answers = {answer["pfn"]: answer for answer in run_json(prog, f"pmem-rmap {line}")}
    for page in wanted:
        mapped = [
            (owner["offset"], mapping["comm"])
            for owner in answers[page.pfn]["owners"]
            if owner["inode"] == page.inode and shown_path(page) in owner["paths"]
            for mapping in owner["mappings"]
            if (mapping["pid"], int(mapping["address"], 16)) == (page.pid, page.address)
        ]
        assert (page.offset, page.comm) in mapped, page
        if answers[page.pfn]["namespace"] is not None:
            assert answers[page.pfn]["namespace"] in namespaces(case) | dax_without_namespace(case)


def test_vmlinux_alone_names_poison_that_the_kernel_log_has(case: Case) -> None:
    found = {page["pfn"]: page for page in run_json(opened(case), "pmem-poison")}
    truth = expected(case)
    assert set(found) <= set(truth)
    for pfn, page in found.items():
        paths = {owner["path"] for owner in page["owners"]}
        assert paths <= {truth[pfn]["path"]}
        where = sysfs(case)[page["namespace"]]
        assert int(where["resource"], 0) <= int(page["physical"], 16)


@pytest.mark.parametrize("name", SPECS)
def test_vmlinux_alone_ends_with_one_line_about_the_modules(case: Case, name: str) -> None:
    (folder,) = case.sample.kernel_directories
    done = command_line(
        case, "-s", str(folder / "vmlinux"), "--no-default-debug-directories",
        "--no-default-kernel-directories", *lines_of(case)[name].split(),
    )  # fmt: skip
    lacking = lacking_modules(opened(case), SPECS[name].modules)
    assert "Traceback" not in done.stderr
    if lacking:
        last = done.stderr.splitlines()[-1]
        assert done.returncode == 1
        for module in lacking:
            assert module in last
            assert SPECS[name].modules[module] in last
        assert f"linux-image-{case.sample.release}-dbg" in last
        dumps = 2 if name == "pmem-diff" else 1
        assert done.stderr.count("install linux-image") == dumps
    else:
        whole = command_line(case, "--debug-directory", *map(str, case.sample.debug_directories),
                             *lines_of(case)[name].split())  # fmt: skip
        assert (done.returncode, done.stdout) == (whole.returncode, whole.stdout)


WITHOUT = {"pmem-segments", "pmem-usage", "pmem-infoblocks", "elfcorehdr"}
"""Commands that answer with no debug info; pmem-coverage and pmem-memmap do where info blocks or
the list are in the dump."""


@pytest.mark.parametrize("name", SPECS)
def test_no_debug_info_is_an_answer_or_one_line(case: Case, name: str) -> None:
    done = command_line(
        case, "--no-default-debug-directories", "--no-default-kernel-directories",
        *lines_of(case)[name].split(),
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    install = f"install linux-image-{case.sample.release}-dbg"
    if name in WITHOUT:
        # All that needs none; what the rest needs is said.
        assert done.returncode == 0 or (done.returncode == 1 and install in done.stderr)
        assert done.stdout
        return
    assert done.returncode == 1
    if name == "pmem-diagnose":
        # The dump alone, and that nothing else is known.
        assert done.stdout.startswith("DUMP ")
        assert "not known whether there is any" in done.stdout
        assert install in done.stderr
        return
    if name == "pmem-report":
        # Of what answers with no debug info, and why the rest does not.
        assert all(f"\n{other}: " in done.stdout for other in WITHOUT)
        assert install in done.stdout
        return
    if name == "pmem-diff":
        # What the files say; of nothing else is known whether it changed.
        assert "machine  unknown" in done.stdout
        assert install in done.stderr
        return
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    if name != "fadump":  # which another machine has
        assert f"{install}, or give its vmlinux with -s" in line


@pytest.fixture
def debuginfod(case: Case, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A server of the debug info that pmem-list needs; the environment that names it."""
    (kernel,) = case.sample.kernel_directories
    for file in (kernel / "vmlinux", *files_of_modules(case)):
        build_id, _ = build_id_of_file(file)
        place = tmp_path / "buildid" / str(build_id)
        place.mkdir(parents=True)
        (place / "debuginfo").symlink_to(file.resolve())
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield os.environ | {
            "DEBUGINFOD_URLS": f"http://127.0.0.1:{server.server_port}",
            "DEBUGINFOD_CACHE_PATH": str(tmp_path / "cache"),
        }
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def files_of_modules(case: Case) -> list[Path]:
    """The files of debug info that pmem-list needs beside vmlinux."""
    names = lacking_modules(opened(case), SPECS["pmem-list"].modules)
    return [file_of_module(case, name) for name in names]


@pytest.mark.parametrize(
    "option", ["--debug-directory", "--kernel-directory", "-s", "--try-symbols-by"]
)
def test_debug_info_is_found_the_ways_that_drgn_finds_it(
    case: Case, option: str, debuginfod: dict[str, str]
) -> None:
    """In a folder like /usr/lib/debug, in one of a kernel's modules, in files, from a server; by
    drgn too."""
    (debug,), (kernel,) = case.sample.debug_directories, case.sample.kernel_directories
    words = ["--no-default-debug-directories"]
    if option == "--debug-directory":
        words += [option, str(debug)]
    elif option == "--kernel-directory":
        words += ["--no-default-kernel-directories", option, str(kernel)]
    elif option == "-s":
        files = [kernel / "vmlinux", *files_of_modules(case)]
        words += [word for file in files for word in (option, str(file))]
    else:
        words += [option, "debuginfod"]
    done = command_line(case, *words, "pmem-list", "-BDRNi", "-vv", "--ndctl", "--json",
                        environment=debuginfod)  # fmt: skip
    assert done.returncode == 0, done.stderr
    recorded = case.truth_json("ndctl.all.json")
    assert by_name(json.loads(done.stdout)).keys() == by_name(recorded).keys()
    dump = str(case.dump)
    code = "from drgn.commands import run_command; run_command(prog, 'pmem-list -H -o namespace')"
    theirs = subprocess.run(
        [sys.executable, "-m", "drgn", "-q", "-c", dump, *words, "-e", code],
        capture_output=True, text=True, timeout=120, env=debuginfod,
    )  # fmt: skip
    assert set(theirs.stdout.split()) == set(namespaces(case)), theirs.stderr


def test_no_answer_takes_long(case: Case) -> None:
    """Each in a program of its own, with all debug info and with vmlinux alone."""
    slow = []
    for name, line in lines_of(case).items():
        if name == "fadump":
            continue
        for prog in (opened_anew(case), open_crash(case.sample, case.dump)):
            start = time.process_time()
            run_json(prog, line)
            taken = time.process_time() - start
            if taken > SECONDS:
                slow.append((line, taken))
    assert not slow


def opened_anew(case: Case) -> Program:
    _opened.cache_clear()
    return opened(case)

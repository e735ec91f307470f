# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
A run
-----

Finds the dumps, has each read that has no result yet, and writes the index of all.
"""

from collections import deque
from collections.abc import Sequence
from datetime import datetime, timezone
import json
import os
import signal
import sys
import time

from drgn_pmem.errors import PmemError
from drgn_pmem.fleet.debuginfo import find_debug_info, link_debug_info
from drgn_pmem.fleet.engine import Ended, Engine, check_dask
from drgn_pmem.fleet.find import Found, find_dumps, identity_of, name_of
from drgn_pmem.fleet.folder import Folder, open_folder
from drgn_pmem.fleet.index import index_page, summary_line
from drgn_pmem.fleet.options import FleetOptions, parse_fleet
from drgn_pmem.fleet.request import Request, product_version
from drgn_pmem.fleet.result import Result, State, load_result, make_result, write_result
from drgn_pmem.fleet.row import Row, row_of
from drgn_pmem.fleet.store import open_store
from drgn_pmem.fleet.task import MAX_TRIES, last_lines, times_begun
from drgn_pmem.fleet.watch import Watch
from drgn_pmem.output.files import write_file
from drgn_pmem.output.text import escape, plural

__all__ = ("run_fleet",)

_INTERRUPTED = 128 + 2
_MAX_JOBS = 256
"""Dumps at a time on this machine: more workers take longer to start than to read a dump."""
_LONG = 0.5
"""Seconds between two looks at the progress."""
_AHEAD = 2
"""Dumps that a scheduler has for each that its workers read: none waits for the next one."""


def run_fleet(words: Sequence[str]) -> int:
    """
    ``drgn-pmem fleet``.

    :param words: What follows ``fleet``.
    :return: Exit status: 0 if every dump has a report and every report is complete, 1 if not, 130
        if Ctrl-C ended the run, 143 if SIGTERM did.
    :raises PmemError: one line that says why nothing can be done
    """
    options = parse_fleet(words)
    if options is None:
        return 0
    check_dask()
    with open_folder(options.output, resume=options.resume) as folder:
        names, debug_directories = options.dumps, options.debug_directories
        if not names:
            names, before = folder.asked()
            debug_directories = debug_directories or before
        found = find_dumps(names, leave_out=options.output)
        for path, why in found.skipped:
            print(f"skipped {escape(path)}: {escape(why)}", file=sys.stderr)
        if not found.dumps:
            raise PmemError(f"no dump in {', '.join(map(escape, names))}")
        digest = link_debug_info(find_debug_info(debug_directories), folder.debug_info)
        folder.begin(names, debug_directories)
        try:
            requests = _requests(found, folder, options, debug_directories, digest)
            return _work(folder, found, requests, options)
        finally:
            folder.end()


def _requests(
    found: Found,
    folder: Folder,
    options: FleetOptions,
    debug_directories: Sequence[str],
    digest: str,
) -> list[Request]:
    """What every dump is asked, the largest first: none of them is the last to begin."""
    requests = []
    for path in found.dumps:
        try:
            identity = identity_of(path)
        except OSError as error:
            print(f"skipped {escape(path)}: {error.strerror}", file=sys.stderr)
            continue
        requests.append(
            Request(
                dump=path,
                **identity.to_json(),
                name=name_of(path),
                folder=str(folder.path),
                run=folder.run,
                version=product_version(),
                debug_directories=(str(folder.debug_info), *debug_directories),
                debug_info=digest,
                timeout=options.timeout,
                memory_limit=options.memory_limit,
                tries=MAX_TRIES,
            )
        )
    return sorted(requests, key=lambda request: -request.size)


def _work(folder: Folder, found: Found, requests: Sequence[Request], options: FleetOptions) -> int:
    todo = [request for request in requests if not _is_done(request)]
    done_before = len(requests) - len(todo)
    if done_before:
        print(f"{plural(done_before, 'dump')} done before, {len(todo)} to do", file=sys.stderr)
    watch = Watch(len(todo), quiet=options.quiet)
    started, stopped = time.monotonic(), 0
    try:
        if todo:
            _read_all(folder, todo, options, watch)
    except KeyboardInterrupt:
        stopped = _INTERRUPTED
    except SystemExit as leaving:  # by SIGTERM or SIGHUP
        stopped = int(leaving.code or 0)
    finally:
        # Also if the scheduler is gone: what is done stays.
        watch.close()
        folder.end()
        rows = _write_index(folder, found, requests, time.monotonic() - started)
        folder.tidy()
    if stopped:
        how = {_INTERRUPTED: "interrupted", 128 + signal.SIGHUP: "ended by SIGHUP"}
        print(
            f"{how.get(stopped, 'ended by SIGTERM')}: {watch.ended} of {len(todo)} done; go on"
            f" with: drgn-pmem fleet --resume -o {escape(options.output)}",
            file=sys.stderr,
        )
        return stopped
    print(summary_line(rows))
    print(f"the index is {escape(options.output)}/index.html")
    asked = {request.name for request in requests}
    mine = [row for row in rows if row.name in asked]
    whole = len(mine) == len(found.dumps) and all(row.complete for row in mine)
    return 0 if whole else 1


def _is_done(request: Request) -> bool:
    result = load_result(request.result)
    if result is None or not result.is_of(request):
        return False
    return not result.has_report or (request.html.exists() and request.json.exists())


def _read_all(folder: Folder, todo: Sequence[Request], options: FleetOptions, watch: Watch) -> None:
    jobs = min(options.jobs or len(os.sched_getaffinity(0)), len(todo), _MAX_JOBS)
    engine = Engine(jobs, options.scheduler)
    try:
        waiting, running = deque(todo), dict[str, Request]()
        while waiting or running:
            threads = engine.threads()
            most = options.jobs or max(threads, 1) * (1 if options.scheduler is None else _AHEAD)
            while waiting and len(running) < most:
                request = waiting.popleft()
                running[request.name] = request
                engine.submit(request.name, request.dumps())
            watch.show(min(len(running), threads), threads)
            ended = engine.next_ended(_LONG)
            if ended is None:
                continue
            request = running.pop(ended.name)
            if ended.lost and times_begun(request) < MAX_TRIES:
                waiting.appendleft(request)
                continue
            watch.end(_take(request, ended))
    finally:
        folder.end()  # first: workers on this machine end when their tasks have
        engine.close()


def _take(request: Request, ended: Ended) -> Result:
    """The result of a dump that was read; written here, if the worker could not."""
    value = json.loads(ended.answer) if ended.answer is not None else {}
    if value.get("written"):
        result = load_result(request.result)
        if result is not None and result.value["run"] == request.run:
            return result
        value = {"state": State.UNSEEN.value, "error": "what it wrote is not in this folder"}
    if ended.lost:
        tries = times_begun(request)
        state, error = State.CRASHED, f"its worker died {tries} times{last_lines(request.log)}"
    elif ended.answer is None:
        tries, state, error = 1, State.UNSEEN, f"the worker cannot read dumps: {ended.why}"
    else:
        tries = 1
        state, error = State(value["state"] or State.UNSEEN.value), str(value["error"])
    made = make_result(request, state, error, tries=tries, seconds=0.0)
    write_result(request, made)
    return Result(made)


def _stale(result: Result, request: Request | None) -> str:
    """
    Why a result is not of the dump as it is now; empty if it is.

    :param request: Of this run; None if the run was not about this dump.
    """
    value = result.value
    size, changed = value["size"], value["changed"]
    if request is not None:
        if (request.size, request.changed, request.sha256) != (size, changed, value["sha256"]):
            return "the dump changed since"
        version = value["version"]
        return "" if version == request.version else f"made by drgn-pmem {version}"
    try:
        status = os.stat(result.dump)
    except OSError as error:
        return f"the dump is not there any more ({error.strerror})"
    same = (status.st_size, status.st_mtime_ns) == (size, changed)
    return "" if same else "the dump changed since"


def _write_index(
    folder: Folder, found: Found, requests: Sequence[Request], seconds: float
) -> list[Row]:
    """All results that are in the folder, of earlier runs as well."""
    asked = {request.name: request for request in requests}
    rows = []
    with open_store(folder.path) as store:
        for result in folder.results():
            row = row_of(result, _stale(result, asked.get(result.name)))
            store.add(result, row)
            rows.append(row)
    now = datetime.now(timezone.utc)
    facts = [
        ("made", f"{now:%Y-%m-%d %H:%M:%S} UTC by drgn-pmem {product_version()}"),
        ("last run", f"{seconds:.0f} s; {plural(len(found.dumps), 'dump')} asked for"),
        ("data", "findings.jsonl, fleet.sqlite; each report also as JSON, beside it"),
    ]
    facts += [("skipped", f"{path}: {why}") for path, why in found.skipped]
    missing = {row.name for row in rows}
    left = [path for path in found.dumps if name_of(path) not in missing]
    facts += [("not done", path) for path in left]
    write_file(folder.path / "index.html", index_page(rows, facts))
    return rows

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Workers by Dask
---------------

The only module that knows Dask (distributed). Text goes to a worker, text comes back.

On this machine, scheduler and workers are threads of this process that talk without a network
(``inproc``): each dump is read by a process of its own anyhow, and no other user of the machine can
connect. Dask's HTTP servers, which cannot be left out, have no pages and listen on 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import tempfile
from typing import Any, NamedTuple

from drgn_pmem.errors import PmemError
from drgn_pmem.fleet.task import read_dump

__all__ = ("Ended", "Engine", "check_dask")

_HERE = "127.0.0.1:0"
_SETTINGS = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.admin.system-monitor.gil.enabled": False,
}
_CONNECT = 30
"""Seconds to wait for a scheduler."""


def _silence() -> None:
    """Have Dask log nothing: what it lacks is an error of ours, in one line. It gives each of its
    loggers a level when it is imported."""
    for name in ("distributed", "tornado", "asyncio", *logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def check_dask() -> None:
    """:raises PmemError: one line that says how to install Dask, if it is not there"""
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise PmemError(
            "drgn-pmem fleet needs Dask, which is not installed: pip install 'drgn-pmem[fleet]'"
            f" ({error})"
        ) from error


class Ended(NamedTuple):
    """A dump that was read, or could not be."""

    name: str
    answer: str | None
    why: str
    """Why there is no answer, in words."""
    lost: bool
    """Whether that is because the worker died."""


class Engine:
    """
    Workers that read dumps.

    :param jobs: Dumps at a time on this machine.
    :param scheduler: Address of a running scheduler, whose workers are used instead.
    :raises PmemError: if there is no such scheduler
    """

    def __init__(self, jobs: int, scheduler: str | None) -> None:
        import dask
        from distributed import Client, LocalCluster

        _silence()
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._futures: dict[str, Any] = {}
        self._cluster: Any = None
        self._folder = tempfile.TemporaryDirectory(prefix="drgn-pmem-fleet-")
        try:
            if scheduler is None:
                with dask.config.set({**_SETTINGS, "temporary-directory": self._folder.name}):
                    self._cluster = LocalCluster(
                        n_workers=jobs,
                        threads_per_worker=1,
                        processes=False,
                        dashboard_address=None,
                        worker_dashboard_address=_HERE,
                        memory_limit=0,
                        silence_logs=logging.CRITICAL,
                        scheduler_kwargs={"dashboard": False, "dashboard_address": _HERE},
                    )
            self._client = Client(
                self._cluster or scheduler,
                set_as_default=False,
                timeout=_CONNECT,
                name="drgn-pmem-fleet",
            )
        except (OSError, ValueError, RuntimeError) as error:
            what = f"no Dask scheduler at {scheduler}" if scheduler else "Dask does not start"
            raise PmemError(f"{what}: {' '.join(str(error).split())}") from error

    def submit(self, name: str, request: str) -> None:
        """Have a dump read; :meth:`next_ended` gives its name."""
        key = f"drgn-pmem-{name}-{os.urandom(4).hex()}"
        future = self._client.submit(read_dump, request, key=key, pure=False)
        self._futures[name] = future
        future.add_done_callback(lambda _: self._ended.put(name))

    def next_ended(self, seconds: float) -> Ended | None:
        """
        :param seconds: How long to wait.
        :return: A dump that was read; without an answer its worker died, or cannot run drgn-pmem.
            None if nothing has ended by then.
        :raises PmemError: if the scheduler is gone
        """
        from distributed.scheduler import KilledWorker

        try:
            name = self._ended.get(timeout=seconds)
        except queue.Empty:
            if self._client.status != "running":
                raise self._gone() from None
            return None
        future = self._futures.pop(name)
        if future.status == "finished":
            return Ended(name, future.result(timeout=_CONNECT), "", False)
        if future.status != "error":
            raise self._gone()
        error = future.exception(timeout=_CONNECT)
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return Ended(name, None, why, isinstance(error, KilledWorker))

    def _gone(self) -> PmemError:
        return PmemError("the Dask scheduler is gone; start it again and go on with --resume")

    def threads(self) -> int:
        """How many dumps the workers that are there now can read at a time."""
        try:
            return sum(self._client.nthreads().values())
        except (OSError, RuntimeError, AttributeError):
            return 0  # not connected at this moment

    def close(self) -> None:
        """Leave the workers; those on this machine end."""
        for thing in (self._client, self._cluster):
            with contextlib.suppress(Exception):
                # What fails in leaving changes no result.
                if thing is not None:
                    thing.close()
        with contextlib.suppress(OSError):
            self._folder.cleanup()

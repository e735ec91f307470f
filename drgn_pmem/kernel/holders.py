# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Page holders
------------

Open files that hold references on user pages: pipes (vmsplice, splice) and io_uring's registered
buffers, each with the exact pages; and descriptors of devices that may (RDMA, vfio). Sources:
include/linux/pipe_fs_i.h, fs/splice.c, io_uring/rsrc.c (fs/io_uring.c before v6.0).
"""

from collections.abc import Iterator
import enum
import itertools

from drgn import Program, TypeKind

from drgn_pmem.kernel.debuginfo import find_variable, has_type
from drgn_pmem.kernel.memory import Layout, Memory, cached, memory_of
from drgn_pmem.kernel.page_layout import PageLayout, page_layout
from drgn_pmem.kernel.paths import path_of_file
from drgn_pmem.kernel.tasks import OpenFile, for_each_open_file
from drgn_pmem.partial import Cause, Partial, Problem, Problems, WalkError
from drgn_pmem.record import Record, shown

__all__ = ("HeldPages", "Hold", "PinningDevice", "for_each_held", "for_each_pinning_device")

_S_IFMT = 0o170000
_S_IFIFO = 0o010000
_S_IFCHR = 0o020000

_MAX_BUFFERS = 1 << 16
_MAX_VECS = 1 << 20
_MAX_HELD = 1 << 18
"""Parts of buffers, of all pipes and rings."""


class Hold(enum.Enum):
    """How a page is held."""

    VMSPLICE = "vmsplice"
    SPLICE = "splice"
    PIPE = "pipe"
    """vmsplice or splice: this kernel does not show which."""
    IO_URING = "io_uring"
    DIRECT_IO = "direct I/O"
    RDMA = "RDMA"
    VFIO = "vfio"
    MEMORY_FAILURE = "memory failure"
    """memory_failure() of kernels that do not know persistent memory there."""
    USER_PAGES = "user pages"
    """get_user_pages() or the like."""
    STACK = "stack"
    """Its struct page is on the stack of a task whose functions do not show why."""


_PINNING_DEVICES = (
    ("/dev/vfio/", Hold.VFIO),
    ("/dev/infiniband/", Hold.RDMA),
    ("/dev/iommu", Hold.VFIO),
)


class HeldPages(Record):
    """Pages that an open file holds."""

    kind: Hold
    pfn: int
    """First PFN."""
    count: int
    """Pages."""
    opener: OpenFile = shown(json=False)
    detail: str


class PinningDevice(Record):
    """A descriptor of a device that pins user pages."""

    kind: Hold
    path: str
    opener: OpenFile


class _Held:
    """Builds a record from a bio_vec-like triple."""

    def __init__(self, prog: Program) -> None:
        self.pages: PageLayout = page_layout(prog)

    def of(
        self, kind: Hold, page: int, offset: int, length: int, opener: OpenFile, detail: str
    ) -> HeldPages:
        pfn = self.pages.pfn(page)
        if pfn is None:
            raise WalkError(f"{detail}: {page:#x} is not a struct page")
        page_size = 1 << self.pages.page_shift
        first = pfn + offset // page_size
        last = pfn + (offset + max(length, 1) - 1) // page_size
        count = min(last - first + 1, _MAX_VECS)
        return HeldPages(kind=kind, pfn=first, count=count, opener=opener, detail=detail)


class _Pipes:
    """Reader of ``struct pipe_inode_info``."""

    def __init__(self, prog: Program, problems: Problems) -> None:
        memory: Memory = memory_of(prog)
        self.held = _Held(prog)
        self.problems = problems
        # Since Linux kernel commit 8cefc107ca54 ("pipe: Use head and tail pointers for the ring,
        # not cursor and length") (in v5.5).
        pipe = Layout(memory, "struct pipe_inode_info", bufs="bufs")
        if pipe.has("nrbufs"):
            self.pipe = Layout(
                memory,
                "struct pipe_inode_info",
                used="nrbufs",
                tail="curbuf",
                size="buffers",
                bufs="bufs",
            )
        else:
            self.pipe = Layout(
                memory,
                "struct pipe_inode_info",
                head="head",
                tail="tail",
                size="ring_size",
                bufs="bufs",
            )
        self.buffer = Layout(
            memory,
            "struct pipe_buffer",
            page="page",
            offset="offset",
            length="len",
            ops="ops",
        )
        self.buffer_size = self.buffer.type.size or 0
        self.user_ops: int | None = None
        with problems.trying("pages of vmsplice"):
            self.user_ops = find_variable(prog, "user_page_pipe_buf_ops", "vmlinux").address_

    def _kind(self, ops: int) -> Hold:
        if self.user_ops is None:
            return Hold.PIPE
        return Hold.VMSPLICE if ops == self.user_ops else Hold.SPLICE

    def pages(self, address: int, opener: OpenFile) -> Iterator[HeldPages]:
        pipe = self.pipe.read(address)
        size = pipe["size"]
        used = pipe["used"] if "used" in pipe else (pipe["head"] - pipe["tail"]) & 0xFFFFFFFF
        # A power of two; the ring is never fuller than it is large.
        if not 0 < size <= _MAX_BUFFERS or size & (size - 1) or used > size:
            raise WalkError(
                f"pipe {address:#x}: its ring is implausible: {used} of {size} buffers used"
            )
        for number in range(pipe["tail"], pipe["tail"] + used):
            index = number & (size - 1)
            detail = f"pipe buffer {index} of fd {opener.fd}"
            with self.problems.trying(f"{detail} of {opener.task.tgid}"):
                buffer = self.buffer.read(pipe["bufs"] + index * self.buffer_size)
                yield self.held.of(
                    self._kind(buffer["ops"]),
                    buffer["page"],
                    buffer["offset"],
                    buffer["length"],
                    opener,
                    detail,
                )


class _Rings:
    """Reader of io_uring's registered buffers."""

    def __init__(self, prog: Program, problems: Problems) -> None:
        memory: Memory = memory_of(prog)
        self.memory = memory
        self.held = _Held(prog)
        self.problems = problems
        self.operations = find_variable(prog, "io_uring_fops", "vmlinux").address_
        # Since Linux kernel commit 50cf5f3842af ("io_uring/rsrc: add an empty io_rsrc_node for
        # sparse buffer entries") and its neighbours (in v6.13), a table of nodes.
        self.ring = Layout(
            memory,
            "struct io_ring_ctx",
            count=("buf_table.nr", "nr_user_bufs"),
            table=("buf_table.nodes", "user_bufs"),
        )
        self.node: Layout | None = None
        self.inline = False
        if self.ring.has("buf_table.nodes"):
            self.node = Layout(memory, "struct io_rsrc_node", buf="buf")
        else:
            # Before Linux kernel commit 41edf1a5ec96 ("io_uring: keep table of pointers to ubufs")
            # (in v5.13), an array of the structures themselves.
            table = self.ring.type.member("user_bufs").type.unaliased()
            self.inline = table.type.unaliased_kind() == TypeKind.STRUCT
        self.buffer = Layout(memory, "struct io_mapped_ubuf", ubuf="ubuf", count="nr_bvecs")
        self.buffer_size = self.buffer.type.size or 0
        self.vecs = self.buffer.offset("bvec")
        kind = self.buffer.type.member("bvec").type.unaliased_kind()
        self.vecs_are_inside = kind == TypeKind.ARRAY
        self.vec = Layout(
            memory, "struct bio_vec", page="bv_page", length="bv_len", offset="bv_offset"
        )
        self.vec_size = self.vec.type.size or 0

    def _buffer_address(self, table: int, number: int) -> int:
        """Address of a ``struct io_mapped_ubuf``; 0 for an empty slot."""
        if self.inline:
            return table + number * self.buffer_size
        pointer = self.memory.word(table + number * self.memory.word_size)
        return self.node.read(pointer)["buf"] if pointer and self.node else pointer

    def pages(self, address: int, opener: OpenFile) -> Iterator[HeldPages]:
        ring = self.ring.read(address)
        if ring["count"] > _MAX_BUFFERS:
            raise WalkError(f"io_ring_ctx {address:#x}: {ring['count']} buffers are too many")
        for number in range(ring["count"]):
            with self.problems.trying(f"registered buffer {number} of {opener.task.tgid}"):
                pointer = self._buffer_address(ring["table"], number)
                if pointer:
                    yield from self._of_buffer(pointer, number, opener)

    def _of_buffer(self, address: int, number: int, opener: OpenFile) -> Iterator[HeldPages]:
        buffer = self.buffer.read(address)
        if buffer["count"] > _MAX_VECS:
            raise WalkError(f"io_mapped_ubuf {address:#x}: {buffer['count']} parts are too many")
        start = address + self.vecs
        if not self.vecs_are_inside:
            start = self.memory.word(start)
        detail = f"registered buffer {number} at {buffer['ubuf']:#x}, ring fd {opener.fd}"
        for index in range(buffer["count"]):
            vec = self.vec.read(start + index * self.vec_size)
            yield self.held.of(
                Hold.IO_URING, vec["page"], vec["offset"], vec["length"], opener, detail
            )


def _walk(prog: Program, problems: Problems) -> Iterator[HeldPages]:
    memory = memory_of(prog)
    inode = Layout(memory, "struct inode", mode="i_mode", pipe="i_pipe")
    file = Layout(memory, "struct file", operations="f_op", private="private_data")
    pipes = problems.attempt("pipes", lambda: _Pipes(prog, problems))
    rings: _Rings | None = None
    # Since v5.1, if configured.
    if has_type(prog, "struct io_ring_ctx"):
        rings = problems.attempt("io_uring's buffers", lambda: _Rings(prog, problems))
    seen: set[int] = set()
    for opener in problems.take(for_each_open_file(prog)):
        with problems.trying(f"descriptor {opener.fd} of {opener.task.tgid}"):
            values = inode.read(opener.inode)
            reader: _Pipes | _Rings | None = None
            if values["mode"] & _S_IFMT == _S_IFIFO and values["pipe"]:
                target, reader = values["pipe"], pipes
            elif rings is not None:
                own = file.read(opener.file)
                if own["operations"] == rings.operations:
                    target, reader = own["private"], rings
            if reader is not None and target not in seen:
                seen.add(target)
                yield from reader.pages(target, opener)


def for_each_held(prog: Program) -> Partial[tuple[HeldPages, ...]]:
    """
    Pages held by pipes and by io_uring rings that some process has open.

    :raises MissingDebugInfo: without debug info of vmlinux
    """
    problems = Problems()
    found = tuple(itertools.islice(_walk(prog, problems), _MAX_HELD))
    if len(found) == _MAX_HELD:
        why = f"pipes and io_uring: stopped after {_MAX_HELD} parts of buffers"
        problems.add(Problem(cause=Cause.LIMIT, why=why))
    return problems.partial(found)


def _pinning_devices(prog: Program) -> Partial[tuple[PinningDevice, ...]]:
    problems = Problems()
    inode = Layout(memory_of(prog), "struct inode", mode="i_mode")
    found: list[PinningDevice] = []
    for opener in problems.take(for_each_open_file(prog)):
        with problems.trying(f"descriptor {opener.fd} of {opener.task.tgid}"):
            if inode.read(opener.inode)["mode"] & _S_IFMT != _S_IFCHR:
                continue
            path = path_of_file(prog, opener.file)[0]
            found += [
                PinningDevice(kind=kind, path=path, opener=opener)
                for start, kind in _PINNING_DEVICES
                if path.startswith(start)
            ]
    return problems.partial(tuple(found))


def for_each_pinning_device(prog: Program) -> Partial[tuple[PinningDevice, ...]]:
    """
    Descriptors of devices that pin user pages (vfio, RDMA); read once per program.

    :raises MissingDebugInfo: without debug info of vmlinux
    """
    devices: Partial[tuple[PinningDevice, ...]] = cached(
        prog, "pinning_devices", lambda: _pinning_devices(prog)
    )
    return devices

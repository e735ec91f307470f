# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Page holders
------------

Kernel objects behind file descriptors that hold references on user pages: pipes (vmsplice, splice)
and io_uring's registered buffers, each with the exact pages; and descriptors of devices that may
(RDMA, vfio). Sources: include/linux/pipe_fs_i.h, fs/splice.c, io_uring/rsrc.c.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from drgn import Program

from drgn_pmem.errors import MissingDebugInfo
from drgn_pmem.kernel.debuginfo import has_type
from drgn_pmem.kernel.memory import Layout, Memory, memory_of
from drgn_pmem.kernel.page_layout import PageLayout, page_layout
from drgn_pmem.kernel.paths import path_of_file
from drgn_pmem.kernel.tasks import OpenFile, for_each_open_file
from drgn_pmem.partial import WalkError

__all__ = ("HeldPages", "for_each_held", "for_each_pinning_device")

_S_IFMT = 0o170000
_S_IFIFO = 0o010000
_S_IFCHR = 0o020000

_MAX_BUFFERS = 1 << 16
_MAX_VECS = 1 << 20

_PINNING_DEVICES = (("/dev/vfio/", "vfio"), ("/dev/infiniband/", "rdma"), ("/dev/iommu", "vfio"))


@dataclass(frozen=True)
class HeldPages:
    """Pages that an object behind a descriptor holds."""

    kind: str
    """``"vmsplice"``, ``"splice"``, ``"io_uring"``"""
    pfn: int
    """First PFN."""
    count: int
    """Pages."""
    opener: OpenFile
    detail: str

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "pfn": self.pfn, "count": self.count, "detail": self.detail}


class _Walker:
    def __init__(self, prog: Program, problems: list[str]) -> None:
        self.prog = prog
        self.problems = problems
        self.memory: Memory = memory_of(prog)
        self.pages: PageLayout = page_layout(prog)
        memory = self.memory
        self.inode = Layout(memory, "struct inode", mode="i_mode", pipe="i_pipe")
        self.file = Layout(memory, "struct file", op="f_op", private="private_data")
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
        self.user_ops = self._address("user_page_pipe_buf_ops")
        self.ring_op = self._address("io_uring_fops")
        self.vec = Layout(
            memory, "struct bio_vec", page="bv_page", length="bv_len", offset="bv_offset"
        )
        self.vec_size = self.vec.type.size or 0
        self.ring: Layout | None = None
        if self.ring_op and has_type(prog, "struct io_mapped_ubuf"):
            self._ring_layouts()

    def _address(self, name: str) -> int | None:
        try:
            return self.prog[name].address_
        except LookupError:
            return None

    def _ring_layouts(self) -> None:
        memory = self.memory
        try:
            # Since Linux kernel commit 50cf5f3842af ("io_uring/rsrc: add an empty io_rsrc_node for
            # sparse buffer entries") and its neighbours (in v6.13), a table of nodes; before, an
            # array of buffers.
            self.ring = Layout(
                memory,
                "struct io_ring_ctx",
                "vmlinux",
                count=("buf_table.nr", "nr_user_bufs"),
                table=("buf_table.nodes", "user_bufs"),
            )
            self.through_nodes = self.ring.has("buf_table.nodes")
            self.node = (
                Layout(memory, "struct io_rsrc_node", buf="buf") if self.through_nodes else None
            )
            self.ubuf = Layout(memory, "struct io_mapped_ubuf", ubuf="ubuf", count="nr_bvecs")
            self.ubuf_vecs = self.ubuf.offset("bvec")
        except MissingDebugInfo as error:
            self.ring = None
            self.problems.append(f"io_uring buffers: {error}")

    def walk(self) -> Iterator[HeldPages]:
        seen: dict[int, OpenFile] = {}
        for opener in for_each_open_file(self.prog, self.problems):
            try:
                inode = self.inode.read(opener.inode)
                if inode["mode"] & _S_IFMT == _S_IFIFO and inode["pipe"]:
                    target, read = inode["pipe"], self._of_pipe
                else:
                    file = self.file.read(opener.file)
                    if self.ring is None or file["op"] != self.ring_op:
                        continue
                    target, read = file["private"], self._of_ring
                if target in seen:
                    continue
                seen[target] = opener
                yield from read(target, opener)
            except WalkError as error:
                self.problems.append(f"descriptor {opener.fd} of {opener.task.tgid}: {error}")

    def _held(
        self, kind: str, page: int, offset: int, length: int, opener: OpenFile, detail: str
    ) -> Iterator[HeldPages]:
        pfn = self.pages.pfn(page)
        if pfn is None:
            return
        page_size = 1 << self.pages.page_shift
        first = pfn + offset // page_size
        last = pfn + (offset + max(length, 1) - 1) // page_size
        yield HeldPages(kind, first, min(last - first + 1, _MAX_VECS), opener, detail)

    def _of_pipe(self, address: int, opener: OpenFile) -> Iterator[HeldPages]:
        pipe = self.pipe.read(address)
        size = pipe["size"]
        used = (pipe["head"] - pipe["tail"]) & 0xFFFFFFFF
        # A power of two; the ring is never fuller than it is large.
        if not 0 < size <= _MAX_BUFFERS or size & (size - 1) or used > size:
            raise WalkError(f"pipe {address:#x}: its ring is not sound")
        for number in range(pipe["tail"], pipe["tail"] + used):
            slot = pipe["bufs"] + (number & (size - 1)) * self.buffer_size
            buffer = self.buffer.read(slot)
            kind = "vmsplice" if buffer["ops"] == self.user_ops else "splice"
            detail = f"pipe buffer {number & (size - 1)} of fd {opener.fd}"
            yield from self._held(
                kind, buffer["page"], buffer["offset"], buffer["length"], opener, detail
            )

    def _of_ring(self, address: int, opener: OpenFile) -> Iterator[HeldPages]:
        assert self.ring is not None
        ring = self.ring.read(address)
        if ring["count"] > _MAX_BUFFERS:
            raise WalkError(f"io_ring_ctx {address:#x}: {ring['count']} buffers are too many")
        for number in range(ring["count"]):
            pointer = self.memory.word(ring["table"] + number * self.memory.word_size)
            if pointer and self.node is not None:
                pointer = self.node.read(pointer)["buf"]
            if not pointer:
                continue
            ubuf = self.ubuf.read(pointer)
            if ubuf["count"] > _MAX_VECS:
                raise WalkError(f"io_mapped_ubuf {pointer:#x}: {ubuf['count']} parts are too many")
            detail = f"registered buffer {number} at {ubuf['ubuf']:#x}, ring fd {opener.fd}"
            for index in range(ubuf["count"]):
                vec = self.vec.read(pointer + self.ubuf_vecs + index * self.vec_size)
                yield from self._held(
                    "io_uring", vec["page"], vec["offset"], vec["length"], opener, detail
                )


def for_each_held(prog: Program, problems: list[str]) -> Iterator[HeldPages]:
    """
    Pages held by pipes and by io_uring rings that some process has open.

    :param problems: Gets a line for what cannot be read.
    :raises MissingDebugInfo: without debug info of vmlinux
    """
    yield from _Walker(prog, problems).walk()


def for_each_pinning_device(prog: Program) -> Iterator[tuple[str, str, OpenFile]]:
    """
    Descriptors of devices that pin user pages.

    :return: (``"vfio"`` or ``"rdma"``, path, descriptor)
    """
    inode = Layout(memory_of(prog), "struct inode", mode="i_mode")
    for opener in for_each_open_file(prog):
        try:
            if inode.read(opener.inode)["mode"] & _S_IFMT != _S_IFCHR:
                continue
            path = path_of_file(prog, opener.file)[0] or ""
        except WalkError:
            continue
        for start, kind in _PINNING_DEVICES:
            if path.startswith(start):
                yield kind, path, opener

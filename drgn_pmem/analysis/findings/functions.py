# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which functions of the kernel belong to persistent memory, and what those on a stack show."""

import re

from drgn_pmem.kernel.holders import Hold

__all__ = ("LAYOUT_BREAK", "classify", "is_of_pmem")

LAYOUT_BREAK = re.compile(
    r"break_layout|break_dax_layouts|dax_break|wait_page_idle|dax_layout_busy"
)
"""Functions of a DAX layout break."""

_HOLDS: tuple[tuple[Hold, "re.Pattern[str]"], ...] = (
    (
        Hold.DIRECT_IO,
        re.compile(r"direct_IO|iomap_dio|_dio_|dio_await|direct_(read|write)|blk_io_schedule"),
    ),
    (Hold.VMSPLICE, re.compile(r"vmsplice")),
    (Hold.RDMA, re.compile(r"ib_umem|uverbs")),
    (Hold.VFIO, re.compile(r"vfio_|iopt_pin")),
    (Hold.IO_URING, re.compile(r"io_sqe_buffer|io_rsrc|io_uring_register")),
    (
        Hold.USER_PAGES,
        re.compile(r"(pin|get)_user_pages|iov_iter_(get|extract)_pages|process_vm_rw"),
    ),
)
"""How a page is held -> the functions that hold it so."""

_OF_PMEM = re.compile(
    r"""^_*(
    dax_|dev_dax|devm_create_dev_dax|fs_dax|bdev_dax|kill_dax|run_dax|put_dax|set_dax|alloc_dax
    |pmem_|nvdimm|libnvdimm|btt_
    |nd_(pmem|btt|pfn|dax|region|namespace|label|mapping|device|bus|cmd|blk|integrity|ns_|synchron)
    |acpi_nfit|nfit_|acpi_nvdimm|papr_scm|virtio_pmem|of_pmem|e820_pmem|cxl_pmem|cxl_nvdimm
    |ext[24]_dax|ext4_break_layouts|xfs_break_layouts|fuse_dax|virtio_fs_dax
    |iomap_dax|arch_wb_cache_pmem|arch_invalidate_pmem|memcpy_mcsafe
    |dev_pagemap|memremap_pages|memunmap_pages|devm_memremap_pages|free_zone_device|pagemap_range
    )""",
    re.VERBOSE,
)
"""Names of drivers/nvdimm, drivers/dax, fs/dax.c, mm/memremap.c, the drivers of the buses, and the
parts of file systems that are for DAX."""

_IN_ANOTHER = re.compile(r"_dax_|_dax$|_pmem_|_pmem$|zone_device")


def is_of_pmem(function: str) -> bool:
    """Whether a function belongs to persistent memory, by its name."""
    return bool(_OF_PMEM.match(function) or _IN_ANOTHER.search(function))


def classify(functions: tuple[str, ...]) -> tuple[bool, Hold | None, str | None]:
    """Whether a stack waits in a layout break, how it holds pages, and the function that shows
    it."""
    waiting = [function for function in functions if LAYOUT_BREAK.search(function)]
    if waiting:
        # The file system's function says more than what it waits in.
        return True, None, waiting[-1]
    for hold, pattern in _HOLDS:
        holding = [function for function in functions if pattern.search(function)]
        if holding:
            return False, hold, holding[0]
    return False, None, None

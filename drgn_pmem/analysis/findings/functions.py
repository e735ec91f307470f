# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which functions of the kernel belong to persistent memory."""

import re

__all__ = ("is_of_pmem",)

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

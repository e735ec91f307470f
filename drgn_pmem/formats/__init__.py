# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Byte layouts, decoded with no debug info and no drgn: bytes to record, record to bytes."""

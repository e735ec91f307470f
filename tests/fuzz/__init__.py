# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Hostile bytes, by ``make fuzz MINUTES=n`` (``python -m tests.fuzz -h``): what may come out is an
answer or one line of :class:`~drgn_pmem.errors.PmemError`.
"""

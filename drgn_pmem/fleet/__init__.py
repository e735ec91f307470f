# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Many dumps: a report of each, made by processes of their own on all cores or on a Dask cluster, and
an index of all (``drgn-pmem fleet``).
"""

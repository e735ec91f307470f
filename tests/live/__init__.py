# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Live kernels: what vmcores/lab/live left (make test-live)."""

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The dump file on disk: what is in it and where. Knows no kernel structure."""

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The crashed kernel: drgn helpers in drgn's own style; Object in, Object or record out."""

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Settings of every test."""

import os

from hypothesis import settings

# No deadline: how fast a test runs says more about the machine than about the code.
settings.register_profile("default", deadline=None)
settings.register_profile("fuzz", deadline=None, max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Settings of every test."""

import os

from hypothesis import HealthCheck, settings

# No deadline: how fast a test runs says more about the machine than about the code.
_ANY_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", _ANY_MACHINE)
settings.register_profile("fuzz", _ANY_MACHINE, max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

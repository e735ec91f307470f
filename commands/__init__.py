# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a user can type: one file per command, a spec and a thin function."""

import importlib
import pkgutil

from drgn_pmem.spec import SPECS, Spec

__all__ = ("load_commands",)


def load_commands() -> list[Spec]:
    """Import every command of this folder; its specs in order of their names."""
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        importlib.import_module(module.name)
    return [SPECS[name] for name in sorted(SPECS)]

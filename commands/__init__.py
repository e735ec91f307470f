# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What a user can type: one file per command, a spec and a thin function.

The file ``pmem_list.py`` declares the command ``pmem-list``: names are known without importing a
command, which drgn's start does not wait for.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drgn_pmem.spec import Spec

__all__ = ("command_names", "load_command", "load_commands")

_NO_COMMANDS = ("common", "report", "verify")
"""Files of this folder that declare none: what commands share."""


def command_names() -> list[str]:
    """Names of all commands, sorted."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name.replace("_", "-") for name in modules if name not in _NO_COMMANDS)


def load_command(name: str) -> Spec:
    """Import the file of a command; its spec."""
    from drgn_pmem.spec import SPECS

    if name not in SPECS:
        importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    return SPECS[name]


def load_commands() -> list[Spec]:
    """Import every command; their specs, in order of their names."""
    return [load_command(name) for name in command_names()]

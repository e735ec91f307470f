# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Folders of the user's, by the XDG Base Directory specification."""

import os
from pathlib import Path

__all__ = ("cache_directory", "config_directory", "state_directory")


def _folder(variable: str, default: str) -> Path:
    base = os.environ.get(variable) or ""
    # The specification says that a relative path is to be ignored.
    root = Path(base) if os.path.isabs(base) else Path(os.path.expanduser(default))
    return root / "drgn-pmem"


def cache_directory() -> Path:
    """Unpacked samples."""
    return _folder("XDG_CACHE_HOME", "~/.cache")


def config_directory() -> Path:
    """The config file and favourites."""
    return _folder("XDG_CONFIG_HOME", "~/.config")


def state_directory() -> Path:
    """History."""
    return _folder("XDG_STATE_HOME", "~/.local/state")

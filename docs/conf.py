# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Settings of Sphinx: ``make docs``."""

import importlib.metadata

project = "drgn-pmem"
author = "The drgn-pmem authors"
copyright = author
release = importlib.metadata.version("drgn-pmem")
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["examples"]
html_theme = "furo"
myst_heading_anchors = 3

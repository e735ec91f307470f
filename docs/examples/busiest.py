"""The DAX files with the most pages: busiest.py [COUNT]."""

import sys

from drgn_pmem import list_files

count = int(sys.argv[1]) if sys.argv[1:] else 3
files = list_files(prog).value  # noqa: F821 (prog is set by drgn-pmem)
for file in sorted(files, key=lambda file: -(file.pages or 0))[:count]:
    print(f"{file.pages:>6}  {file.path}")

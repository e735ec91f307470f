#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# shrink-vmlinux.sh VMLINUX OUTPUT: keep what drgn needs, small enough to ship.
#
# What is inside functions goes first (prune-dwarf.py).  The order matters: dwz crashes once
# .debug_line is gone.  --only-keep-debug will not do: drgn reads the per-CPU and ORC sections from
# the file, and stack traces fault without them.
#
# Needs: binutils dwz python3.  OBJCOPY names another objcopy for a foreign machine.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
objcopy=${OBJCOPY:-objcopy}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$objcopy" -R '.rela*' -R .debug_aranges "$1" "$scratch/no-relocations"
OBJCOPY=$objcopy "$here/../prune-dwarf.py" "$scratch/no-relocations" "$scratch/pruned"
dwz -l 100000000 -L 100000000 -o "$scratch/shared-dwarf" "$scratch/pruned"
"$objcopy" -R .debug_line -R .debug_line_str -R .debug_loclists -R .debug_frame \
	"$scratch/shared-dwarf" "$2"
ls -l "$1" "$2"

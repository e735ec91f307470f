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
# The text is in every dump: zeroes here.  .rodata keeps the banner that tools compare.
zeroed=()
for section in .text .init.text .init.data; do
	size=$(readelf -SW "$1" | sed -n "s/.* $section  *PROGBITS  *[^ ]* [^ ]* \([^ ]*\) .*/\1/p")
	[ -n "$size" ] || continue
	truncate -s $((16#$size)) "$scratch/zeroes$section"
	zeroed+=(--update-section "$section=$scratch/zeroes$section")
done
"$objcopy" "${zeroed[@]}" -R .debug_line -R .debug_line_str -R .debug_loclists -R .debug_frame \
	"$scratch/shared-dwarf" "$2"
ls -l "$1" "$2"

#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# shrink-vmlinux.sh VMLINUX OUTPUT: keep what drgn needs, small enough to ship.
#
# What is inside functions goes first (prune-dwarf.py).  The order matters: dwz crashes once .debug_line
# is gone.  The text is in every dump: zeroes here.  .rodata keeps the banner that tools compare.
#
# Needs: binutils-powerpc64le-linux-gnu dwz python3.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
objcopy=powerpc64le-linux-gnu-objcopy
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$objcopy" -R .debug_aranges "$1" "$scratch/no-aranges"
OBJCOPY=$objcopy "$here/../prune-dwarf.py" "$scratch/no-aranges" "$scratch/pruned"
dwz -l none -L none -o "$scratch/shared-dwarf" "$scratch/pruned"
zeroed=()
for section in .text .init.text .init.data; do
	size=$(readelf -SW "$1" | sed -n "s/.* $section  *PROGBITS  *[^ ]* [^ ]* \([^ ]*\) .*/\1/p")
	[ -n "$size" ] || continue
	truncate -s $((16#$size)) "$scratch/zeroes$section"
	zeroed+=(--update-section "$section=$scratch/zeroes$section")
done
"$objcopy" "${zeroed[@]}" -R .debug_line -R .debug_line_str \
	"$scratch/shared-dwarf" "$2"
ls -l "$1" "$2"

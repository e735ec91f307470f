#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# shrink-vmlinux.sh VMLINUX OUTPUT: keep what drgn needs, small enough to ship.
#
# The order matters: dwz crashes once .debug_line is gone.  The code may go too: unlike on x86, drgn
# unwinds ppc64 with .debug_frame and the back chain, and reads all code and data from the dump.
#
# Needs: binutils-powerpc64le-linux-gnu dwz.
set -eu

objcopy=powerpc64le-linux-gnu-objcopy
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

dwz -l none -L none -o "$scratch/shared-dwarf" "$1"
"$objcopy" --only-keep-debug -R .debug_line -R .debug_line_str -R .debug_aranges \
	"$scratch/shared-dwarf" "$2"
ls -l "$1" "$2"

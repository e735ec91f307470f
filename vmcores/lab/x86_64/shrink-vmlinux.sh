#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# shrink-vmlinux.sh VMLINUX OUTPUT [SOURCE...]: keep what drgn needs, small enough to ship.  With SOURCEs, of a
# distribution's kernel: the debug info of these source files only (see prune-dwarf.py), without the symbols that
# its build makes beside those of functions and variables.
#
# What is inside functions goes first (prune-dwarf.py).  The order matters: dwz crashes once
# .debug_line is gone.  --only-keep-debug will not do: drgn reads the per-CPU and ORC sections from
# the file, and stack traces fault without them.
#
# Needs: binutils dwz python3.  OBJCOPY names another objcopy for a foreign machine.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
objcopy=${OBJCOPY:-objcopy}
vmlinux=$1 output=$2
shift 2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$objcopy" -R '.rela*' -R .debug_aranges "$vmlinux" "$scratch/no-relocations"
OBJCOPY=$objcopy "$here/../prune-dwarf.py" "$scratch/no-relocations" "$scratch/pruned" "$@"
dwz -l 100000000 -L 100000000 -o "$scratch/shared-dwarf" "$scratch/pruned"
# The text is in every dump: zeroes here.  .rodata keeps the banner that tools compare.
zeroes=".text .init.text .init.data"
options=()
if [ $# -gt 0 ]; then
	# what is used once, at boot
	zeroes="$zeroes .altinstructions .altinstr_replacement .retpoline_sites .return_sites .call_sites .ibt_endbr_seal
		.smp_locks .init.scratch"
	options=(-R .debug_rnglists --wildcard)
	for symbol in __pfx_ __kstrtab __ksymtab_ __crc_ __SCT__ __SCK__ __SCP__ __UNIQUE_ID __func__. __event_ \
		trace_event_ __bpf_trace __already_done __setup_ __tpstr __initcall __param_ .LC event_class_ trace_raw_ \
		print_fmt_ __key.; do
		options+=("--strip-symbol=$symbol*")
	done
fi
for section in $zeroes; do
	size=$(readelf -SW "$vmlinux" | sed -n "s/.* $section  *PROGBITS  *[^ ]* [^ ]* \([^ ]*\) .*/\1/p")
	[ -n "$size" ] || continue
	truncate -s $((16#$size)) "$scratch/zeroes$section"
	options+=(--update-section "$section=$scratch/zeroes$section")
done
"$objcopy" "${options[@]}" -R .debug_line -R .debug_line_str -R .debug_loclists -R .debug_frame \
	"$scratch/shared-dwarf" "$output"
ls -l "$vmlinux" "$output"

#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# formats.sh OUTPUT [FORMAT...]: make other formats of OUTPUT/vmcore with makedumpfile, as users do.
#
#	elf		makedumpfile -E -d 31		ELF, pages left out: p_filesz < p_memsz
#	zlib, lzo	makedumpfile -c, -l -d 31	kdump-compressed
#	flattened	makedumpfile -F -l -d 31	for a pipe
#
# The dump level is lowered (LEVELS, 31 23 1 by default) if makedumpfile cannot do it: it fails with
# "Can't convert a virtual address" where a section has struct pages for only a part of its pmem.
# MAKEDUMPFILE is another command for a foreign machine: makedumpfile reads dumps of its own only.
# OUTPUT/truth/makedumpfile.FORMAT is what it reported, OUTPUT/formats says which level each got.
# Debian 12's makedumpfile has neither snappy nor zstd; QEMU writes snappy.
#
# Needs: makedumpfile.
set -eu

output=$1
shift
# no progress, but the report
read -r -a makedumpfile <<< "${MAKEDUMPFILE:-makedumpfile} --message-level 22"
: > "$output/formats"

# Standard output is the dump itself for -F; what makedumpfile says is its report.
convert() {
	local format=$1 level=$2 source=$output/vmcore target=$output/vmcore.$1
	rm -f "$target"
	case $format in
	elf) "${makedumpfile[@]}" -E -d "$level" "$source" "$target" >&2 ;;
	zlib) "${makedumpfile[@]}" -c -d "$level" "$source" "$target" >&2 ;;
	lzo) "${makedumpfile[@]}" -l -d "$level" "$source" "$target" >&2 ;;
	flattened) "${makedumpfile[@]}" -F -l -d "$level" "$source" > "$target" ;;
	esac 2> "$output/truth/makedumpfile.$format"
}

for format in "$@"; do
	for level in ${LEVELS:-31 23 1}; do
		convert "$format" "$level" || continue
		echo "$format $level" >> "$output/formats"
		break
	done
done
cat "$output/formats"

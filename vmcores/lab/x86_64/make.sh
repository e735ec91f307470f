#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# make.sh WORK [SCENARIO...]: build the kernels and the guest if WORK has none, run the scenarios (all
# of them by default), and pack what they leave into vmcores/.
#
# Needs what build-kernel.sh, make-guest.sh, run.sh, formats.sh and shrink-vmlinux.sh need.  About
# half an hour on two cores.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
work=$(cd "$1" && pwd)
shift
pack() {
	python3 "$here/../pack.py" "$@"
}

for version in 6.1 7.2; do
	[ -f "$work/vmlinux-$version" ] || "$here/build-kernel.sh" "$version" "$work"
	if [ ! -f "$work/vmlinux-$version.small" ]; then
		"$here/shrink-vmlinux.sh" "$work/vmlinux-$version" "$work/vmlinux-$version.small"
		pack kernel "$work/vmlinux-$version.small" "$work/config-$version" x86_64
	fi
done
[ -f "$work/initrd" ] || "$here/make-guest.sh" "$work"

if [ $# -eq 0 ]; then
	set -- "$here"/scenarios/*
fi
for scenario in "$@"; do
	name=${scenario##*/}
	(
		# shellcheck source=/dev/null
		. "$here/scenarios/$name"
		output=$work/runs/$name
		"$here/run.sh" "$name" "$work" "$output"
		made=""
		for format in $FORMATS; do
			case $format in
			raw* | qemu-*) ;;
			*) made="$made ${format%%=*}" ;;
			esac
		done
		# shellcheck disable=SC2086
		[ -z "$made" ] || LEVELS=${LEVELS:-} "$here/formats.sh" "$output" $made
		loader=kexec_file_load
		[ "$LOADER" = file ] || loader=kexec_load
		release=$(sed 's/^Linux [^ ]* \([^ ]*\) .*/\1/' "$output/truth/uname")
		# shellcheck disable=SC2086
		pack sample "$name" "$output" x86_64 "$release" "$loader" "$DESCRIPTION" $FORMATS
	)
done

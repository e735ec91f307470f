#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# make.sh WORK [SAMPLE...]: prepare WORK, build the kernels if it has none, crash the guests (all of them by
# default), and pack what they leave into vmcores/.
#
# Needs what prepare.sh, build-kernel.sh, make-guest.sh, run.sh, run-pmem.sh and shrink-vmlinux.sh need.  About 20
# minutes on two cores.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
work=$(cd "$1" && pwd)
shift
pack() {
	python3 "$here/../pack.py" "$@"
}

[ -f "$work/initrd.gz" ] || "$here/prepare.sh" "$work"
[ -f "$work/tools.img" ] || "$here/make-guest.sh" "$work"
for version in 6.1 6.12-pmem; do
	[ -f "$work/vmlinux-$version" ] || "$here/build-kernel.sh" "$version" "$work"
	if [ ! -f "$work/vmlinux-$version.small" ]; then
		"$here/shrink-vmlinux.sh" "$work/vmlinux-$version" "$work/vmlinux-$version.small"
		pack kernel "$work/vmlinux-$version.small" "$work/config-$version" ppc64le
	fi
done

# sample NAME VERSION CPU DESCRIPTION FORMAT...: format=base: stored as a difference from that, see pack.py
sample() {
	local name=$1 version=$2 cpu=$3 description=$4 release
	shift 4
	case $version in
	*-pmem) "$here/run-pmem.sh" "$work" "$work/runs/$name" "$cpu" ;;
	*) "$here/run.sh" "$work" "$version" "$work/runs/$name" "$cpu" ;;
	esac
	release=$(sed -n 's/^.*Linux version \([^ ]*\) .*/\1/p' "$work/runs/$name/truth/console" | head -n 1)
	pack sample "$name" "$work/runs/$name" ppc64le "$release" fadump "$description" "$@"
}

[ $# -ne 0 ] || set -- ppc64le-6.12 ppc64le-6.1 ppc64le-6.12-hash
for name in "$@"; do
	case $name in
	ppc64le-6.12)
		sample "$name" 6.12-pmem POWER9 "pseries, radix MMU, NVDIMMs (papr_scm), firmware-assisted dump: crash info header FADMPSIG" \
			raw qemu-elf=raw qemu-capture=raw,qemu-elf
		;;
	ppc64le-6.1)
		sample "$name" 6.1 POWER9 "pseries, radix MMU, firmware-assisted dump: crash info header FADMPINF" \
			raw qemu-elf=raw qemu-capture=raw,qemu-elf
		;;
	ppc64le-6.12-hash)
		sample "$name" 6.12-pmem POWER8 "pseries, POWER8 with the hash MMU, NVDIMMs (papr_scm), firmware-assisted dump" \
			raw=ppc64le-6.12:raw
		;;
	*)
		echo "make.sh: no sample $name" >&2
		exit 2
		;;
	esac
done

#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# make.sh WORK [SCENARIO...]: build the kernels and the guest if WORK has none, run the scenarios (all
# of them by default), and pack what they leave into vmcores/.
#
# Needs what build-kernel.sh, make-guest.sh, run.sh, formats.sh and shrink-vmlinux.sh need, and for a distribution's
# kernel apt, kmod, mmdebstrap and 10 GB.  About half an hour on two cores.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
work=$(cd "$1" && pwd)
shift
# shellcheck source=vmcores/lab/debian.sh
. "$here/../debian.sh"
pack() {
	python3 "$here/../pack.py" "$@"
}

# What stays of a distribution's debug info (prune-dwarf.py).  drgn looks for vmemmap_populate(), of init_64.c.
SOURCES="init/ mm/ arch/x86/kernel/ arch/x86/mm/init_64.c+ arch/x86/mm/ drivers/base/ drivers/dax/ drivers/cxl/ block/
	io_uring/ kernel/*.c kernel/cgroup/ kernel/irq/ kernel/locking/ kernel/module/ kernel/printk/ kernel/rcu/
	kernel/sched/ kernel/time/ fs/*.c fs/iomap/ fs/kernfs/ fs/proc/ fs/sysfs/ lib/*.c"

# distribution SUITE KERNEL MODULE...: WORK/SUITE, what run.sh takes instead of WORK: a distribution's kernel, its
# MODULEs in the guest's initrd, its tools and its QEMU; and its debug info, packed.
distribution() {
	local folder=$work/$1 suite=$1 kernel=$2 name=""
	shift 2
	[ ! -f "$folder/tools.img" ] || return 0
	[ -f "$folder/kernel/release" ] || fetch_kernel "$folder/kernel" "$suite" linux-image-amd64
	cp "$(find_kernel "$folder/kernel")" "$folder/bzImage-$kernel"
	add_modules "$work/guest/initrd" "$folder/kernel" "$folder/initrd" "$@"
	later_qemu "$folder/qemu"
	set -f # the * are for prune-dwarf.py
	# shellcheck disable=SC2086
	"$here/shrink-vmlinux.sh" "$(find "$folder/kernel/debug" -name 'vmlinux-*' -type f)" "$folder/vmlinux.small" $SOURCES
	set +f
	for name in ext4:fs/ext4/super.c libnvdimm:drivers/ nd_pmem:drivers/; do
		"$here/../prune-dwarf.py" "$(find "$folder/kernel/debug" -name "${name%:*}.ko")" "$folder/${name%:*}.ko" "${name#*:}"
	done
	pack kernel "$folder/vmlinux.small" - x86_64 "$folder"/{ext4,libnvdimm,nd_pmem}.ko
	mmdebstrap --quiet --variant=extract --include=ndctl,daxctl,cxl,e2fsprogs,xfsprogs "$suite" "$folder/tools" "$(debian_mirror)"
	for name in bin sbin lib lib64; do
		ln -sfn "usr/$name" "$folder/tools/$name"
	done
	mke2fs -q -t ext4 -d "$folder/tools" "$folder/tools.img" 300M > /dev/null
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
		if [ -n "${SUITE:-}" ]; then
			# shellcheck disable=SC2086
			distribution "$SUITE" "$KERNEL" $MODULES
		fi
		"$here/run.sh" "$name" "$work${SUITE:+/$SUITE}" "$output"
		made=""
		for format in $FORMATS; do
			case $format in
			raw* | qemu-*) ;;
			*) made="$made ${format%%=*}" ;;
			esac
		done
		# shellcheck disable=SC2086
		[ -z "$made" ] || LEVELS=${LEVELS:-} "$here/formats.sh" "$output" $made
		case $LOADER in
		file) loader=kexec_file_load ;;
		load) loader=kexec_load ;;
		*) loader=$LOADER ;;
		esac
		release=$(sed 's/^Linux [^ ]* \([^ ]*\) .*/\1/' "$output/truth/uname")
		# shellcheck disable=SC2086
		pack sample "$name" "$output" x86_64 "$release" "$loader" "$DESCRIPTION" $FORMATS
	)
done

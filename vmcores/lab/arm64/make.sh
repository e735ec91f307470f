#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# make.sh WORK: build the kernel and the guest if WORK has none, crash the guest, and pack what it
# leaves into vmcores/arm64-6.12.
#
# Needs what build-kernel.sh, make-guest.sh and run.sh need, and dwz and qemu-user.  About a quarter of an
# hour on two cores.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
work=$(cd "$1" && pwd)
output=$work/runs/arm64-6.12
pack() {
	python3 "$here/../pack.py" "$@"
}

[ -f "$work/vmlinux" ] || "$here/build-kernel.sh" "$work"
if [ ! -f "$work/vmlinux.small" ]; then
	OBJCOPY=aarch64-linux-gnu-objcopy "$here/../x86_64/shrink-vmlinux.sh" "$work/vmlinux" "$work/vmlinux.small"
	pack kernel "$work/vmlinux.small" "$work/config" arm64
fi
[ -f "$work/initrd" ] || "$here/make-guest.sh" "$work"

"$here/run.sh" "$work" "$output"
MAKEDUMPFILE="qemu-aarch64 -L $work/tools $work/tools/usr/sbin/makedumpfile" \
	"$here/../x86_64/formats.sh" "$output" elf
release=$(sed 's/^Linux [^ ]* \([^ ]*\) .*/\1/' "$output/truth/uname")
pack sample arm64-6.12 "$output" arm64 "$release" kexec_file_load \
	"arm64, kexec_file_load with the RFC's list and PF_DEV; struct pages of half a section on pmem, too" \
	raw elf=raw qemu-elf=raw

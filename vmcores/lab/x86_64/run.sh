#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# run.sh SCENARIO WORK OUTPUT: boot the guest that scenarios/SCENARIO (or a file, if there is a slash in
# it) describes, crash it, and leave OUTPUT/vmcore (raw, sparse), OUTPUT/vmcore.qemu-* (QEMU's own dumps), OUTPUT/truth/ and the logs.
#
# WORK is what build-kernel.sh and make-guest.sh filled.  About a minute, emulated.
# Needs: qemu-system-x86, and what ../guest.sh needs; a scenario with MACHINE takes QEMU 8.0 or later, or
# trixie's in WORK/qemu (later_qemu in ../debian.sh).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
work=$(cd "$2" && pwd)
mkdir -p "$3"
output=$(cd "$3" && pwd)
# shellcheck source=vmcores/lab/guest.sh
. "$here/../guest.sh"
# shellcheck source=vmcores/lab/debian.sh
. "$here/../debian.sh"

# what a scenario may set
KERNEL=6.1 LOADER=file SETUP=full CAPTURE_PMEM=0 QEMU_CAPTURE=0 HOTADD=0 QEMU_DUMPS="" VMCOREINFO_DEVICE=0
CRASHKERNEL=96M MEMORY="256 64" TIMEOUT=${TIMEOUT:-900} APPEND="" PROVIDERS=0
FORMATS="" DESCRIPTION="" DIMMS="384 256 256 256 128 128 256"
MACHINE="" CPU="" DEVICES="" DISK_BUS=""
case $1 in
*/*) scenario=$1 ;;
*) scenario=$here/scenarios/$1 ;;
esac
# shellcheck source=/dev/null
. "$scenario"
# shellcheck disable=SC2034
loader=$LOADER # for collect

make_disks "$work" "KERNEL=bzImage-$KERNEL LOADER=$LOADER SETUP=$SETUP CAPTURE_PMEM=$CAPTURE_PMEM QEMU_CAPTURE=$QEMU_CAPTURE HOTADD=$HOTADD QEMU_DUMPS=\"$QEMU_DUMPS\"" \
	"$here"/guest/*.sh "$work/bzImage-$KERNEL" "$work/initrd"
add_memory "$MEMORY" "$DIMMS"
start_control
if [ "$VMCOREINFO_DEVICE" = 1 ]; then
	options+=(-device vmcoreinfo)
fi

# GenuineIntel: the kernel decodes machine checks by vendor, and libnvdimm listens to Intel's.  cx16=off: QEMU
# 7.2's emulated cmpxchg16b breaks newer kernels.
machine=pc,nvdimm=on cpu=max,la57=off,cx16=off,vendor=GenuineIntel qemu=(qemu-system-x86_64)
if [ -n "$MACHINE" ]; then
	machine=$MACHINE cpu=$CPU
	use_later_qemu "$work/qemu"
	read -r -a devices -d '' <<< "$DEVICES" || true
	options+=("${devices[@]}")
fi
if [ "$PROVIDERS" = 1 ]; then
	# What lies from 4 GiB on is no RAM to the kernel: see describe() in distro.sh.  5-level page tables.
	machine=$machine,max-ram-below-4g=1G cpu=${cpu/la57=off/la57=on}
	# a file: a flush of the device is an fsync of what holds its memory
	truncate -s 256M "$output/nvdimm-virtio"
	options+=(-object "memory-backend-file,id=virtio0,size=256M,share=on,mem-path=$output/nvdimm-virtio"
		  -device virtio-pmem-pci,memdev=virtio0,id=virtio-pmem0)
fi

timeout "$TIMEOUT" "${qemu[@]}" -accel tcg,thread=multi -machine "$machine" -cpu "$cpu" -smp 2,sockets=2,cores=1,threads=1 \
	"${options[@]}" \
	-kernel "$work/bzImage-$KERNEL" -initrd "$work/initrd" \
	-append "console=ttyS0 ${CRASHKERNEL:+crashkernel=$CRASHKERNEL }panic=10 init_on_free=1 swiotlb=noforce $APPEND" \
	-serial "unix:$output/guest.sock,server,nowait"
collect

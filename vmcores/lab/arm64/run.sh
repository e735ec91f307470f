#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# run.sh WORK OUTPUT [PAGES]: boot the guest, let QEMU dump it while it waits, crash it, and leave
# OUTPUT/vmcore (raw, sparse), OUTPUT/vmcore.qemu-elf, OUTPUT/truth/ and the logs; with QEMU_CAPTURE=1 also
# OUTPUT/vmcore.qemu-capture, QEMU's dump of the capture kernel (--crashed opens the crashed one in it).
#
# WORK is what build-kernel.sh and make-guest.sh filled.  About two minutes, emulated.  PAGES is that
# of build-kernel.sh: sections and memory blocks of 128 MiB with 16K, of 512 MiB with 64K want larger
# DIMMs, and the last one, which becomes RAM, holds whole blocks wherever it lies.
#
# - UEFI, because ACPI and with it the NFIT need it; virtio-rng, because the EFI stub wants randomness
#   for KASLR; the vmcoreinfo device, through which the guest tells QEMU where its vmcoreinfo lies.
# - memtest=1 and init_on_free=1: what the firmware and the kernel have left in free memory shall not
#   weigh anything.
# - OF_PMEM=1: no DIMMs and no ACPI, but a device tree with persistent memory (of_pmem; dtc's fdtput is needed):
#   memory that mem= keeps from the kernel.
# - Cortex-A72 has no DC CVAP: a model that has one makes QEMU msync the DIMM's file by the cache line.
#
# Needs: qemu-system-arm qemu-efi-aarch64, and what ../guest.sh needs.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
work=$(cd "$1" && pwd)
mkdir -p "$2"
output=$(cd "$2" && pwd)
# shellcheck source=vmcores/lab/guest.sh
. "$here/../guest.sh"

case ${3:-4K} in
4K) memory="256 64" crashkernel=80M dimms="256 128 128 256 128 128 256" ;;
16K) memory="1024 512" crashkernel=384M dimms="384 256 128 256 128 128 512" ;;
64K) memory="768 256" crashkernel=384M dimms="1024 512 256 512 256 256 1024" ;;
esac

scripts=("$here"/../x86_64/guest/*.sh "$here"/guest/*.sh)
if [ "${OF_PMEM:-0}" = 1 ]; then
	scripts+=("$here"/guest-of/*.sh)
	memory="448 512" dimms="" APPEND="mem=512M ${APPEND:-}"
fi

make_disks "$work" "CONSOLE=ttyAMA0 CONTROL=/dev/ttyS0 KERNEL=Image LOADER=${LOADER:-file} SETUP=$([ "${OF_PMEM:-0}" = 1 ] && echo small || echo full) CAPTURE_PMEM=0 QEMU_CAPTURE=${QEMU_CAPTURE:-0} HOTADD=0 QEMU_DUMPS=elf" \
	"${scripts[@]}" "$work/Image" "$work/initrd"
add_memory "${MEMORY:-$memory}" "${DIMMS:-$dimms}"
machine=virt,gic-version=3
options+=(-cpu "${CPU:-cortex-a72}" -smp "2,sockets=2,cores=1,threads=1" -device virtio-rng-pci -device vmcoreinfo)
if [ "${OF_PMEM:-0}" = 1 ]; then
	# QEMU writes the nodes of RAM anew, and leaves all others as they are
	qemu-system-aarch64 -machine "$machine,dumpdtb=$output/virt.dtb" "${options[@]}" > /dev/null
	fdtput -p -t s "$output/virt.dtb" /pmem@60000000 compatible pmem-region
	fdtput -t x "$output/virt.dtb" /pmem@60000000 reg 0 60000000 0 10000000 0 70000000 0 8000000
	fdtput -t x "$output/virt.dtb" /pmem@60000000 numa-node-id 1
	fdtput -p -t s "$output/virt.dtb" /pmem@78000000 compatible pmem-region
	fdtput -t x "$output/virt.dtb" /pmem@78000000 reg 0 78000000 0 4000000
	fdtput -t x "$output/virt.dtb" /pmem@78000000 volatile
	options+=(-dtb "$output/virt.dtb")
else
	machine=$machine,nvdimm=on
	options+=(-bios /usr/share/qemu-efi-aarch64/QEMU_EFI.fd)
fi
start_control
timeout "${TIMEOUT:-900}" qemu-system-aarch64 -accel tcg,thread=multi -machine "$machine" "${options[@]}" \
	-chardev "socket,id=guest,path=$output/guest.sock,server=on,wait=off" -device pci-serial,chardev=guest \
	-kernel "$work/Image" -initrd "$work/initrd" \
	-append "console=ttyAMA0 crashkernel=${CRASHKERNEL:-$crashkernel} panic=10 memtest=1 init_on_free=1 swiotlb=noforce ${APPEND:-}"
collect

#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# run-pmem.sh WORK OUTPUT [POWER9|POWER8]: crash a pseries guest with NVDIMMs (papr_scm) under
# firmware-assisted dump.  The scripts and the truth are those of the x86_64 guest, but for namespaces.sh.
#
# WORK is what prepare.sh, build-kernel.sh (6.12-pmem) and make-guest.sh filled.  OUTPUT gets
#   vmcore               /proc/vmcore of the capture kernel, raw and sparse: no persistent memory in it
#   vmcore.qemu-elf      QEMU's dump of the registered guest, a moment before the crash: NVDIMMs and all
#   vmcore.qemu-capture  QEMU's dump of the capture kernel, which has written the memmap on pmem anew
#   truth/               of the guest's tools; first/ and capture/: what each kernel says of its dump
#
# POWER9 boots with the radix MMU, POWER8 with the hash MMU.  In the environment: KERNEL, INITRD, MEMORY (MiB),
# APPEND; LOADER=none for a kernel that has no dump of its own, where QEMU's dump is all.
#
# About the command line, see run.sh.  A DIMM is a multiple of 256 MiB and its label area.  spapr-nvdimm with
# pmem-override=on is flushed by a hypercall; unarmed=on is what a DIMM whose backup power failed says.
#
# Needs: root, and what ../guest.sh needs.  Two minutes, emulated.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
work=$(cd "$1" && pwd)
mkdir -p "$2"
output=$(cd "$2" && pwd)
cpu=${3:-POWER9}
root=$work/qemu-root
loader=${LOADER:-fadump}
# shellcheck source=vmcores/lab/guest.sh
. "$here/../guest.sh"

add_dimms() {
	local size number=0 file device
	for size in ${DIMMS:-512 1024 256 256 256 256 256}; do
		file=$output/nvdimm$number device=nvdimm
		case $number in
		4) device=spapr-nvdimm,pmem-override=on ;;
		6) device=nvdimm,unarmed=on ;;
		esac
		rm -f "$file"
		truncate -s $((size * 1024 + 128))K "$file"
		options+=(-object "memory-backend-file,id=backend$number,share=on,mem-path=$file,size=$((size * 1024 + 128))K"
			  -device "$device,id=nvdimm$number,memdev=backend$number,label-size=128K,uuid=75a3cdd$number-6a2f-4791-8d15-fe0a920e8e01")
		number=$((number + 1))
	done
}

make_disks "$work" "CONSOLE=hvc0 CONTROL=/dev/hvc1 LOADER=$loader SETUP=full CAPTURE_PMEM=1 QEMU_CAPTURE=1 HOTADD=0 QEMU_DUMPS=elf" \
	"$here"/../x86_64/guest/*.sh "$here"/guest/*.sh
add_dimms
start_control

timeout "${TIMEOUT:-900}" "$root/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2" \
	--library-path "$root/usr/lib/x86_64-linux-gnu" "$root/usr/bin/qemu-system-ppc64" -L "$root/usr/share/qemu" \
	-machine pseries,x-vof=on,nvdimm=on -cpu "$cpu" -accel tcg,thread=multi -smp 2 \
	-m "${MEMORY:-768}M,slots=16,maxmem=16G" -vga none -nodefaults \
	"${options[@]}" \
	-chardev "socket,id=guest,path=$output/guest.sock,server=on,wait=off" -device spapr-vty,chardev=guest \
	-kernel "${KERNEL:-$work/boot-6.12-pmem}" -initrd "${INITRD:-$work/initrd-pmem}" \
	-append "console=hvc0 fadump=${FADUMP:-nocma} init_on_free=1 nohz=off ${APPEND:-}"
collect
[ "$loader" = none ] || cp "$output/serial.log" "$output/truth/console"

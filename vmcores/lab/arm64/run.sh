#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# run.sh WORK OUTPUT: boot the guest, let QEMU dump it while it waits, crash it, and leave
# OUTPUT/vmcore (raw, sparse), OUTPUT/vmcore.qemu-elf, OUTPUT/truth/ and the logs.
#
# WORK is what build-kernel.sh and make-guest.sh filled.  About two minutes, emulated.
#
# - UEFI, because ACPI and with it the NFIT need it; virtio-rng, because the EFI stub wants randomness
#   for KASLR; the vmcoreinfo device, through which the guest tells QEMU where its vmcoreinfo lies.
# - memtest=1 and init_on_free=1: what the firmware and the kernel have left in free memory shall not
#   weigh anything.
# - Cortex-A72 has no DC CVAP: a model that has one makes QEMU msync the DIMM's file by the cache line.
#
# Needs: qemu-system-arm qemu-efi-aarch64 e2fsprogs ndctl python3.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
work=$(cd "$1" && pwd)
mkdir -p "$2"
output=$(cd "$2" && pwd)
memory="256 64" dimms="256 128 128 256 128 128 256" crashkernel=${CRASHKERNEL:-80M}

disk=$output/disk
rm -rf "$disk" "$output/truth" "$output"/vmcore*
mkdir -p "$disk/lab"
cp "$here"/../x86_64/guest/*.sh "$disk/lab/"
cp "$here"/guest/*.sh "$disk/lab/"
cp "$work/Image" "$work/initrd" "$disk/lab/"
cat > "$disk/lab/scenario" <<END
CONSOLE=ttyAMA0 CONTROL=/dev/ttyS0 KERNEL=Image
LOADER=file SETUP=full CAPTURE_PMEM=0 HOTADD=0 QEMU_DUMPS=elf
END
rm -f "$output/result.img"
mke2fs -q -t ext4 -d "$disk" "$output/result.img" 256M > /dev/null
truncate -s 16G "$output/vmcore"

options=()
node=0
for size in $memory; do
	options+=(-object "memory-backend-ram,id=ram$node,size=${size}M" -numa "node,nodeid=$node,memdev=ram$node,cpus=$node")
	node=$((node + 1))
done
number=0
for size in $dimms; do
	file=$output/nvdimm$number
	rm -f "$file"
	# 2 MiB more: the label area is cut off the end, and the rest rounded down to 2 MiB
	truncate -s $((size + 2))M "$file"
	options+=(-object "memory-backend-file,id=backend$number,share=on,mem-path=$file,size=$((size + 2))M,align=2M")
	options+=(-device "nvdimm,id=nvdimm$number,memdev=backend$number,label-size=128K,node=$((number % 2))")
	number=$((number + 1))
done

rm -f "$output"/*.sock
python3 "$here/../x86_64/control.py" "$output/guest.sock" "$output/monitor.sock" "$output" > "$output/control.log" 2>&1 &
control=$!
trap 'kill "$control" 2> /dev/null || true' EXIT

read -r ram0 ram1 <<< "$memory"
timeout "${TIMEOUT:-900}" qemu-system-aarch64 -accel tcg,thread=multi \
	-machine virt,nvdimm=on,gic-version=3 -cpu cortex-a72 -smp 2,sockets=2,cores=1,threads=1 \
	-bios /usr/share/qemu-efi-aarch64/QEMU_EFI.fd \
	-m "$((ram0 + ram1))M,slots=16,maxmem=16G" "${options[@]}" \
	-drive "file=$output/result.img,if=virtio,format=raw,cache=unsafe" \
	-drive "file=$work/tools.img,if=virtio,format=raw,readonly=on" \
	-drive "file=$output/vmcore,if=virtio,format=raw,cache=unsafe" \
	-device virtio-rng-pci -device vmcoreinfo \
	-kernel "$work/Image" -initrd "$work/initrd" \
	-append "console=ttyAMA0 crashkernel=$crashkernel panic=10 memtest=1 init_on_free=1 swiotlb=noforce" \
	-monitor "unix:$output/monitor.sock,server,nowait" -serial "file:$output/serial.log" \
	-chardev "socket,id=guest,path=$output/guest.sock,server=on,wait=off" -device pci-serial,chardev=guest \
	-display none -no-reboot -net none

(cd "$output" && debugfs -R "rdump / ." result.img 2> /dev/null)
if [ ! -s "$output/vmcore.size" ]; then
	echo "run.sh: no dump; see $output/serial.log" >&2
	exit 1
fi
"$here/../x86_64/infoblocks.sh" "$output"
truncate -s "$(sed -n 's/^copied .*: \([0-9]*\) bytes.*/\1/p' "$output/vmcore.size")" "$output/vmcore"
fallocate --dig-holes "$output/vmcore.qemu-elf"
rm -rf "$disk" "$output/lost+found" "$output/lab" "$output/result.img" "$output"/nvdimm* "$output"/*.sock
ls -ls "$output"

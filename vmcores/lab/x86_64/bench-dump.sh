#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# bench-dump.sh WORK OUTPUT: the large dump that bench/ measures on.  A guest with one NVDIMM of
# 64 GiB in fsdax map=dev: 16.5 million struct pages, 1 GiB of them on the pmem itself, and 100,000
# DAX entries.  Leaves OUTPUT/vmcore (sparse: 65 GiB, about 1.6 GiB of data), OUTPUT/vmlinux and OUTPUT/truth/.
#
# The capture kernel saves the RAM part of /proc/vmcore; the persistent memory is the NVDIMM's own
# file, copied into its place here: the same bytes, without an hour of emulated copying of zeroes.
#
# WORK is what build-kernel.sh and make-guest.sh filled.  About three minutes, emulated; the file
# system of OUTPUT must know sparse files.  Needs: qemu-system-x86 e2fsprogs python3.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
work=$(cd "$1" && pwd)
mkdir -p "$2"
output=$(cd "$2" && pwd)
kernel=${KERNEL:-6.1}
gigabytes=${GIGABYTES:-64}

disk=$output/disk
rm -rf "$disk" "$output/truth" "$output/vmcore"
mkdir -p "$disk/lab"
cp "$here"/guest/*.sh "$disk/lab/"
mv "$disk/lab/bench.sh" "$disk/lab/setup.sh"
cat > "$disk/lab/capture.sh" <<'END'
dd if=/proc/vmcore of=/dev/vdc bs=1M count=1024
ls -l /proc/vmcore > /out/vmcore.size
dmesg > /out/dmesg.capture
END
cp "$work/bzImage-$kernel" "$disk/lab/bzImage"
cp "$work/initrd" "$disk/lab/"
echo 'LOADER=file SETUP=bench CAPTURE_PMEM=0 HOTADD=0 QEMU_DUMPS=""' > "$disk/lab/scenario"
rm -f "$output/result.img" "$output/nvdimm0"
mke2fs -q -t ext4 -d "$disk" "$output/result.img" 256M > /dev/null
truncate -s $((gigabytes * 1024 + 2))M "$output/nvdimm0"
truncate -s $((gigabytes + 4))G "$output/vmcore"
trap 'rm -rf "$disk" "$output/result.img" "$output/nvdimm0" "$output/lost+found" "$output/lab"' EXIT

timeout "${TIMEOUT:-1800}" qemu-system-x86_64 -accel tcg,thread=multi -machine pc,nvdimm=on \
	-cpu max,la57=off,cx16=off -smp 2 -m "512M,slots=2,maxmem=$((gigabytes + 16))G" \
	-object "memory-backend-file,id=backend0,share=on,mem-path=$output/nvdimm0,size=$((gigabytes * 1024 + 2))M,align=2M" \
	-device nvdimm,id=nvdimm0,memdev=backend0,label-size=128K \
	-drive "file=$output/result.img,if=virtio,format=raw,cache=unsafe" \
	-drive "file=$work/tools.img,if=virtio,format=raw,readonly=on" \
	-drive "file=$output/vmcore,if=virtio,format=raw,cache=unsafe" \
	-kernel "$work/bzImage-$kernel" -initrd "$work/initrd" \
	-append "console=ttyS0 crashkernel=96M panic=10 init_on_free=1 swiotlb=noforce" \
	-monitor none -serial "file:$output/serial.log" -serial null -display none -no-reboot -net none

(cd "$output" && debugfs -R "rdump / ." result.img 2> /dev/null)
python3 "$here/bench-pmem.py" "$output/vmcore" "$output/nvdimm0"
fallocate --dig-holes "$output/vmcore"
gzip -9 -f "$output"/truth/*.txt
# all of the debug info: crash wants it
cp "$work/vmlinux-$kernel" "$output/vmlinux"
ls -ls "$output"

#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# run.sh SCENARIO WORK OUTPUT: boot the guest that scenarios/SCENARIO (or a file, if there is a slash in
# it) describes, crash it, and leave OUTPUT/vmcore (raw, sparse), OUTPUT/vmcore.qemu-* (QEMU's own dumps), OUTPUT/truth/ and the logs.
#
# WORK is what build-kernel.sh and make-guest.sh filled.  About a minute, emulated.
# Needs: qemu-system-x86 e2fsprogs ndctl python3.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
work=$(cd "$2" && pwd)
mkdir -p "$3"
output=$(cd "$3" && pwd)

# what a scenario may set
KERNEL=6.1 LOADER=file SETUP=full CAPTURE_PMEM=0 HOTADD=0 QEMU_DUMPS="" VMCOREINFO_DEVICE=0
CRASHKERNEL=96M MEMORY="256 64" TIMEOUT=900 APPEND=""
FORMATS="" DESCRIPTION="" DIMMS="384 256 256 256 128 128 256"
case $1 in
*/*) scenario=$1 ;;
*) scenario=$here/scenarios/$1 ;;
esac
# shellcheck source=/dev/null
. "$scenario"

disk=$output/disk
rm -rf "$disk" "$output/truth" "$output"/vmcore*
mkdir -p "$disk/lab"
cp "$here"/guest/*.sh "$disk/lab/"
cp "$work/bzImage-$KERNEL" "$disk/lab/bzImage"
cp "$work/initrd" "$disk/lab/"
cat > "$disk/lab/scenario" <<END
LOADER=$LOADER SETUP=$SETUP CAPTURE_PMEM=$CAPTURE_PMEM HOTADD=$HOTADD QEMU_DUMPS="$QEMU_DUMPS"
END
rm -f "$output/result.img"
mke2fs -q -t ext4 -d "$disk" "$output/result.img" 256M > /dev/null
truncate -s 16G "$output/vmcore"

options=()
node=0
for size in $MEMORY; do
	options+=(-object "memory-backend-ram,id=ram$node,size=${size}M" -numa "node,nodeid=$node,memdev=ram$node,cpus=$node")
	node=$((node + 1))
done
number=0
for size in $DIMMS; do
	file=$output/nvdimm$number
	rm -f "$file"
	# 2 MiB more: the label area is cut off the end, and the rest rounded down to 2 MiB
	truncate -s $((size + 2))M "$file"
	options+=(-object "memory-backend-file,id=backend$number,share=on,mem-path=$file,size=$((size + 2))M,align=2M")
	options+=(-device "nvdimm,id=nvdimm$number,memdev=backend$number,label-size=128K,node=$((number % 2))")
	number=$((number + 1))
done
if [ "$VMCOREINFO_DEVICE" = 1 ]; then
	options+=(-device vmcoreinfo)
fi

rm -f "$output"/*.sock
python3 "$here/control.py" "$output/guest.sock" "$output/monitor.sock" "$output" > "$output/control.log" 2>&1 &
control=$!
trap 'kill "$control" 2> /dev/null || true' EXIT

# cx16=off: QEMU 7.2's emulated cmpxchg16b breaks newer kernels.  GenuineIntel: the kernel decodes
# machine checks by vendor, and libnvdimm listens to Intel's.
read -r ram0 ram1 <<< "$MEMORY"
timeout "$TIMEOUT" qemu-system-x86_64 -accel tcg,thread=multi -machine pc,nvdimm=on \
	-cpu max,la57=off,cx16=off,vendor=GenuineIntel -smp 2,sockets=2,cores=1,threads=1 \
	-m "$((ram0 + ram1))M,slots=16,maxmem=16G" "${options[@]}" \
	-drive "file=$output/result.img,if=virtio,format=raw,cache=unsafe" \
	-drive "file=$work/tools.img,if=virtio,format=raw,readonly=on" \
	-drive "file=$output/vmcore,if=virtio,format=raw,cache=unsafe" \
	-kernel "$work/bzImage-$KERNEL" -initrd "$work/initrd" \
	-append "console=ttyS0 crashkernel=$CRASHKERNEL panic=10 init_on_free=1 swiotlb=noforce $APPEND" \
	-monitor "unix:$output/monitor.sock,server,nowait" -serial "file:$output/serial.log" \
	-serial "unix:$output/guest.sock,server,nowait" -display none -no-reboot -net none

(cd "$output" && debugfs -R "rdump / ." result.img 2> /dev/null)
if [ ! -s "$output/vmcore.size" ]; then
	echo "run.sh: no dump; a kernel placed in the middle leaves no room for crashkernel=, try again" >&2
	exit 1
fi
"$here/infoblocks.sh" "$output"
truncate -s "$(sed -n 's/^copied .*: \([0-9]*\) bytes.*/\1/p' "$output/vmcore.size")" "$output/vmcore"
for dump in "$output"/vmcore.qemu-*; do
	[ ! -f "$dump" ] || fallocate --dig-holes "$dump"
done
rm -rf "$disk" "$output/lost+found" "$output/lab" "$output/result.img" "$output"/nvdimm* "$output"/*.sock
ls -ls "$output"

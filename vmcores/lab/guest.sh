# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# guest.sh: a guest with NVDIMMs that is going to crash, on any machine; to be sourced.  It works in
# $output, and gathers QEMU's options in the array $options.
#
# Needs: e2fsprogs ndctl python3.

labs=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
options=()
: "${output:?}"

# make_disks WORK SCENARIO FILE...: the guest's disks: vda, with FILEs and the settings of the scenario in
# /lab, where it leaves what it finds; vdb, the tools; vdc, room for the dump.  A FILE takes the place of an
# earlier one of its name.  With DISK_BUS, on that bus, from slot 0x18 on.
make_disks() {
	local work=$1 scenario=$2 disk=$output/disk file
	shift 2
	rm -rf "$disk" "$output/truth" "$output"/vmcore* "$output/result.img"
	mkdir -p "$disk/lab"
	for file; do
		cp "$file" "$disk/lab/"
	done
	echo "$scenario" > "$disk/lab/scenario"
	mke2fs -q -t ext4 -d "$disk" "$output/result.img" 256M > /dev/null
	rm -rf "$disk"
	truncate -s 16G "$output/vmcore"
	add_disk 18 "file=$output/result.img,format=raw,cache=unsafe"
	add_disk 19 "file=$work/tools.img,format=raw,readonly=on"
	add_disk 1a "file=$output/vmcore,format=raw,cache=unsafe"
}

add_disk() {
	if [ -z "${DISK_BUS:-}" ]; then
		options+=(-drive "$2,if=virtio")
	else
		options+=(-drive "$2,if=none,id=disk$1" -device "virtio-blk-pci,drive=disk$1,bus=$DISK_BUS,addr=$1")
	fi
}

# add_memory RAM DIMMS: sizes in MiB; of each node, and of each NVDIMM, on the nodes by turns.
add_memory() {
	local size file node=0 number=0 total=0
	for size in $1; do
		options+=(-object "memory-backend-ram,id=ram$node,size=${size}M"
			  -numa "node,nodeid=$node,memdev=ram$node,cpus=$node")
		total=$((total + size)) node=$((node + 1))
	done
	options+=(-m "${total}M,slots=16,maxmem=16G")
	for size in $2; do
		file=$output/nvdimm$number
		rm -f "$file"
		# 2 MiB more: the label area is cut off the end, and the rest rounded down to 2 MiB
		truncate -s $((size + 2))M "$file"
		options+=(-object "memory-backend-file,id=backend$number,share=on,mem-path=$file,size=$((size + 2))M,align=2M"
			  -device "nvdimm,id=nvdimm$number,memdev=backend$number,label-size=128K,node=$((number % 2))")
		number=$((number + 1))
	done
}

# start_control: what answers the guest while it runs (dump it, add memory), until this script ends.
start_control() {
	rm -f "$output"/*.sock
	python3 "$labs/x86_64/control.py" "$output/guest.sock" "$output/monitor.sock" "$output" > "$output/control.log" 2>&1 &
	# shellcheck disable=SC2064
	trap "kill $! 2> /dev/null || true" EXIT
	options+=(-monitor "unix:$output/monitor.sock,server,nowait" -serial "file:$output/serial.log"
		  -display none -net none)
	# firmware-assisted dump boots the machine anew to save it
	[ "${loader:-}" = fadump ] || options+=(-no-reboot)
}

# collect: what the guest left: the dump, cut to its size, QEMU's dumps, truth/ and the logs.
collect() {
	local dump
	(cd "$output" && debugfs -R "rdump / ." result.img 2> /dev/null)
	if [ "${loader:-}" = none ] && [ -s "$output/vmcore.qemu-elf" ]; then
		echo "copied nothing: 0 bytes" > "$output/vmcore.size"
	fi
	if [ ! -s "$output/vmcore.size" ]; then
		echo "no dump; see $output/serial.log (a kernel placed in the middle leaves no room for crashkernel=: try again)" >&2
		exit 1
	fi
	"$labs/x86_64/infoblocks.sh" "$output"
	truncate -s "$(sed -n 's/^copied .*: \([0-9]*\) bytes.*/\1/p' "$output/vmcore.size")" "$output/vmcore"
	for dump in "$output"/vmcore.qemu-*; do
		[ ! -f "$dump" ] || fallocate --dig-holes "$dump"
	done
	rm -rf "$output/lost+found" "$output/lab" "$output/result.img" "$output"/nvdimm* "$output"/*.sock
	ls -ls "$output"
}

# SPDX-License-Identifier: LGPL-2.1-or-later
# Namespaces of every provider, file systems, processes; what the flags mean stands in pmtruth/map.c.
truth=/out/truth
mkdir -p "$truth"
set -x
for module in nfit nd_e820 virtio_pmem nd_pmem nd_btt dax_pmem dax_hmem device_dax kmem qemu_fw_cfg xfs ext4; do
	modprobe "$module" || echo "LAB: no $module"
done
sleep 1

# regions BUS: names of its regions, the largest first
regions() {
	ndctl list -BR | jq -r ".[] | select(.provider | test(\"$1\")) | .regions | sort_by(-.size)[].dev"
}

# namespace_of BUS: the one of the first region without labels
namespace_of() {
	ndctl list -BRNi | jq -r ".[] | select(.provider | test(\"$1\")) | .regions[0].namespaces[0].dev"
}

# value NAMESPACE KEY
value() {
	ndctl list -Ni | jq -r ".[]? | select(.name == \"$1\" or .dev == \"$1\") | .$2"
}

ndctl disable-region -b ACPI.NFIT all
ndctl init-labels -b ACPI.NFIT all
ndctl enable-region -b ACPI.NFIT all
set -- $(regions ACPI.NFIT)
ndctl create-namespace -r "$1" -m fsdax -M dev -s 256M -n lab-xfs
ndctl create-namespace -r "$1" -m sector -l 512 -s 64M -n lab-sector
ndctl create-namespace -r "$2" -m devdax -M dev -n lab-dax
e820=$(namespace_of e820)
ndctl create-namespace -f -e "$e820" -m fsdax -M dev
virtio=$(namespace_of virtio)	# stays raw: with a label-less namespace the region maps the pages

ext4=/dev/$(value "$e820" blockdev) raw=/dev/$(value "$virtio" blockdev)
xfs=/dev/$(value lab-xfs blockdev) dax=/dev/$(value lab-dax chardev)
mkdir -p /mnt/ext4 /mnt/raw /mnt/xfs
mkfs.ext4 -q -F -b 4096 -E stride=512,stripe_width=512 "$ext4"
mount -t ext4 -o dax=always "$ext4" /mnt/ext4
mkfs.ext4 -q -F -b 4096 "$raw"
mount -t ext4 -o dax=always "$raw" /mnt/raw
export TEST_DIR=1 TEST_DEV=1 QA_CHECK_FS=1
mkfs.xfs -q -f -m reflink=1 -d su=2m,sw=1 "$xfs"
mount -t xfs -o dax=always "$xfs" /mnt/xfs

pmtruth make /mnt/ext4/alpha 0x600000
pmtruth make /mnt/ext4/poison 0x8000
pmtruth make /mnt/raw/gamma 0x10000
pmtruth make /mnt/xfs/shared 0x10000
pmtruth make /mnt/xfs/plain 0x400000
sync
pmtruth clone /mnt/xfs/shared /mnt/xfs/shared.clone
sync

start() {
	pmtruth map "$@" > "$truth/map.$1.txt" 2>&1 &
	for _ in $(seq 50); do
		! grep -q -e READY -e ERROR "$truth/map.$1.txt" || break
		sleep 0.2
	done
	cat "$truth/map.$1.txt"
}
# lab-hmem: soft-reserved memory, a device without a namespace
hmem=$(daxctl list -D | jq -r '.[] | select(.mode == "system-ram") | .chardev' | head -n 1)
[ -z "$hmem" ] || daxctl reconfigure-device --mode=devdax "$hmem"
start lab-alpha /mnt/ext4/alpha:0:0x10000:ws /mnt/ext4/alpha:0x200000:0x200000:wa
start lab-beta /mnt/ext4/alpha:0x8000:0x10000:w "$dax:0x400000:0x200000:wa"
start lab-xfs /mnt/xfs/plain:0:0x8000:ws /mnt/xfs/shared:0:0x4000:r /mnt/xfs/shared.clone:0:0x4000:r
start lab-raw /mnt/raw/gamma:0:0x8000:w
start lab-pin /mnt/raw/gamma:0x8000:0x2000:wv
[ -z "$hmem" ] || start lab-hmem "/dev/$hmem:0:0x200000:wa"
sync

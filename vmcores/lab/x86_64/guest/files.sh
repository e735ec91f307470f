# SPDX-License-Identifier: LGPL-2.1-or-later
# File systems with -o dax and the files in them.
ext4=/dev/$(namespace_value lab-ext4 blockdev)
mount_ext4 "$ext4" /mnt/ext4
mkdir -p /mnt/ext4/sub/dir /mnt/bind
mount --bind /mnt/ext4/sub /mnt/bind
pmtruth make /mnt/ext4/alpha 0x600000
pmtruth make /mnt/ext4/sub/dir/beta 0x10000
if [ "$SETUP" = small ]; then
	return
fi

small=/dev/$(namespace_value lab-small blockdev)
xfs=/dev/$(namespace_value lab-xfs blockdev)
mem=/dev/$(namespace_value lab-mem blockdev)
sector=/dev/$(namespace_value lab-sector blockdev)

for name in pinned cow closed poison machine-check gone open direct idle; do
	pmtruth make "/mnt/ext4/$name" 0x8000
done
pmtruth hole /mnt/ext4/hole 0x600000

mount_ext4 "$small" /mnt/small
pmtruth make /mnt/small/few 0x10000
pmtruth make /mnt/small/bad 0x8000

# below 300 MB mkfs.xfs makes file systems for tests only; rmapbt: memory failure finds owners
export TEST_DIR=1 TEST_DEV=1 QA_CHECK_FS=1
# Blocks of 16 KiB: an allocation group of one in four has no room for the log.
groups=
if [ "$scale" = 4 ]; then
	groups=agcount=1,
fi
mkdir -p /mnt/xfs
for reflink in 1 0; do # before 6.0, XFS has reflinks or DAX
	mkfs.xfs -q -f -b "size=$page" -m "reflink=$reflink,rmapbt=1" -d "${groups}su=2m,sw=1" "$xfs"
	mount -t xfs -o dax=always "$xfs" /mnt/xfs && break
	echo "LAB: /mnt/xfs was not mounted with reflink=$reflink"
done
pmtruth make /mnt/xfs/shared 0x10000
pmtruth make /mnt/xfs/plain 0x400000
pmtruth make /mnt/xfs/broken 0x8000
pmtruth make /mnt/xfs/poison 0x8000
pmtruth make /mnt/xfs/pinned 0x8000
sync
for name in shared broken; do
	pmtruth clone "/mnt/xfs/$name" "/mnt/xfs/$name.clone" || pmtruth make "/mnt/xfs/$name.clone" 0x10000
done

mount_ext4 "$mem" /mnt/mem
pmtruth make /mnt/mem/gamma 0x200000

# linear: two pieces of one device in the other order; the file covers both.  slow: see processes.sh
make_device_mapper() {
	linear=/dev/$(namespace_value lab-dm blockdev)
	dmsetup create linear <<TABLE
0 98304 linear $linear 131072
98304 65536 linear $linear 4096
TABLE
	dmsetup create slow --table "0 2048 linear $sector 0"
	dmsetup mknodes
	mount_ext4 /dev/mapper/linear /mnt/dm
	pmtruth allocate /mnt/dm/span 0x3800000
}
! has_device_mapper || make_device_mapper

pmtruth make "$sector" 0x40000
pmtruth make "/dev/$(namespace_value lab-raw blockdev)" 0x10000
sync

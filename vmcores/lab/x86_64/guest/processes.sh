# SPDX-License-Identifier: LGPL-2.1-or-later
# The processes; what each flag means stands at the top of pmtruth/map.c.
start() {
	command=$1 comm=$2
	shift 2
	log=$truth/map.$comm.txt
	pmtruth "$command" "$comm" "$@" > "$log" 2>&1 &
	tries=0
	until grep -q -e READY -e ERROR "$log" || [ $tries -ge 50 ]; do
		usleep 100000
		tries=$((tries + 1))
	done
	cat "$log"
}

start_mappers() {
	dev=/dev/$(namespace_value lab-dev chardev)
	devmem=/dev/$(namespace_value lab-devmem chardev)
	if [ "$SETUP" = small ]; then
		start map lab-alpha /mnt/ext4/alpha:0:0x10000:wd "$devmem:0:0x200000:wa"
		return
	fi
	start map lab-alpha /mnt/ext4/alpha:0:0x10000:wsd /mnt/ext4/alpha:0x200000:0x200000:wa \
		/mnt/ext4/sub/dir/beta:0:0x4000:w
	start map lab-beta /mnt/ext4/alpha:0x8000:0x10000:w /mnt/bind/dir/beta:0x2000:0x4000:w \
		"$dev:0x400000:0x200000:wa"
	start map lab-xfs /mnt/xfs/plain:0:0x8000:ws /mnt/xfs/shared:0:0x4000:r \
		/mnt/xfs/shared.clone:0:0x4000:r
	start map lab-xfs2 /mnt/xfs/plain:0x4000:0x8000:wd /mnt/xfs/shared.clone:0x2000:0x4000:r \
		/mnt/xfs/broken:0:0x4000:w
	start map lab-mem /mnt/mem/gamma:0:0x8000:wsd /mnt/ext4/cow:0:0x2000:wp \
		/mnt/ext4/cow:0x2000:0x2000:rp
	start map lab-gone /mnt/ext4/gone:0:0x4000:wu /mnt/ext4/open:0:0:o \
		/mnt/ext4/hole:0:0x8000:r /mnt/ext4/hole:0x200000:0x200000:ra
	start map lab-small /mnt/small/few:0:0x8000:wd /mnt/small/bad:0:0x4000:r
	! has_device_mapper || start map lab-dm /mnt/dm/span:0:0x4000:w /mnt/dm/span:0x3400000:0x4000:wd
	start map lab-dax "$dev:0:0x200000:wa" "$dev:0x9000000:0x200000:wa" "$devmem:0x200000:0x200000:wa"
	start map lab-pin /mnt/ext4/pinned:0:0x2000:wv /mnt/xfs/pinned:0:0x2000:wv \
		/mnt/ext4/closed:0:0x2000:wc
	start map lab-ring "$devmem:0x800000:0x200000:waq" /mnt/mem/gamma:0x10000:0x1000:wq
	start map lab-victim /mnt/ext4/poison:0:0x4000:w /mnt/xfs/poison:0:0x4000:w \
		/mnt/ext4/machine-check:0:0x4000:w
}

# These never come back: they wait for the pins of lab-pin, and for a suspended device.
start_stuck() {
	start punch lab-punch /mnt/ext4/pinned 0 0x4000
	start truncate lab-trunc /mnt/xfs/pinned 0
	if has_device_mapper; then
		dmsetup suspend --nolockfs slow
		start direct lab-direct /mnt/ext4/direct /dev/mapper/slow
	fi
}

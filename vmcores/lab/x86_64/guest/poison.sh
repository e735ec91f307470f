# SPDX-License-Identifier: LGPL-2.1-or-later
# Media errors, each by another road.  QEMU's NVDIMMs cannot take an injected one:
ndctl inject-error --block=8 --count=1 "$(namespace_value lab-raw dev)" > "$truth/inject-error.txt" 2>&1 ||
	echo "LAB: ndctl inject-error refused"

# 1. madvise: HWPoison, no record in libnvdimm
start map lab-poison /mnt/ext4/poison:0:0x4000:wh
start map lab-poison2 /mnt/xfs/poison:0x1000:0x1000:wh

# QEMU raises machine checks on x86 only; a kernel without them (Debian's cloud kernels before 6.12) would be reset
if [ -d /sys/devices/system/machinecheck ]; then
	# 2. a machine check, as hardware reports it: badrange, badblocks of region and pmem, HWPoison
	offset=$(printf '0x%x' "$page")
	address=$(physical_address /mnt/ext4/machine-check "$offset")
	echo "MCE address=$address path=/mnt/ext4/machine-check fileoff=$offset" > "$truth/machine-checks"
	ask mce "$address"

	# 3. the same in the struct pages that lie on pmem: nobody owns that
	resource=$(cat "/sys/bus/nd/devices/$(namespace_value lab-xfs dev)/resource")
	address=$(printf '0x%x' $((resource + 0x500000)))
	echo "MCE address=$address metadata=lab-xfs" >> "$truth/machine-checks"
	ask mce "$address"
fi

# 4. a badblock only, told to the block device
device=$(namespace_value lab-small blockdev)
sector=$(pmtruth sector /mnt/small/bad 0x2000)
echo "BADBLOCK device=$device sector=$sector count=8 path=/mnt/small/bad fileoff=$(printf '0x%x' $((2 * page)))" > "$truth/badblocks"
echo "$sector 8" > "/sys/block/$device/badblocks"
sleep 1
cat /sys/block/pmem*/badblocks /sys/bus/nd/devices/region*/badblocks

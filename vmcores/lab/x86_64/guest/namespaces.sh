# SPDX-License-Identifier: LGPL-2.1-or-later
# Seven DIMMs (384, 256, 256, 256, 128, 128 and 256 MiB) become namespaces of every mode.
# x86_64 sections are 128 MiB, and only a whole section gets its struct pages from the altmap.
ndctl list -RDBNi > "$truth/ndctl.initial.json"
ndctl disable-region all
ndctl init-labels all
ndctl enable-region all

create() {
	name=$1 region=$(region_at "$2")
	shift 2
	ndctl create-namespace -r "$region" -n "$name" "$@" || echo "LAB: $name was not created"
}

if [ "$SETUP" = small ]; then
	create lab-ext4 0 -m fsdax -M dev
	create lab-devmem 1 -m devdax -M mem
	return
fi

# less than a section: its struct pages are in RAM.  The next one is part of a section and a whole
# section: both places.  128 MiB of the region stay free.
create lab-small 0 -m fsdax -M dev -s 64M
create lab-dev 0 -m devdax -M dev -a 2M -s 192M
# whole sections: struct pages on pmem
create lab-xfs 1 -m fsdax -M dev
create lab-ext4 2 -m fsdax -M dev
create lab-mem 3 -m fsdax -M mem -s 128M
create lab-dm 3 -m fsdax -M dev
create lab-devmem 4 -m devdax -M mem -a 2M
create lab-sector 5 -m sector -l 4096 -s 48M
create lab-raw 5 -m raw -s 32M
create lab-idle 5 -m fsdax -M dev
create lab-ram 6 -m devdax -M mem -a 2M
ndctl disable-namespace "$(namespace_value lab-idle dev)"

# what "daxctl reconfigure-device --mode=system-ram" does; it wants kmem to be a module
ram=$(namespace_value lab-ram chardev)
echo "$ram" > /sys/bus/dax/drivers/device_dax/unbind
echo "$ram" > /sys/bus/dax/drivers/kmem/new_id
for block in /sys/devices/system/memory/memory*; do
	if [ "$(cat "$block/state")" = offline ]; then
		echo online_movable > "$block/state"
		echo "${block##*/}" >> "$truth/system-ram"
	fi
done

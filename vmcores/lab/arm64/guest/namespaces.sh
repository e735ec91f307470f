# SPDX-License-Identifier: LGPL-2.1-or-later
# Seven DIMMs (256, 128, 128, 256, 128, 128 and 256 MiB) become namespaces of every mode.
# arm64 sections are 128 MiB, and the struct pages of a part of one come from the altmap too.
ndctl list -RDBNi > "$truth/ndctl.initial.json"
ndctl disable-region all
ndctl init-labels all
ndctl enable-region all

# Pages of 16 and 64 KiB: their huge pages are larger than some of the namespaces.
huge="-a 2M" map=""
if [ "$scale" != 1 ]; then
	huge="-a $page" map="-a $page"
fi

# half a section; then the other half and a whole one: struct pages on pmem, by pages and by 2 MiB
create lab-small 0 -m fsdax -M dev $map -s 64M
create lab-dev 0 -m devdax -M dev $huge
create lab-xfs 1 -m fsdax -M dev $map
create lab-ext4 2 -m fsdax -M dev $map
# a whole section of the region stays free: makedumpfile gives up where a part of one has no struct pages
create lab-mem 3 -m fsdax -M mem $map -s 128M
create lab-devmem 4 -m devdax -M mem $huge
create lab-sector 5 -m sector -l 4096 -s 48M
create lab-raw 5 -m raw -s 32M
create lab-idle 5 -m fsdax -M dev $map
create lab-ram 6 -m devdax -M mem $huge
ndctl disable-namespace "$(namespace_value lab-idle dev)"
make_system_ram "$(namespace_value lab-ram chardev)"

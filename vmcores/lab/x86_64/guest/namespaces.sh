# SPDX-License-Identifier: LGPL-2.1-or-later
# Seven DIMMs (384, 256, 256, 256, 128, 128 and 256 MiB) become namespaces of every mode.
# x86_64 sections are 128 MiB, and only a whole section gets its struct pages from the altmap.
ndctl list -RDBNi > "$truth/ndctl.initial.json"
ndctl disable-region all
ndctl init-labels all
ndctl enable-region all

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
make_system_ram "$(namespace_value lab-ram chardev)"

# SPDX-License-Identifier: LGPL-2.1-or-later
# Seven DIMMs (512, 1024, 256, 256, 256, 256 and 256 MiB) become namespaces of every mode.  The fifth is
# flushed by a hypercall, the last is not armed.  Pages of 64 KiB: a region is divided by 16 MiB, and a page
# of the vmemmap describes 64 MiB; XFS with blocks of 64 KiB wants a large log.  Huge pages have 2 MiB (radix
# MMU); those of the hash MMU have 16 MiB, and nothing here maps as much.
ndctl list -RDBNi > "$truth/ndctl.initial.json"
ndctl disable-region all
ndctl init-labels all
ndctl enable-region all

huge=2M
if ! grep -q "^MMU.*Radix" /proc/cpuinfo; then
	huge=$page
fi

create lab-small 0 -m fsdax -M dev -s 64M
create lab-dev 0 -m devdax -M dev -a $huge
create lab-xfs 1 -m fsdax -M dev
create lab-ext4 2 -m fsdax -M dev
create lab-mem 3 -m fsdax -M mem -s 128M
create lab-devmem 4 -m devdax -M mem -a $huge
create lab-sector 5 -m sector -l 4096 -s 48M
create lab-raw 5 -m raw -s 32M
create lab-idle 5 -m fsdax -M dev
ndctl disable-namespace "$(namespace_value lab-idle dev)"

# SPDX-License-Identifier: LGPL-2.1-or-later
# What a kernel says of its firmware-assisted dump: record_fadump DIRECTORY.
record_fadump() {
	mkdir -p "$1"
	mount -t debugfs debug /sys/kernel/debug 2> /dev/null
	for file in iomem meminfo cmdline cpuinfo; do
		cat "/proc/$file" > "$1/$file"
	done
	for file in /sys/kernel/fadump/*; do
		[ ! -f "$file" ] || echo "$file: $(cat "$file" 2>&1)"
	done > "$1/fadump.sysfs"
	cat /sys/kernel/debug/powerpc/fadump_region > "$1/fadump_region" 2>&1
	for file in memory reserved; do
		cat "/sys/kernel/debug/memblock/$file" > "$1/memblock.$file" 2> /dev/null
	done
	dmesg > "$1/dmesg"
}

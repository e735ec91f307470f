# SPDX-License-Identifier: LGPL-2.1-or-later
# Read by the other guest scripts.
truth=/out/truth
mkdir -p "$truth"
. /out/lab/scenario		# LOADER, SETUP, CAPTURE_PMEM, HOTADD, QEMU_DUMPS

say() {
	echo "LAB: $* ($(cut -d ' ' -f 1 /proc/uptime) s)"
}

# Ask the host (control.py), which answers one line; "ok" is success.
exec 3<> /dev/ttyS1
stty raw -echo < /dev/ttyS1
ask() {
	echo "$*" >&3
	read -r answer <&3
	say "asked for \"$*\": $answer"
	[ "$answer" = ok ]
}

# The nth region in address order; its number follows the NFIT, not the DIMMs.
region_at() {
	for region in /sys/bus/nd/devices/region*; do
		echo "$(cat "$region/resource") ${region##*/}"
	done | sort | sed -n "$(($1 + 1))s/.* //p"
}

# A value of the namespace that was given this name: blockdev, chardev, dev.
namespace_value() {
	ndctl list -N -i | tr -d ' \n' | sed 's/},{/}\n{/g' | grep "\"name\":\"$1\"" |
		sed -n "s/.*\"$2\":\"\\([^\"]*\\)\".*/\\1/p"
}

# Where the page at an offset of a file lies in physical memory, from some process that maps it.
physical_address() {
	rm -rf /tmp/pages
	pmtruth record /tmp/pages
	grep -h " path=$1 .* fileoff=$2 .* present=1 " /tmp/pages/* | head -n 1 |
		sed -n 's/.* pfn=\(0x[0-9a-f]*\) .*/\1000/p'
}

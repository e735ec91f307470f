# SPDX-License-Identifier: LGPL-2.1-or-later
# Read by the other guest scripts.  They are those of the arm64 guest too, but for namespaces.sh.
truth=/out/truth
mkdir -p "$truth"
# the machine, unless the scenario says otherwise
CONSOLE=ttyS0 CONTROL=/dev/ttyS1 KERNEL=bzImage
. /out/lab/scenario		# LOADER, SETUP, CAPTURE_PMEM, HOTADD, QEMU_DUMPS

# The size of a page, and how often pages of 4 KiB fit into it: offsets below 2 MiB are in those, see
# scaled() in pmtruth.
page=$(sed -n 's/^KernelPageSize: *\([0-9]*\) kB/\1/p' /proc/self/smaps | head -n 1)
page=$((page * 1024)) scale=$((page / 4096))

say() {
	echo "LAB: $* ($(cut -d ' ' -f 1 /proc/uptime) s)"
}

# Ask the host (control.py), which answers one line; "ok" is success.
exec 3<> "$CONTROL"
stty raw -echo < "$CONTROL"
ask() {
	echo "$*" >&3
	read -r answer <&3
	say "asked for \"$*\": $answer"
	[ "$answer" = ok ]
}

# The nth region of DIMMs in address order; its number follows the NFIT, not the DIMMs.
region_at() {
	for region in /sys/bus/nd/devices/region*; do
		case $(cat "$region/../provider") in
		e820 | virtio*) continue ;;
		esac
		echo "$(($(cat "$region/resource"))) ${region##*/}"
	done | sort -n | sed -n "$(($1 + 1))s/.* //p"
}

# A namespace of this name in the nth region.
create() {
	name=$1 region=$(region_at "$2")
	shift 2
	ndctl create-namespace -r "$region" -n "$name" "$@" || echo "LAB: $name was not created"
}

# What "daxctl reconfigure-device --mode=system-ram" does; it wants kmem to be a module.
make_system_ram() {
	echo "$1" > /sys/bus/dax/drivers/device_dax/unbind
	echo "$1" > /sys/bus/dax/drivers/kmem/new_id
	for block in /sys/devices/system/memory/memory*; do
		if [ "$(cat "$block/state")" = offline ]; then
			echo online_movable > "$block/state"
			echo "${block##*/}" >> "$truth/system-ram"
		fi
	done
}

# The only namespace of each region without labels, in address order: of e820, or virtio for virtio-pmem.
namespaces_of() {
	for region in /sys/bus/nd/devices/region*; do
		case $(cat "$region/../provider") in
		$1*) echo "$(($(cat "$region/resource"))) $(cd "$region" && echo namespace*.0)" ;;
		esac
	done | sort -n | sed 's/.* //'
}

# A value of a namespace of that kind.
value_of() {
	ndctl list -N -n "$1" | tr -d ' \n' | sed -n "s/.*\"$2\":\"\\([^\"]*\\)\".*/\\1/p"
}

# A value of the namespace that was given this name: blockdev, chardev, dev.
namespace_value() {
	ndctl list -N -i | tr -d ' \n' | sed 's/},{/}\n{/g' | grep "\"name\":\"$1\"" |
		sed -n "s/.*\"$2\":\"\\([^\"]*\\)\".*/\\1/p"
}

# ext4 with -o dax on a device.
mount_ext4() {
	# DAX wants blocks of a page.  stride: extents that start at 2 MiB, so that they can be mapped by 2 MiB pages
	mkfs.ext4 -q -F -b "$page" -E "stride=$((512 / scale)),stripe_width=$((512 / scale))" "$1"
	mkdir -p "$2"
	mount -t ext4 -o dax=always "$1" "$2" || echo "LAB: $2 was not mounted"
}

# Not in every guest.
has_device_mapper() {
	command -v dmsetup > /dev/null && [ -d /sys/class/misc/device-mapper ]
}

# Where the page at an offset of a file lies in physical memory, from some process that maps it.
physical_address() {
	rm -rf /tmp/pages
	pmtruth record /tmp/pages
	pfn=$(grep -h " path=$1 .* fileoff=$2 .* present=1 " /tmp/pages/* | head -n 1 |
		sed -n 's/.* pfn=\(0x[0-9a-f]*\) .*/\1/p')
	[ -z "$pfn" ] || printf '0x%x\n' $((pfn * page))
}

# SPDX-License-Identifier: LGPL-2.1-or-later
# CXL memory, where the guest has it: a region of one device, for a namespace that 1 GiB of padding aligns to
# 1 GiB; one interleaved over two devices; a volatile one.
cxl_volatile=

# The memdev with this serial number; their own numbers change from boot to boot.
memdev() {
	for memdev in /sys/bus/cxl/devices/mem*; do
		[ "$(cat "$memdev/serial")" != "$1" ] || echo "${memdev##*/}"
	done
}

create_region() {
	cxl create-region -d decoder0.0 "$@" || echo "LAB: no CXL region: $*"
}

if [ -n "$(memdev 0x11)" ]; then
	# the first is at the start of the window, which is aligned
	create_region -t pmem -w 1 -m "$(memdev 0x33)"
	create_region -t pmem -w 2 -g 1024 -m "$(memdev 0x11)" "$(memdev 0x22)"
	create_region -t ram -w 1 -m "$(memdev 0x44)"
	sleep 1
	ndctl list -RDBNi > "$truth/ndctl.initial.json"
	for region in $(region_at 0) $(region_at 1); do
		ndctl disable-region "$region"
	done
	ndctl init-labels all
	ndctl enable-region all
	create lab-align 0 -m devdax -M mem -a 1G
	create lab-cxl 1 -m fsdax -M dev -s 256M
	create lab-cxl-dax 1 -m devdax -M dev
	for device in /sys/bus/dax/devices/dax*; do
		case $(readlink -f "$device") in
		*/dax_region*) take_back "${device##*/}" && cxl_volatile=${device##*/} ;;
		esac
	done
fi

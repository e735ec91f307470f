# SPDX-License-Identifier: LGPL-2.1-or-later
# Soft-reserved memory comes up as system-ram, its memory blocks offline: while they are, it can be taken back
# to be a DAX device, which has no namespace.  So is CXL's volatile memory (see cxl.sh).
take_back() {
	echo "$1" > /sys/bus/dax/drivers/kmem/unbind
	echo "$1" > /sys/bus/dax/drivers/device_dax/new_id
}

hmem=
for device in /sys/bus/dax/devices/dax*; do
	case $(readlink -f "$device") in
	*/hmem*) ;;
	*) continue ;;
	esac
	device=${device##*/}
	take_back "$device"
	hmem="$hmem $device"
done

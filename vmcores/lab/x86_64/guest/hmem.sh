# SPDX-License-Identifier: LGPL-2.1-or-later
# Soft-reserved memory comes up as system-ram, its memory blocks offline: while they are, it can be taken back
# to be a DAX device, which has no namespace.
hmem=
for device in /sys/bus/dax/devices/dax*; do
	case $(readlink -f "$device") in
	*/hmem*) ;;
	*) continue ;;
	esac
	device=${device##*/}
	echo "$device" > /sys/bus/dax/drivers/kmem/unbind
	echo "$device" > /sys/bus/dax/drivers/device_dax/new_id
	hmem="$hmem $device"
done

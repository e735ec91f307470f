# SPDX-License-Identifier: LGPL-2.1-or-later
# Persistent memory of the device tree (of_pmem): no DIMMs, no labels, so that no namespace has a name.  In
# address order 256 and 128 MiB of one node (one bus, two regions), and 64 MiB of a volatile one, left raw.
ndctl list -RDBNi > "$truth/ndctl.initial.json"
namespace_at() {
	ls "/sys/bus/nd/devices/$(region_at "$1")" | grep '^namespace[0-9]*\.0$'
}

# the scripts after this one know namespaces by the names that they have on DIMMs
namespace_value() {
	case $1 in
	lab-ext4) value_of "$(namespace_at 0)" "$2" ;;
	lab-devmem) value_of "$(namespace_at 1)" "$2" ;;
	esac
}

ndctl create-namespace -f -e "$(namespace_at 0)" -m fsdax -M dev || echo "LAB: no fsdax namespace"
ndctl create-namespace -f -e "$(namespace_at 1)" -m devdax -M mem -a 2M || echo "LAB: no devdax namespace"

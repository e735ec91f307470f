#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# infoblocks.sh OUTPUT: OUTPUT/truth/infoblock.NAMESPACE.json, what "ndctl read-infoblock" says about
# each namespace of a run, read from the files behind the guest's NVDIMMs.
#
# In the guest ndctl reads only namespaces that are not in use, and /dev/mem ends where RAM ends.
# Needs: ndctl; root.
set -eu

output=$1
# persistent memory that is RAM to QEMU (of_pmem) has no files
[ -f "$output/nvdimm0" ] || exit 0
truth=$output/truth
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# [first, last] of the DIMMs, in address order.  /proc/iomem of POWER names no persistent memory: there the
# regions are asked, one a DIMM.
dimms() {
	grep -q ' : Persistent Memory$' "$truth/iomem" || {
		sed -n 's/^\(region[0-9]*\)\/resource=\(0x[0-9a-f]*\).*/\1 \2/p' "$truth/sysfs.nd" |
			while read -r region resource; do
				size=$(sed -n "s/^$region\/size=\([0-9]*\).*/\1/p" "$truth/sysfs.nd")
				printf '%016x %016x\n' $((resource)) $((resource + size - 1))
			done | sort
	}
	sed -n 's/^\([0-9a-f]*\)-\([0-9a-f]*\) : Persistent Memory$/\1 \2/p' "$truth/iomem"
}

# QEMU places the DIMMs in address order: the nth is the nth file
number=0
while read -r first last; do
	start=$((16#$first)) end=$((16#$last))
	sed -n 's/^\(namespace[0-9.]*\)\/resource=\(0x[0-9a-f]*\).*/\1 \2/p' "$truth/sysfs.nd" |
		while read -r namespace resource; do
			[ $((resource)) -ge $start ] && [ $((resource)) -lt $end ] || continue
			grep -q "^$namespace/size=0|" "$truth/sysfs.nd" && continue
			dd if="$output/nvdimm$number" of="$scratch/infoblock" bs=4096 count=2 \
				skip=$(((resource - start) / 4096)) status=none
			(cd "$scratch" && ndctl read-infoblock -j -i infoblock) \
				> "$truth/infoblock.$namespace.json" 2> /dev/null || true
		done
	number=$((number + 1))
done < <(dimms)

# SPDX-License-Identifier: LGPL-2.1-or-later
# Persistent memory of other kinds beside the NVDIMMs, where the guest has it: memory that the firmware's map
# (e820) calls so, virtio-pmem devices, soft-reserved memory (see hmem.sh), CXL (see cxl.sh).
# shellcheck disable=SC2046
set -- $(namespaces_of e820)
if [ $# -gt 0 ]; then
	ndctl create-namespace -f -e "$1" -m fsdax -M dev || echo "LAB: no namespace of e820"
	mount_ext4 "/dev/$(value_of "$1" blockdev)" /mnt/e820
	pmtruth make /mnt/e820/delta 0x600000
	pmtruth make /mnt/e820/poison 0x8000
	start map lab-e820 /mnt/e820/delta:0:0x10000:wsd /mnt/e820/delta:0x200000:0x200000:wa
	start map lab-e820-bad /mnt/e820/poison:0:0x4000:wh
fi
if [ $# -gt 1 ]; then
	ndctl create-namespace -f -e "$2" -m devdax -M mem || echo "LAB: no second namespace of e820"
	start map lab-e820-dax "/dev/$(value_of "$2" chardev):0x200000:0x200000:wa" /mnt/e820/delta:0x8000:0x8000:r
fi

# shellcheck disable=SC2046
set -- $(namespaces_of virtio)
if [ $# -gt 0 ]; then
	# stays raw: a namespace without a label has pages only if it is not in BTT mode
	mount_ext4 "/dev/$(value_of "$1" blockdev)" /mnt/virtio
	pmtruth make /mnt/virtio/epsilon 0x10000
	start map lab-virtio /mnt/virtio/epsilon:0:0x8000:w /mnt/virtio/epsilon:0x8000:0x2000:wv
fi
if [ $# -gt 1 ]; then
	ndctl create-namespace -f -e "$2" -m fsdax -M mem || echo "LAB: no second namespace of virtio-pmem"
fi

for device in $hmem; do
	start map lab-hmem "/dev/$device:0:0x200000:wa"
done

if [ -n "${cxl_volatile:-}" ]; then
	mount_ext4 "/dev/$(namespace_value lab-cxl blockdev)" /mnt/cxl
	pmtruth make /mnt/cxl/zeta 0x400000
	start map lab-cxl /mnt/cxl/zeta:0:0x10000:ws
	start map lab-volatile "/dev/$cxl_volatile:0x400000:0x200000:wa"
fi

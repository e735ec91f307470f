# SPDX-License-Identifier: LGPL-2.1-or-later
# Persistent memory of other kinds beside the NVDIMMs, where the guest has it: memory that the firmware's map
# (e820) calls so, a virtio-pmem device, and soft-reserved memory (see hmem.sh).
e820=$(namespace_of e820)
if [ -n "$e820" ]; then
	ndctl create-namespace -f -e "$e820" -m fsdax -M dev || echo "LAB: no namespace of e820"
	mount_ext4 "/dev/$(value_of "$e820" blockdev)" /mnt/e820
	pmtruth make /mnt/e820/delta 0x600000
	pmtruth make /mnt/e820/poison 0x8000
	start map lab-e820 /mnt/e820/delta:0:0x10000:wsd /mnt/e820/delta:0x200000:0x200000:wa
	start map lab-e820-bad /mnt/e820/poison:0:0x4000:wh
fi

# stays raw: a namespace without a label has pages only if it is not in BTT mode
virtio=$(namespace_of virtio)
if [ -n "$virtio" ]; then
	mount_ext4 "/dev/$(value_of "$virtio" blockdev)" /mnt/virtio
	pmtruth make /mnt/virtio/epsilon 0x10000
	start map lab-virtio /mnt/virtio/epsilon:0:0x8000:w /mnt/virtio/epsilon:0x8000:0x2000:wv
fi

for device in $hmem; do
	start map lab-hmem "/dev/$device:0:0x200000:wa"
done

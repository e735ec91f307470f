# SPDX-License-Identifier: LGPL-2.1-or-later
# setup.sh of bench-dump.sh: one large fsdax namespace, 100,000 DAX entries, a few special pages.
. /out/lab/common.sh
ndctl disable-region all
ndctl init-labels all
ndctl enable-region all
ndctl create-namespace -r "$(region_at 0)" -n bench -m fsdax -M dev
say "namespace created"

device=/dev/$(namespace_value bench blockdev)
mkfs.xfs -q -f -m reflink=1,rmapbt=0 -d su=2m,sw=1 "$device"
mkdir -p /mnt/xfs
mount -t xfs -o dax=always "$device" /mnt/xfs || echo "LAB: /mnt/xfs was not mounted"
for file in 0 1 2 3 4 5 6 7 8 9 10 11 12; do
	mkdir -p "/mnt/xfs/data/$((file % 4))"
	pmtruth make "/mnt/xfs/data/$((file % 4))/file$file" 0x2000000
done
pmtruth make /mnt/xfs/large 0x4000000
pmtruth make /mnt/xfs/shared 0x10000
pmtruth make /mnt/xfs/pinned 0x4000
pmtruth make /mnt/xfs/poison 0x4000
sync
pmtruth clone /mnt/xfs/shared /mnt/xfs/shared.clone
say "files made"

start() {
	pmtruth map "$@" > "$truth/map.$1.txt" 2>&1 &
	tries=0
	until grep -q -e READY -e ERROR "$truth/map.$1.txt" || [ $tries -ge 600 ]; do
		usleep 200000
		tries=$((tries + 1))
	done
	tail -n 1 "$truth/map.$1.txt"
}

# Mappings of less than 2 MiB get an entry for every page.
for file in 0 1 2 3 4 5 6 7 8 9 10 11 12; do
	specs=
	for part in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
		specs="$specs /mnt/xfs/data/$((file % 4))/file$file:$((part * 2097152)):0x1ff000:w"
	done
	start "bench-$file" $specs
done
start bench-large /mnt/xfs/large:0:0x4000000:wa
start bench-shared /mnt/xfs/shared:0:0x10000:r /mnt/xfs/shared.clone:0:0x10000:r
start bench-pin /mnt/xfs/pinned:0:0x2000:wv
start bench-poison /mnt/xfs/poison:0:0x2000:wh
say "files mapped"

ndctl list -BDRNX -vv > "$truth/ndctl.json"
cat /proc/iomem > "$truth/iomem"
find /mnt -exec stat -c 'ino=%i size=%s blocks=%b mode=%f dev=%t:%T %D %n' {} \; > "$truth/stat" 2>&1
kexec -d -s -p /out/lab/bzImage --initrd=/out/lab/initrd \
	--command-line="console=ttyS0 lab=capture nr_cpus=1 reset_devices panic=10 swiotlb=noforce initcall_blacklist=nfit_init" \
	> "$truth/kexec.log" 2>&1
say "kexec returned $?, loaded: $(cat /sys/kernel/kexec_crash_loaded)"
sync
echo 3 > /proc/sys/vm/drop_caches

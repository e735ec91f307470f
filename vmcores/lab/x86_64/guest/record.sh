# SPDX-License-Identifier: LGPL-2.1-or-later
# Everything that the running system tells about itself.

record_devices() {
	ndctl list -BDRNX -vv > "$truth/ndctl.json"
	ndctl list -BDRNXi -vv > "$truth/ndctl.all.json"
	ndctl list -BDRNXu -vv > "$truth/ndctl.human.txt"
	for flags in B D R N X Ni Xi RM NM BDRN BDRNX; do
		ndctl list "-$flags" > "$truth/ndctl-list-$flags.json"
	done
	ndctl list -Nu > "$truth/ndctl-list-Nu.txt"
	ndctl list -Ru > "$truth/ndctl-list-Ru.txt"
	daxctl list -DRi > "$truth/daxctl.json"
	daxctl list -DRiu > "$truth/daxctl.human.txt"
	if command -v cxl > /dev/null; then
		cxl list -vvv > "$truth/cxl.json"
	fi
	for dimm in /sys/bus/nd/devices/nmem*; do
		dimm=${dimm##*/}
		ndctl read-labels -j "$dimm" > "$truth/labels.$dimm.json" 2> /dev/null
		ndctl read-labels "$dimm" -o "/tmp/$dimm.labels" 2> /dev/null
		gzip -c -9 "/tmp/$dimm.labels" > "$truth/labels.$dimm.gz"
	done
	pmtruth tree /sys/bus/nd/devices 2 > "$truth/sysfs.nd"
	pmtruth tree /sys/bus/dax/devices 2 > "$truth/sysfs.dax"
	ls -l /sys/bus/nd/devices /sys/bus/nd/drivers/* /sys/bus/dax/devices /sys/bus/dax/drivers/* \
		/sys/block > "$truth/sysfs.ls"
	for device in /sys/block/pmem*; do
		echo "${device##*/}=$(tr '\n' '|' < "$device/badblocks")"
	done > "$truth/badblocks.block"
	! has_device_mapper || dmsetup table > "$truth/dmsetup.table"
}

record_files() {
	for file in /mnt/ext4/* /mnt/ext4/sub/dir/* /mnt/small/* /mnt/xfs/* /mnt/mem/* /mnt/dm/* /mnt/e820/* \
		/mnt/virtio/* /mnt/cxl/*; do
		[ -f "$file" ] || continue
		echo "== $file"
		xfs_io -r -c "fiemap -v" "$file"
	done > "$truth/fiemap" 2>&1
	find /mnt -exec stat -c 'ino=%i size=%s blocks=%b mode=%f dev=%t:%T %D %n' {} \; > "$truth/stat" 2>&1
	cat /proc/self/mounts > "$truth/mounts"
	cat /proc/self/mountinfo > "$truth/mountinfo"
}

record_memory() {
	cat /proc/iomem > "$truth/iomem"
	cat /proc/zoneinfo > "$truth/zoneinfo"
	cat /proc/meminfo > "$truth/meminfo"
	pmtruth tree /sys/devices/system/memory 1 > "$truth/sysfs.memory"
	pmtruth tree /sys/devices/system/cpu 1 > "$truth/sysfs.cpu"
	for file in kexec_crash_loaded kexec_crash_size crash_elfcorehdr_size vmcoreinfo; do
		echo "$file=$(cat "/sys/kernel/$file" 2> /dev/null)"
	done > "$truth/sysfs.kernel"
	for file in /sys/devices/system/cpu/crash_hotplug /sys/devices/system/memory/crash_hotplug; do
		echo "$file=$(cat "$file" 2> /dev/null)"
	done >> "$truth/sysfs.kernel"
	grep -E ' (_text|_end|swapper_pg_dir|init_mm|phys_base|memstart_addr|page_offset_base|vmemmap_base|devm_memmap_vmcore_head|pgmap_array|iomem_resource|nvdimm_bus_list|acpi_descs|dax_hosts|crashk_res|crashk_low_res|kexec_crash_image)$' \
		/proc/kallsyms > "$truth/kallsyms"
	cat /proc/cmdline > "$truth/cmdline"
	uname -a > "$truth/uname"
}

# Nothing here may touch what the stuck processes hold.
record_processes() {
	for process in $(pidof pmtruth); do
		mkdir -p "$truth/proc/$process"
		cat "/proc/$process/smaps" > "$truth/proc/$process/smaps" 2> /dev/null
		for file in comm status stack wchan maps; do
			echo "==> $process/$file <=="
			cat "/proc/$process/$file" 2> /dev/null
			echo
		done
		echo "==> $process/fd <=="
		ls -l "/proc/$process/fd"
	done > "$truth/processes.txt"
	ps -o pid,ppid,stat,comm,args > "$truth/ps"
}

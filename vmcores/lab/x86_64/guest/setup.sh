# SPDX-License-Identifier: LGPL-2.1-or-later
# The first kernel: make everything, record the truth, load the capture kernel.
. /out/lab/common.sh
parts="hmem namespaces files processes record"
if [ "$SETUP" = providers ]; then
	parts="hmem cxl processes record"
fi
for part in $parts; do
	case $part in
	hmem) cat /proc/iomem > "$truth/iomem.before" ;;
	esac
	. "/out/lab/$part.sh"
	say "$part done"
done
[ "$SETUP" = providers ] || start_mappers
. /out/lab/providers.sh
sync
if [ "$SETUP" = full ]; then
	. /out/lab/poison.sh
fi
say "processes and poison done"
record_devices
record_files
say "devices and files recorded"

load_capture_kernel() {
	local cmdline how
	# acpi_no_memhotplug: else a DIMM that was plugged in is RAM to the capture kernel, which then cannot read it
	cmdline="console=$CONSOLE lab=capture nr_cpus=1 reset_devices panic=10 swiotlb=noforce acpi_no_memhotplug"
	if [ "$CAPTURE_PMEM" != 1 ]; then
		# else its nfit driver (with a device tree, of_pmem's) would write the struct pages on pmem anew
		cmdline="$cmdline initcall_blacklist=nfit_init,of_pmem_region_driver_init"
	fi
	how=-s
	if [ "$LOADER" = load ]; then
		how=-c
	fi
	kexec -d "$how" -p "/out/lab/$KERNEL" --initrd=/out/lab/initrd --command-line="$cmdline" \
		> "$truth/kexec.log" 2>&1
	say "kexec returned $?, loaded: $(cat /sys/kernel/kexec_crash_loaded)"
}

case $LOADER in
none) ;;
fadump)
	. /out/lab/fadump.sh
	# for the area that later kernels hand to the capture kernel (they have it under radix only)
	[ ! -e /sys/kernel/fadump/bootargs_append ] || echo "lab.append=1" > /sys/kernel/fadump/bootargs_append
	echo 1 > /sys/kernel/fadump/registered
	say "firmware-assisted dump registered: $(cat /sys/kernel/fadump/registered)"
	# a CPU whose registers only the firmware can save; it must not hold this script's output open
	(while :; do :; done) > /dev/null 2>&1 &
	;;
*) load_capture_kernel ;;
esac

if [ "${HOTADD:-0}" -gt 0 ]; then
	cat /proc/iomem > "$truth/iomem.loaded"
	ls -d /sys/devices/system/memory/memory* | sort > /tmp/blocks.before
	ask add-memory "$HOTADD"
	sleep 2
	ls -d /sys/devices/system/memory/memory* | sort > /tmp/blocks.after
	for block in $(diff /tmp/blocks.before /tmp/blocks.after | sed -n 's/^[+>] *//p' | grep /memory/); do
		# movable: no kernel object goes where a dump may have nothing
		echo online_movable > "$block/state"
		echo "${block##*/}" >> "$truth/hot-added"
	done
fi

sync
echo 3 > /proc/sys/vm/drop_caches
# the files of a distribution's modules would be in the dump, and they are loaded
rm -rf /mods
if [ "$SETUP" = full ]; then
	start_stuck
fi
sleep 1
kill -USR1 $(pidof pmtruth)
sleep 1
record_memory
record_processes
if [ "$LOADER" = fadump ]; then
	record_fadump "$truth/first"
fi
say "recording done"

# SPDX-License-Identifier: LGPL-2.1-or-later
# The capture kernel: save all of /proc/vmcore; the other formats are made of it on the host.
CONTROL=/dev/ttyS1
. /out/lab/scenario
if [ "$LOADER" = fadump ]; then
	. /out/lab/fadump.sh
	record_fadump /out/truth/capture
fi
cat /proc/cmdline
cat /proc/iomem > /out/iomem.capture
# the third disk is the dump itself: its host file stays sparse, and run.sh cuts it to length
time pmtruth copy-sparse /proc/vmcore /dev/vdc > /out/vmcore.size
cat /out/vmcore.size
if grep -qv initcall_blacklist /proc/cmdline; then
	ndctl list -BDRNX -vv > /out/ndctl.capture.json
fi
dmesg > /out/dmesg.capture
# a dump of the capture kernel, from outside: it holds the crashed kernel, too (--crashed)
if [ "${QEMU_CAPTURE:-0}" = 1 ]; then
	sync
	exec 3<> "$CONTROL"
	stty raw -echo < "$CONTROL"
	echo "dump capture" >&3
	read -r answer <&3
	echo "dump of the capture kernel: $answer"
fi

# SPDX-License-Identifier: LGPL-2.1-or-later
# The capture kernel: save all of /proc/vmcore; the other formats are made of it on the host.
cat /proc/cmdline
cat /proc/iomem > /out/iomem.capture
# the third disk is the dump itself: its host file stays sparse, and run.sh cuts it to length
time pmtruth copy-sparse /proc/vmcore /dev/vdc > /out/vmcore.size
cat /out/vmcore.size
if grep -qv initcall_blacklist /proc/cmdline; then
	ndctl list -BDRNX -vv > /out/ndctl.capture.json
fi
dmesg > /out/dmesg.capture

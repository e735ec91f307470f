# SPDX-License-Identifier: LGPL-2.1-or-later
# The last record, QEMU's own dumps, and the end.
. /out/lab/common.sh
pmtruth record "$truth"
dmesg > "$truth/dmesg"
# only this disk: a full sync would clean the DAX pages, and wait for the stuck ones
pmtruth sync-fs /out
for format in $QEMU_DUMPS; do
	ask dump "$format"
done
# without a dump of its own, that was all
[ "$LOADER" != none ] || poweroff -f
echo 1 > /proc/sys/kernel/sysrq
echo c > /proc/sysrq-trigger

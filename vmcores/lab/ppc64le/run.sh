#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# run.sh WORK VERSION OUT [POWER9|POWER8]: crash one pseries guest under firmware-assisted dump.
#
# POWER9 (default) boots with the radix MMU, POWER8 with the hash MMU.  OUT gets
#   vmcore               /proc/vmcore of the capture kernel, as it is (sparse)
#   vmcore.qemu-elf      QEMU's dump of the registered guest: the reserve area is in it
#   vmcore.qemu-capture  QEMU's dump of the capture kernel before it saved anything
#   truth/               first/ and capture/: what each kernel said; console: the whole log, both boots
#
# 768 MiB is the least: the boot memory that the firmware copies away is 320 MiB, it is copied to an area
# of that size above it, and pseries counts memory in 256 MiB.  Without crashkernel= the kernel takes the
# minimum.  On its command line:
#   nohz=off        with the low-resolution timers of config.fragment a tickless CPU hangs under TCG
#   init_on_free=1  what was freed shall not weigh anything
#   fadump=nocma    RTAS lies in the reserve area (the kernel learns of it too late), and handing that to
#                   CMA with init_on_free would wipe it
# Virtual time counts instructions (-icount): a busy host does not starve the guest.
#
# Needs: root, e2fsprogs, python3; prepare.sh and build-kernel.sh before.  Takes half a minute.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
work=$(cd "$1" && pwd)
version=$2
mkdir -p "$3"
out=$(cd "$3" && pwd)
cpu=${4:-POWER9}
root=$work/qemu-root
shared=$(mktemp -d "$root/lab.XXXXXX")
inside=/$(basename "$shared")

cleanup() {
	[ -z "${qemu:-}" ] || kill "$qemu" 2> /dev/null || true
	rm -rf "$shared"
}
trap cleanup EXIT

cp "$work/boot-$version" "$shared/kernel"
cp "$work/initrd.gz" "$shared/"
truncate -s 1G "$shared/disk.img"
mke2fs -q -t ext2 -F "$shared/disk.img"

# no KVM, no /dev of this machine: the chroot needs nothing but its own files
chroot "$root" qemu-system-ppc64 -machine pseries,x-vof=on -cpu "$cpu" -accel tcg,thread=single -icount shift=2 \
	-m 768M -smp 2 -nodefaults -display none -vga none \
	-chardev "socket,id=console,path=$inside/console.sock,server=on,wait=on" \
	-serial chardev:console -monitor "unix:$inside/monitor.sock,server,nowait" \
	-kernel "$inside/kernel" -initrd "$inside/initrd.gz" \
	-append "console=hvc0 fadump=${FADUMP:-nocma} init_on_free=1 nohz=off ${APPEND:-}" \
	-drive "file=$inside/disk.img,format=raw,if=none,id=disk,cache=unsafe" \
	-device virtio-blk-pci,drive=disk &
qemu=$!

python3 "$here/drive.py" "$shared" "$inside"
wait "$qemu"
qemu=

mkdir -p "$out/truth"
debugfs -R "rdump /first $out/truth" "$shared/disk.img" 2> /dev/null
debugfs -R "rdump /capture $out/truth" "$shared/disk.img" 2> /dev/null
debugfs -R "dump /vmcore $out/vmcore" "$shared/disk.img" 2> /dev/null
cp "$shared/vmcore.qemu-elf" "$shared/vmcore.qemu-capture" "$out/"
cp "$shared/console" "$out/truth/"
for f in vmcore vmcore.qemu-elf vmcore.qemu-capture; do
	fallocate -d "$out/$f"
done
ls -ls "$out"

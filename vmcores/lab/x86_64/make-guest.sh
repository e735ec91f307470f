#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# make-guest.sh WORK: WORK/initrd (busybox, pmtruth, init) and WORK/tools.img, a read-only disk
# with the tools that the guest runs and their libraries, from this machine's packages.
#
# Needs: busybox-static ndctl daxctl kexec-tools e2fsprogs xfsprogs dmsetup gcc libc6-dev cpio.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
work=$1
guest=$work/guest
export PATH=$PATH:/usr/sbin:/sbin

rm -rf "$guest"
mkdir -p "$guest"/initrd/{bin,dev,etc,usr} "$guest"/tools/usr/{sbin,lib} "$guest"/tools/lib
gcc -O1 -static -Wall -o "$guest/initrd/bin/pmtruth" "$here"/guest/pmtruth/*.c
strip "$guest/initrd/bin/pmtruth"
cp "$(command -v busybox)" "$guest/initrd/bin/busybox"
install -m 755 "$here/guest/init" "$guest/initrd/init"
mknod "$guest/initrd/dev/console" c 5 1
mknod "$guest/initrd/dev/null" c 1 3

for tool in ndctl daxctl kexec mkfs.ext4 mkfs.xfs xfs_io dmsetup; do
	program=$(command -v "$tool") || { echo "missing: $tool" >&2; exit 1; }
	cp -L "$program" "$guest/tools/usr/sbin/"
	# "libX => /lib/libX (...)" and the loader, which stands alone
	ldd "$program" 2> /dev/null | grep -o '/[^ ]*' | while read -r library; do
		mkdir -p "$guest/tools$(dirname "$library")"
		cp -Ln "$library" "$guest/tools$library" 2> /dev/null || true
	done
done
# in the guest the tools disk is mounted on /t
ln -s /t/lib "$guest/initrd/lib"
ln -s /t/lib64 "$guest/initrd/lib64"
ln -s /t/usr/lib "$guest/initrd/usr/lib"

# not compressed, see gzip-stored.py
(cd "$guest/initrd" && find . | sort | cpio -o -H newc --quiet) > "$work/initrd"
rm -f "$work/tools.img"
mke2fs -q -t ext4 -d "$guest/tools" "$work/tools.img" 96M > /dev/null
ls -l "$work/initrd" "$work/tools.img"

#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# make-guest.sh WORK: what run-pmem.sh boots: WORK/initrd-pmem (busybox, pmtruth, the init of the x86_64
# lab) and WORK/tools.img, a read-only disk with the tools that the guest runs and their libraries, from
# Debian's ppc64el packages.
#
# sid's: the lists of ppc64el of a stable suite may name packages that are not there.
#
# Needs: gcc-powerpc64le-linux-gnu libc6-dev-ppc64el-cross e2fsprogs cpio; apt for the packages.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
work=$(cd "$1" && pwd)
export PATH=$PATH:/usr/sbin:/sbin
# shellcheck source=vmcores/lab/debian.sh
. "$here/../debian.sh"
cross=powerpc64le-linux-gnu
library=usr/lib/$cross

# The programs' packages and all that they depend on: nothing is installed.
fetch_packages() {
	local archives=$work/apt-guest/archives package
	use_suites "$work/apt-guest" ppc64el sid
	mkdir -p "$archives/partial" "$work/packages"
	apt_in "$work/apt-guest" apt-get install -y -qq --download-only --no-install-recommends \
		-o "Dir::Cache::archives=$archives" busybox-static ndctl daxctl e2fsprogs xfsprogs
	for package in "$archives"/*.deb; do
		dpkg-deb --extract "$package" "$work/packages"
	done
}

[ -d "$work/packages/usr/bin" ] || fetch_packages
initrd=$work/initrd.dir tools=$work/tools
rm -rf "$initrd" "$tools"
mkdir -p "$initrd"/{bin,dev,etc,usr} "$tools/usr/sbin" "$tools/$library"
$cross-gcc -O1 -static -Wall -DPAGE_SHIFT=16 -o "$initrd/bin/pmtruth" "$here"/../x86_64/guest/pmtruth/*.c
$cross-strip "$initrd/bin/pmtruth"
cp "$work/packages/usr/bin/busybox" "$initrd/bin/busybox"
install -m 755 "$here/../x86_64/guest/init" "$initrd/init"
mknod "$initrd/dev/console" c 5 1
mknod "$initrd/dev/null" c 1 3

for tool in ndctl daxctl mkfs.ext4 mkfs.xfs xfs_io; do
	program=$(find "$work/packages" -path "*bin/$tool" | head -n 1)
	[ -n "$program" ] || { echo "missing: $tool" >&2; exit 1; }
	cp -L "$program" "$tools/usr/sbin/"
done
# what they link to, and what that links to
while :; do
	found=
	for name in $(readelf -d "$tools/usr/sbin/"* "$tools/$library/"* 2> /dev/null |
		sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u); do
		[ ! -e "$tools/$library/$name" ] || continue
		cp -L "$work/packages/$library/$name" "$tools/$library/"
		found=1
	done
	[ -n "$found" ] || break
done
cp -Ln "$work/packages/$library/ld64.so.2" "$tools/$library/" || true
ln -s "$cross/ld64.so.2" "$tools/usr/lib/ld64.so.2"
# in the guest the tools disk is mounted on /t
ln -s usr/lib "$tools/lib"
ln -s usr/lib "$tools/lib64"
for name in lib lib64 usr/lib; do
	ln -s /t/usr/lib "$initrd/$name"
done

# not compressed: the running kernel holds the same bytes
(cd "$initrd" && find . | sort | cpio -o -H newc --quiet) > "$work/initrd-pmem"
rm -f "$work/tools.img"
mke2fs -q -t ext4 -d "$tools" "$work/tools.img" 96M > /dev/null
ls -l "$work/initrd-pmem" "$work/tools.img"

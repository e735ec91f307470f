#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# make-guest.sh WORK [PAGES]: WORK/initrd (busybox, pmtruth, init) and WORK/tools.img, a read-only disk with
# the tools that the guest runs and their libraries, from Debian 13's arm64 packages.  WORK/tools is
# the same as a directory: makedumpfile is run from there by qemu-aarch64, because it reads dumps of
# its own machine only.  PAGES is that of build-kernel.sh.
#
# Needs: gcc-aarch64-linux-gnu libc6-dev-arm64-cross e2fsprogs cpio; apt for the packages.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
case ${2:-4K} in
4K) shift=12 ;;
16K) shift=14 ;;
64K) shift=16 ;;
esac
mkdir -p "$1"
work=$(cd "$1" && pwd)
export PATH=$PATH:/usr/sbin:/sbin
# shellcheck source=vmcores/lab/debian.sh
. "$here/../debian.sh"

# The programs, and the libraries that they link to: not all that their packages depend on.
packages="busybox-static ndctl daxctl kexec-tools makedumpfile e2fsprogs xfsprogs libc6 libgcc-s1
	libndctl6 libdaxctl1 libcxl1 libuuid1 libblkid1 libkmod2 libudev1 libjson-c5 libtraceevent1
	libtracefs1 libiniparser4 libkeyutils1 libzstd1 liblzma5 zlib1g libbz2-1.0 liblzo2-2 libdw1t64
	libelf1t64 libext2fs2t64 libcom-err2 libss2 libinih1 liburcu8t64 libedit2 libbsd0 libmd0 libtinfo6
	libcap2 libssl3t64 libdevmapper1.02.1 libselinux1 libpcre2-8-0 libxenmisc4.20 libxentoollog1
	libxentoolcore1 libxencall1 libxenforeignmemory1 libxendevicemodel1 libxenevtchn1 libxengnttab1
	libxenhypfs1 libxenstore4 libyajl2"
library=usr/lib/aarch64-linux-gnu

# Another machine's packages.
fetch_packages() {
	local package
	mkdir -p "$work/deb-arm64" "$work/packages"
	use_suites "$work/apt-arm64" arm64 trixie
	# shellcheck disable=SC2086
	(cd "$work/deb-arm64" && apt_in "$work/apt-arm64" apt-get download -qq $packages)
	for package in "$work"/deb-arm64/*_arm64.deb; do
		dpkg-deb --extract "$package" "$work/packages"
	done
}

[ -d "$work/packages" ] || fetch_packages
initrd=$work/initrd.dir tools=$work/tools
rm -rf "$initrd" "$tools"
mkdir -p "$initrd"/{bin,dev,etc,usr} "$tools/usr/sbin" "$tools/$library"
aarch64-linux-gnu-gcc -O1 -static -Wall -DPAGE_SHIFT="$shift" -o "$initrd/bin/pmtruth" "$here"/../x86_64/guest/pmtruth/*.c
aarch64-linux-gnu-strip "$initrd/bin/pmtruth"
cp "$work/packages/usr/bin/busybox" "$initrd/bin/busybox"
install -m 755 "$here/../x86_64/guest/init" "$initrd/init"
mknod "$initrd/dev/console" c 5 1
mknod "$initrd/dev/null" c 1 3

for tool in ndctl daxctl kexec makedumpfile mkfs.ext4 mkfs.xfs xfs_io; do
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
cp -Ln "$work/packages/$library/ld-linux-aarch64.so.1" "$tools/$library/" || true
ln -s aarch64-linux-gnu/ld-linux-aarch64.so.1 "$tools/usr/lib/ld-linux-aarch64.so.1"
ln -s usr/lib "$tools/lib"
# in the guest the tools disk is mounted on /t
ln -s /t/usr/lib "$initrd/lib"
ln -s /t/usr/lib "$initrd/usr/lib"

# not compressed: the running kernel holds the same bytes, and so does the capture kernel
(cd "$initrd" && find . | sort | cpio -o -H newc --quiet) > "$work/initrd"
rm -f "$work/tools.img"
mke2fs -q -t ext4 -d "$tools" "$work/tools.img" 96M > /dev/null
ls -l "$work/initrd" "$work/tools.img"

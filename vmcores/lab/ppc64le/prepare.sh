#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# prepare.sh WORK: a QEMU that emulates firmware-assisted dump, and the guest's initrd.
#
# Debian 12's QEMU (7.2) has no ibm,configure-kernel-dump; that of trixie-backports has, but needs a newer
# libc, so it lives in a debootstrap root, WORK/qemu-root.  The initrd is busybox and guest/init alone:
# what the guest holds in memory is what a sample weighs.
#
# Needs: root, debootstrap cpio.  Takes a minute.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
work=$(cd "$1" && pwd)
root=$work/qemu-root
# shellcheck source=vmcores/lab/debian.sh
. "$here/../debian.sh"
mirror=$(debian_mirror)

if [ ! -x "$root/usr/bin/qemu-system-ppc64" ]; then
	debootstrap --variant=minbase --include=ca-certificates trixie "$root" "$mirror" > "$work/debootstrap.log"
	echo "deb $mirror trixie-backports main" > "$root/etc/apt/sources.list.d/backports.list"
	# a proxy that this machine needs, its root needs too
	cp /etc/resolv.conf "$root/etc/" || true
	cp /etc/apt/apt.conf.d/*proxy* "$root/etc/apt/apt.conf.d/" 2> /dev/null || true
	chroot "$root" apt-get update -qq
	DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get install -y -qq --no-install-recommends \
		-t trixie-backports qemu-system-ppc > "$work/qemu-install.log"
fi
chroot "$root" qemu-system-ppc64 --version | head -n 1

mkdir -p "$work/deb"
use_suites "$work/apt-ppc64el" ppc64el trixie
(cd "$work/deb" && apt_in "$work/apt-ppc64el" apt-get download -qq busybox-static)

rm -rf "$work/initrd"
mkdir -p "$work/initrd/bin" "$work/initrd/dev" "$work/initrd/proc" "$work/initrd/sys" "$work/initrd/disk"
dpkg-deb --fsys-tarfile "$(find "$work/deb" -name 'busybox-static_*_ppc64el.deb' | head -n 1)" |
	tar -x -O ./usr/bin/busybox > "$work/initrd/bin/busybox"
chmod +x "$work/initrd/bin/busybox"
for applet in sh mount umount cat dd dmesg mkdir poweroff sleep sync; do
	ln -s busybox "$work/initrd/bin/$applet"
done
cp "$here/guest/init" "$work/initrd/init"
chmod +x "$work/initrd/init"
(cd "$work/initrd" && find . | cpio --quiet -o -H newc | gzip -9) > "$work/initrd.gz"
ls -l "$work/initrd.gz"

#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# build-kernel.sh VERSION WORK: build the lab's kernel from Debian's linux-source-VERSION.
#
# VERSION is 6.1, which gets devm-memmap-vmcore-6.1.patch (our own: the RFC's list of memmap ranges and
# PF_DEV), or 7.2, which stays as it is.  Makes WORK/bzImage-VERSION, WORK/vmlinux-VERSION (all debug
# info), WORK/config-VERSION and WORK/source-VERSION (the Debian package's version).
#
# Needs: flex bison bc libelf-dev libssl-dev gcc make patch xz-utils; apt for the source package.
# Takes 4 to 10 minutes on two cores.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
version=$1
mkdir -p "$2"
work=$(cd "$2" && pwd)
source_dir=$work/source/linux-source-$version
build_dir=$work/build-$version
# shellcheck source=vmcores/lab/debian.sh
. "$here/../debian.sh"

if [ ! -d "$source_dir" ]; then
	fetch_source "$version" "$work" trixie trixie-backports sid
	if [ -f "$here/devm-memmap-vmcore-$version.patch" ]; then
		patch -d "$source_dir" -p1 < "$here/devm-memmap-vmcore-$version.patch"
	fi
fi

# No trace of this machine in the kernel, and the same kernel each time.  -fno-var-tracking: where a
# local variable lives at each instruction is much debug info, and is cut out later anyway.
map=-ffile-prefix-map=$work=.
make_kernel() {
	make -s -C "$source_dir" O="$build_dir" -j"$(nproc)" \
		KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=drgn-pmem KBUILD_BUILD_TIMESTAMP=2026-01-01 \
		KGZIP="$here/gzip-stored.py" KCFLAGS="$map -fno-var-tracking" KAFLAGS="$map" "$@"
}

mkdir -p "$build_dir"
make_kernel tinyconfig
"$source_dir/scripts/kconfig/merge_config.sh" -m -O "$build_dir" \
	"$build_dir/.config" "$here/config.fragment" > "$work/merge-$version.log"
make_kernel olddefconfig
make_kernel bzImage vmlinux

cp "$build_dir/arch/x86/boot/bzImage" "$work/bzImage-$version"
cp "$build_dir/vmlinux" "$work/vmlinux-$version"
cp "$build_dir/.config" "$work/config-$version"

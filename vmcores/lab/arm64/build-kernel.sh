#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# build-kernel.sh WORK [PAGES]: cross-build the lab's kernel from Debian's linux-source-6.12.
#
# PAGES is 4K (default), 16K or 64K: the size of the kernel's pages.  WORK/source is shared: link it
# into another WORK to build other PAGES of the same source.
#
# It gets devm-memmap-vmcore-6.12.patch (our own: the RFC's list of memmap ranges, and PT_LOADs with
# PF_DEV).  Makes WORK/Image, WORK/vmlinux (all debug info), WORK/config and WORK/source-6.12 (the
# Debian package's version).
#
# Needs: gcc-aarch64-linux-gnu flex bison bc libelf-dev libssl-dev make patch xz-utils.
# Takes 5 minutes on two cores.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
version=6.12 pages=${2:-4K}
mkdir -p "$1"
work=$(cd "$1" && pwd)
source_dir=$work/source/linux-source-$version
build_dir=$work/build
# shellcheck source=vmcores/lab/debian.sh
. "$here/../debian.sh"

if [ ! -d "$source_dir" ]; then
	fetch_source "$version" "$work" trixie
	patch -d "$source_dir" -p1 < "$here/devm-memmap-vmcore-$version.patch"
fi

# No trace of this machine in the kernel, and the same kernel each time.  -fno-var-tracking: where a
# local variable lives at each instruction is much debug info, and is cut out later anyway.
map=-ffile-prefix-map=$work=.
make_kernel() {
	make -s -C "$source_dir" O="$build_dir" -j"$(nproc)" ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- \
		KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=drgn-pmem KBUILD_BUILD_TIMESTAMP=2026-01-01 \
		KCFLAGS="$map -fno-var-tracking" KAFLAGS="$map" "$@"
}

mkdir -p "$build_dir"
sed "s/^CONFIG_ARM64_4K_PAGES=/CONFIG_ARM64_${pages}_PAGES=/" "$here/config.fragment" > "$work/config.fragment"
make_kernel KCONFIG_ALLCONFIG="$work/config.fragment" allnoconfig
if grep '^CONFIG_[A-Z0-9_]*=[^n]' "$work/config.fragment" | grep -vxF -f "$build_dir/.config"; then
	echo "build-kernel.sh: the kernel does not have these" >&2
	exit 1
fi
make_kernel Image vmlinux

cp "$build_dir/arch/arm64/boot/Image" "$work/Image"
cp "$build_dir/vmlinux" "$work/vmlinux"
cp "$build_dir/.config" "$work/config"
ls -l "$work/Image" "$work/vmlinux"

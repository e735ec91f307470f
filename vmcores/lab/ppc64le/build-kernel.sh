#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# build-kernel.sh VERSION WORK: cross-build a pseries kernel with firmware-assisted dump from Debian's
# linux-source-VERSION (Debian's own ppc64el kernels have FA_DUMP off).
#
# VERSION is 6.1 (crash info header FADMPINF) or 6.12 (FADMPSIG), or 6.12-pmem: with papr_scm, DAX and the
# file systems of config-pmem.fragment.  Makes WORK/vmlinux-VERSION (all debug info), WORK/boot-VERSION (to
# boot), WORK/config-VERSION and WORK/source-VERSION (the source package).
#
# Needs: gcc-powerpc64le-linux-gnu flex bison bc libelf-dev libssl-dev make xz-utils.
# Takes 5 minutes on two cores.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
version=$1
mkdir -p "$2"
work=$(cd "$2" && pwd)
source=${version%-pmem}
source_dir=$work/source/linux-source-$source
build_dir=$work/build-$version
# shellcheck source=vmcores/lab/debian.sh
. "$here/../debian.sh"

[ -d "$source_dir" ] || fetch_source "$source" "$work" bookworm trixie
# QEMU's TCG does not know the instructions that write cache lines back to persistent storage (dcbstps,
# dcbfps), and the first write to pmem would be an oops: the plain dcbf does as well there.
sed -i -E 's/PPC_DCB(STPS|FPS)\(%0, %1\): *:"i"\(0\), /"dcbf 0, %0": :/' "$source_dir/arch/powerpc/lib/pmem.c"
export ARCH=powerpc CROSS_COMPILE=powerpc64le-linux-gnu-
mkdir -p "$build_dir"
cp "$here/config.fragment" "$build_dir/fragment"
if [ "$version" != "$source" ]; then
	# the later of two settings counts
	cat "$here/config-pmem.fragment" >> "$build_dir/fragment"
fi
make -s -C "$source_dir" O="$build_dir" KCONFIG_ALLCONFIG="$build_dir/fragment" allnoconfig
# Locations of local variables are a third of the debug info, and nothing here asks for them.
make -s -C "$source_dir" O="$build_dir" -j "$(nproc)" \
	KCFLAGS="-fno-var-tracking -fno-var-tracking-assignments" vmlinux
cp "$build_dir/.config" "$work/config-$version"
cp "$build_dir/vmlinux" "$work/vmlinux-$version"
"${CROSS_COMPILE}objcopy" --strip-debug "$work/vmlinux-$version" "$work/boot-$version"
ls -l "$work/vmlinux-$version" "$work/boot-$version"

#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# build-kernel.sh VERSION WORK: cross-build a pseries kernel with firmware-assisted dump from Debian's
# linux-source-VERSION (Debian's own ppc64el kernels have FA_DUMP off).
#
# VERSION is 6.1 (crash info header FADMPINF) or 6.12 (FADMPSIG).  Makes WORK/vmlinux-VERSION (all debug
# info), WORK/boot-VERSION (to boot), WORK/config-VERSION and WORK/source-VERSION (the source package).
#
# Needs: gcc-powerpc64le-linux-gnu flex bison bc libelf-dev libssl-dev make xz-utils.
# Takes 5 minutes on two cores.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
version=$1
mkdir -p "$2"
work=$(cd "$2" && pwd)
source_dir=$work/source/linux-source-$version
build_dir=$work/build-$version

# The source package lies in another suite than this machine's own: download it with an apt
# configuration of our own, and unpack it without installing.
fetch_source() {
	local apt_dir=$work/apt-source mirror suite package
	mkdir -p "$apt_dir/lists/partial" "$work/deb" "$work/source"
	mirror=$(sed -n 's/^URIs: //p' /etc/apt/sources.list.d/debian.sources | head -n 1)
	for suite in bookworm trixie; do
		echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
	done > "$apt_dir/sources.list"
	local options=(-o "Dir::Etc::sourcelist=$apt_dir/sources.list" -o "Dir::Etc::sourceparts=-"
		       -o "Dir::State::Lists=$apt_dir/lists" -o "APT::Sandbox::User=root")
	apt-get "${options[@]}" update -qq
	(cd "$work/deb" && apt-get "${options[@]}" download -qq "linux-source-$version")
	package=$(find "$work/deb" -name "linux-source-${version}_*.deb" | head -n 1)
	dpkg-deb --show "$package" > "$work/source-$version"
	dpkg-deb --fsys-tarfile "$package" |
		tar -x -O "./usr/src/linux-source-$version.tar.xz" | tar -C "$work/source" -x --xz
}

[ -d "$source_dir" ] || fetch_source
export ARCH=powerpc CROSS_COMPILE=powerpc64le-linux-gnu-
mkdir -p "$build_dir"
make -s -C "$source_dir" O="$build_dir" KCONFIG_ALLCONFIG="$here/config.fragment" allnoconfig
# Locations of local variables are a third of the debug info, and nothing here asks for them.
make -s -C "$source_dir" O="$build_dir" -j "$(nproc)" \
	KCFLAGS="-fno-var-tracking -fno-var-tracking-assignments" vmlinux
cp "$build_dir/.config" "$work/config-$version"
cp "$build_dir/vmlinux" "$work/vmlinux-$version"
"${CROSS_COMPILE}objcopy" --strip-debug "$work/vmlinux-$version" "$work/boot-$version"
ls -l "$work/vmlinux-$version" "$work/boot-$version"

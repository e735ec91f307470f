# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# debian.sh: what the labs take from Debian; to be sourced.  Each FOLDER has an apt configuration of its
# own, for suites and an architecture that this machine need not have.  Nothing is installed.

# debian_mirror: where this machine gets its packages.
debian_mirror() {
	sed -n 's/^URIs: //p' /etc/apt/sources.list.d/debian.sources | head -n 1
}

# use_suites FOLDER ARCHITECTURE SUITE...: read the lists of packages of SUITEs.
use_suites() {
	local folder=$1 architecture=$2 suite
	shift 2
	mkdir -p "$folder/lists/partial"
	: > "$folder/status"
	echo "$architecture" > "$folder/architecture"
	for suite; do
		echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(debian_mirror) $suite main"
	done > "$folder/sources.list"
	apt_in "$folder" apt-get update -qq
}

# apt_in FOLDER PROGRAM ARGUMENT...: apt-get or apt-cache, of those lists.
apt_in() {
	local folder=$1 program=$2 architecture
	architecture=$(cat "$folder/architecture")
	shift 2
	"$program" -o APT::Sandbox::User=root \
		-o "APT::Architecture=$architecture" -o "APT::Architectures=$architecture" \
		-o "Dir::Etc::sourcelist=$folder/sources.list" -o Dir::Etc::sourceparts=- \
		-o "Dir::State::Lists=$folder/lists" -o "Dir::State::status=$folder/status" "$@"
}

# fetch_source VERSION WORK SUITE...: linux-source-VERSION, unpacked in WORK/source; the package's
# version in WORK/source-VERSION.  This machine's own package if it has one, else that of SUITEs.
fetch_source() {
	local version=$1 work=$2 folder=$2/apt-source package
	shift 2
	mkdir -p "$work/deb" "$work/source"
	if apt-cache show "linux-source-$version" > /dev/null 2>&1; then
		(cd "$work/deb" && apt-get -o APT::Sandbox::User=root download -qq "linux-source-$version")
	else
		use_suites "$folder" "$(dpkg --print-architecture)" "$@"
		(cd "$work/deb" && apt_in "$folder" apt-get download -qq "linux-source-$version")
	fi
	package=$(find "$work/deb" -name "linux-source-${version}_*.deb" | head -n 1)
	dpkg-deb --show "$package" > "$work/source-$version"
	dpkg-deb --fsys-tarfile "$package" |
		tar -x -O "./usr/src/linux-source-$version.tar.xz" | tar -C "$work/source" -x --xz
}

# fetch_kernel FOLDER SUITE PACKAGE: the kernel that PACKAGE (linux-image-amd64, linux-image-cloud-amd64)
# depends on, with its modules in FOLDER/image, its debug info in FOLDER/debug, its name in FOLDER/release.
fetch_kernel() {
	local folder=$1 image parts package
	rm -rf "$folder"
	mkdir -p "$folder/packages"
	use_suites "$folder/apt" amd64 "$2"
	image=$(apt_in "$folder/apt" apt-cache depends "$3" |
		sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
	# from 7.x on, the image and the modules are packages of their own
	parts=$(apt_in "$folder/apt" apt-cache depends "$image" |
		sed -n 's/.*Depends: \(linux-\(binary\|modules\)-.*\)/\1/p')
	# shellcheck disable=SC2086
	(cd "$folder/packages" && apt_in "$folder/apt" apt-get download -q "$image" "$image-dbg" $parts)
	for package in "$image" $parts; do
		dpkg -x "$folder/packages/${package}_"*.deb "$folder/image"
	done
	dpkg -x "$folder/packages/${image}-dbg_"*.deb "$folder/debug"
	rm -r "$folder/packages"
	if [ ! -d "$folder/image/lib/modules" ]; then
		mkdir -p "$folder/image/lib"
		ln -s ../usr/lib/modules "$folder/image/lib/modules"
	fi
	find -L "$folder/image/lib/modules" -name '*.ko.xz' -exec xz -d {} +
	depmod -b "$folder/image" "${image#linux-image-}"
	echo "${image#linux-image-}" > "$folder/release"
}

# find_kernel FOLDER: the bootable kernel of fetch_kernel's FOLDER.
find_kernel() {
	find -L "$1/image/boot" "$1/image/lib/modules" -name 'vmlinuz*' 2> /dev/null | head -n 1
}

# later_qemu FOLDER: trixie's QEMU in FOLDER, where this machine has one before 8.0.
later_qemu() {
	local version
	version=$(qemu-system-x86_64 --version 2> /dev/null | sed -n 's/.*version \([0-9]*\).*/\1/p')
	if [ "${version:-0}" -lt 8 ] && [ ! -d "$1" ]; then
		mmdebstrap --quiet --variant=extract --include=qemu-system-x86,seabios,ipxe-qemu trixie "$1" "$(debian_mirror)"
	fi
}

# use_later_qemu FOLDER: how to run that one, by its own loader and libraries, or this machine's, in the array qemu.
use_later_qemu() {
	local root=$1 libraries=$1/usr/lib/x86_64-linux-gnu
	qemu=(qemu-system-x86_64)
	[ ! -d "$root" ] || qemu=(env "QEMU_MODULE_DIR=$libraries/qemu" "$libraries/ld-linux-x86-64.so.2"
		--library-path "$libraries" "$root/usr/bin/qemu-system-x86_64"
		-L "$root/usr/share/qemu" -L "$root/usr/share/seabios" -L "$root/usr/lib/ipxe/qemu")
}

# add_modules INITRD KERNEL OUTPUT MODULE...: the guest's initrd, the folder INITRD, with modules of fetch_kernel's
# folder KERNEL, packed.
add_modules() {
	local initrd=$1 tree module
	local -A added=()
	tree=$2/image/lib/modules/$(cat "$2/release")
	rm -rf "$3.tree"
	cp -a "$initrd" "$3.tree"
	mkdir "$3.tree/mods"
	for module in "${@:4}"; do
		add_module "$module" "$tree" "$3.tree/mods"
	done
	(cd "$3.tree" && find . | sort | cpio -o -H newc --quiet) > "$3"
	rm -rf "$3.tree"
}

# add_module NAME TREE TARGET: copy a module of TREE (lib/modules/RELEASE) and what it needs into the folder
# TARGET, numbered in load order.  The caller has: local -A added=()
add_module() {
	local name=$1 tree=$2 target=$3 line needed
	[ -z "${added[$name]:-}" ] || return 0
	added[$name]=1
	line=$(grep -E "/${name//[-_]/[-_]}\.ko:" "$tree/modules.dep") || { echo "built in: $name"; return 0; }
	for needed in $(echo "${line#*:}" | tr ' ' '\n' | tac); do
		needed=${needed##*/}
		add_module "${needed%.ko}" "$tree" "$target"
	done
	cp "$tree/${line%%:*}" "$target/$((100 + $(find "$target" -type f | wc -l)))-$name.ko"
}

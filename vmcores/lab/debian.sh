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

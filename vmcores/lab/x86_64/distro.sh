#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# distro.sh WORK [SUITE...]: crash the stock kernels of Debian's SUITEs in the project's guest, and
# leave a sample of each in WORK, as WORK/index.json describes them.  No build: two minutes for each.
#
# SUITE is bullseye (5.10), bookworm (6.1), bookworm-backports or trixie (6.12), trixie-backports or sid
# (7.x); by default those that have a kernel of their own.  FLAVOUR=generic in the environment takes the
# kernels for any machine (with CXL, virtio-pmem, ACPI HMAT) instead of those for clouds; FLAVOUR=providers
# crashes these with persistent memory of every kind that QEMU can give them before a dump: NVDIMMs, e820,
# virtio-pmem, soft-reserved memory (hmem), and 5-level page tables.  WORK/SUITE, or WORK/SUITE-generic, holds
# the packages (about 320 MB, for any machine 1.2 GB; most of it debug info); a sample that is there is left as
# it is: remove its folder to have it made anew.
#
# These kernels are as Debian ships them: pmem drivers, XFS and device mapper are modules, and nothing
# puts pmem into /proc/vmcore.  The packages are of this machine's Debian mirror, checked by its keys.
#
# Needs what make-guest.sh, run.sh and formats.sh need, and apt kmod xz-utils dpkg util-linux.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
work=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- bullseye bookworm trixie trixie-backports
export PATH=$PATH:/usr/sbin:/sbin
# shellcheck source=vmcores/lab/debian.sh
. "$here/../debian.sh"
case ${FLAVOUR:=cloud} in
cloud) image=linux-image-cloud-amd64 tail="" ;;
generic | providers) image=linux-image-amd64 tail=-generic ;;
*) echo "FLAVOUR is cloud, generic or providers, not $FLAVOUR" >&2; exit 2 ;;
esac

# what the guest loads, and what those need; a kernel has some of them built in
MODULES="virtio_pci virtio_blk crc32c-intel crc32c_generic ext4 xfs dm-mod qemu_fw_cfg
	libnvdimm nfit nd_btt nd_pmem dax_pmem device_dax kmem"
[ "$FLAVOUR" != providers ] || MODULES="$MODULES nd_e820 virtio_pmem dax_hmem"

# The kernel, the guest's initrd with the kernel's modules, and the guest's tools, for run.sh.
prepare() {
	local folder=$work/$1 release=$2
	# shellcheck disable=SC2086
	add_modules "$work/guest/initrd" "$folder" "$folder/initrd" $MODULES
	cp "$(find_kernel "$folder")" "$folder/bzImage-$release"
	ln -sf ../guest.img "$folder/tools.img"
}

# The default scenario with room for modules; the machine's own memory stays offline until the guest
# onlines it, as in the other samples, where this is the kernel's default.
describe() {
	local levels="31 23 1"
	# this makedumpfile takes slab pages of kernels newer than itself for free ones
	case $2 in
	[6-9].[1-9][0-9]* | [7-9].*) levels="23 1" ;;
	esac
	local memory="640 128" append="memhp_default_state=offline" machine="$FLAVOUR kernel of $1 as it is"
	if [ "$FLAVOUR" = providers ]; then
		# 1 GiB of RAM; what lies from 4 GiB on is persistent to the kernel (384 MiB) or soft-reserved (256 MiB),
		# by the number that the kernel has for that in its map
		memory="640 1024" append="$append memmap=384M!4G memmap=256M%0x118000000-1+0xefffffff"
		machine="kernel of $1 with NVDIMMs, e820, virtio-pmem, hmem and 5-level page tables"
	fi
	cat <<-END
		DESCRIPTION="Debian's $machine: pmem drivers are modules, no pmem in /proc/vmcore"
		KERNEL=$2 LOADER=file CRASHKERNEL=224M MEMORY="$memory" APPEND="$append"
		FORMATS="raw elf zlib qemu-elf" QEMU_DUMPS="elf" QEMU_CAPTURE=1
		VMCOREINFO_DEVICE=1 LEVELS="$levels" PROVIDERS=$([ "$FLAVOUR" = providers ] && echo 1 || echo 0)
	END
}

if [ ! -f "$work/guest.img" ]; then
	"$here/make-guest.sh" "$work"
	mv "$work/tools.img" "$work/guest.img"
fi
for suite in "$@"; do
	kernel=$suite$tail
	[ -f "$work/$kernel/release" ] || fetch_kernel "$work/$kernel" "$suite" "$image"
	release=$(cat "$work/$kernel/release")
	name=debian-$(echo "$release" | cut -d . -f 1,2)-$suite${tail:+-$FLAVOUR}
	[ ! -d "$work/$name/truth" ] || continue
	prepare "$kernel" "$release"
	describe "$suite" "$release" > "$work/$kernel/scenario"
	"$here/run.sh" "$work/$kernel/scenario" "$work/$kernel" "$work/$name.part"
	(
		# shellcheck source=/dev/null
		. "$work/$kernel/scenario"
		# QEMU's dump of the capture kernel: --crashed opens the crashed one in it
		[ ! -f "$work/$name.part/vmcore.qemu-capture" ] || FORMATS="$FORMATS qemu-capture"
		LEVELS=$LEVELS "$here/formats.sh" "$work/$name.part" elf zlib
		mv "$work/$name.part" "$work/$name"
		# shellcheck disable=SC2086
		python3 "$here/../pack.py" place "$work" "$name" x86_64 "$release" kexec_file_load "$DESCRIPTION" \
			"$kernel/debug/usr/lib/debug" $FORMATS
	)
done

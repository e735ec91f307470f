#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# more.sh WORK [PAGES]: samples that are not kept in vmcores/, in WORK/samples with an index.json:
#
#	arm64-PAGES-capture	with QEMU's dump of the capture kernel, in which --crashed opens the crashed one
#	arm64-4K-of-pmem	persistent memory of a device tree (of_pmem)
#
# The tests take them by DRGN_PMEM_SAMPLES=WORK/samples, as in
# "pytest tests/dumps/test_crashed.py -k arm64" and "pytest tests/dumps/test_list.py -k of-pmem".
# PAGES is that of build-kernel.sh; WORK is built if it has no kernel or guest.
#
# Needs what build-kernel.sh, make-guest.sh and run.sh need, and device-tree-compiler.  A minute or two each.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
work=$(cd "$1" && pwd)
pages=${2:-4K}
samples=$work/samples
[ -f "$work/vmlinux" ] || "$here/build-kernel.sh" "$work" "$pages"
[ -f "$work/initrd" ] || "$here/make-guest.sh" "$work" "$pages"

# crash NAME DESCRIPTION FORMAT...: NAME is what comes after the size of the pages
crash() {
	local name=arm64-$pages-$1 description=$2 release
	shift 2
	"$here/run.sh" "$work" "$samples/$name" "$pages"
	release=$(sed 's/^Linux [^ ]* \([^ ]*\) .*/\1/' "$samples/$name/truth/uname")
	mkdir -p "$samples/debug/lib/modules/$release"
	ln -sf "$work/vmlinux" "$samples/debug/lib/modules/$release/vmlinux"
	python3 "$here/../pack.py" place "$samples" "$name" arm64 "$release" kexec_file_load "$description" debug "$@"
}

QEMU_CAPTURE=1 crash capture "arm64, and QEMU's dump of its capture kernel" raw qemu-elf qemu-capture
# with larger pages, 512 MiB have no room for the crash kernel
[ "$pages" != 4K ] || OF_PMEM=1 crash of-pmem "arm64 with persistent memory of a device tree (of_pmem)" raw qemu-elf

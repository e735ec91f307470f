#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# make.sh WORK [SUITE]: boot a Debian guest with persistent memory of four kinds (NVDIMMs, e820, virtio-pmem,
# soft-reserved) and run this product in it, on the running kernel (-k), and from outside (--qemu).  What
# the guest's own tools said in the same minute and what the product answered is in WORK/result, for
# tests/live.  SUITE is that of the kernel: trixie (6.12, default) or trixie-backports (7.x).
#
# WORK keeps what does not change: the kernel with its debug info (1.2 GB of packages, 7 GB unpacked), the
# guest's root, and trixie's QEMU where this machine has one before 8.0, which emulates no processor that
# numpy and a 6.12 kernel both run on.  A quarter of an hour the first time, then five minutes.
#
# Needs: root, mmdebstrap, e2fsprogs, kmod, cpio, gcc, busybox-static, and the project's .venv.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../../.." && pwd)
mkdir -p "$1"
work=$(cd "$1" && pwd)
suite=${2:-trixie}
kernel=$work/kernel-$suite
export PATH=$PATH:/usr/sbin:/sbin
# shellcheck source=vmcores/lab/debian.sh
. "$here/../debian.sh"

TOOLS=ndctl,daxctl,jq,xfsprogs,e2fsprogs,kmod,procps,util-linux,python3,busybox-static
# what the guest loads, and whose debug info the product needs
MODULES="virtio_pci virtio_blk ext4 xfs qemu_fw_cfg libnvdimm nfit nd_e820 virtio_pmem nd_virtio nd_pmem nd_btt
	dax_pmem dax_hmem device_dax kmem jbd2 mbcache"

# The guest's root, with the kernel's modules and this product.
make_root() {
	local root=$work/root python
	if [ ! -d "$root" ]; then
		mmdebstrap --quiet --variant=minbase --include="$TOOLS" trixie "$root.part" "$(debian_mirror)"
		mv "$root.part" "$root"
	fi
	rm -rf "$root"/lib/modules/* "$root/opt/product" "$root/lab"
	mkdir -p "$root/lib/modules" "$root/lab" "$root/out" "$root/debug"
	cp -a "$kernel/image/lib/modules/." "$root/lib/modules/"
	gcc -O1 -static -Wall -o "$root/usr/bin/pmtruth" "$here"/../x86_64/guest/pmtruth/*.c
	cp "$here"/guest/*.sh "$here"/guest/{init,questions,ask.py} "$root/lab/"
	python=$(chroot "$root" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
	rm -rf "$work/wheel"
	"$top/.venv/bin/python" -m pip wheel --quiet --no-deps --wheel-dir "$work/wheel" "$top"
	"$top/.venv/bin/python" -m pip install --quiet --target "$root/opt/product" --only-binary=:all: \
		--python-version "$python" --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
		"$work"/wheel/*.whl
	rm -f "$work/root.img"
	mke2fs -q -t ext4 -d "$root" "$work/root.img" 2G
}

# The debug info of the kernel and of MODULES.
make_debug() {
	local release tree=$work/debug.tree name file
	release=$(cat "$kernel/release")
	[ ! -f "$work/debug-$release.img" ] || return 0
	rm -rf "$tree"
	for name in $MODULES dax fsdax; do
		find "$kernel/debug" -name "${name//[-_]/[-_]}.ko*" | while read -r file; do
			install -D -m 644 "$file" "$tree/${file#"$kernel/debug"/usr/lib/debug/}"
		done
	done
	find "$kernel/debug" -name "vmlinux-$release" -type f | while read -r file; do
		install -D -m 644 "$file" "$tree/${file#"$kernel/debug"/usr/lib/debug/}"
	done
	# files may stay where the kernel's package has them: drgn finds them below --debug-directory
	mke2fs -q -t ext4 -d "$tree" "$work/debug-$release.img" 3G
	rm -rf "$tree"
}

make_initrd() {
	local tree=$work/initrd.tree release
	local -A added=()
	release=$(cat "$kernel/release")
	rm -rf "$tree"
	mkdir -p "$tree"/{bin,dev,proc,sys,new,mods}
	cp "$work/root/bin/busybox" "$tree/bin/"
	install -m 755 "$here/guest/initrd-init" "$tree/init"
	mknod "$tree/dev/console" c 5 1
	for name in virtio_pci virtio_blk crc32c_generic ext4; do
		add_module "$name" "$kernel/image/lib/modules/$release" "$tree/mods"
	done
	(cd "$tree" && find . | sort | cpio -o -H newc --quiet) > "$work/initrd"
	rm -rf "$tree"
}

boot() {
	cd "$work"
	rm -f out.img ./*.sock serial.log
	mke2fs -q -t ext4 out.img 512M
	use_later_qemu "$work/qemu"
	("${qemu[@]}" -accel tcg,thread=multi -machine q35,nvdimm=on -cpu max -smp 2 -m 3584M,slots=8,maxmem=16G \
		-object memory-backend-ram,id=virtio0,size=256M,share=on \
		-device virtio-pmem-pci,memdev=virtio0,id=pmem0,bus=pcie.0 \
		-object memory-backend-ram,id=nvdimm0,size=386M,share=on \
		-device nvdimm,id=dimm0,memdev=nvdimm0,label-size=128K \
		-object memory-backend-ram,id=nvdimm1,size=258M,share=on \
		-device nvdimm,id=dimm1,memdev=nvdimm1,label-size=128K \
		-device vmcoreinfo \
		-drive "file=root.img,if=virtio,format=raw,snapshot=on" \
		-drive "file=out.img,if=virtio,format=raw,cache=unsafe" \
		-drive "file=debug-$(cat "$kernel/release").img,if=virtio,format=raw,readonly=on" \
		-kernel "$(find_kernel "$kernel")" -initrd initrd \
		-append "console=ttyS0 panic=10 iomem=relaxed memhp_default_state=offline memmap=384M!4G memmap=256M%0x118000000-1+0xefffffff ${APPEND:-}" \
		-qmp unix:qmp.sock,server,nowait -monitor unix:monitor.sock,server,nowait \
		-display none -serial file:serial.log -no-reboot -net none) &
	guest=$!
	# shellcheck disable=SC2064
	trap "kill $guest 2> /dev/null || true" EXIT
}

# wait_for LINE: until the guest has printed it.
wait_for() {
	local tries=0
	until grep -q "$1" "$work/serial.log" 2> /dev/null; do
		sleep 2
		tries=$((tries + 1))
		if [ $tries -gt 900 ] || ! kill -0 "$guest" 2> /dev/null; then
			echo "the guest did not come to \"$1\"; see $work/serial.log" >&2
			exit 1
		fi
	done
}

# The same questions from outside.
ask_qemu() {
	"$top/.venv/bin/python" "$here/guest/ask.py" "$here/guest/questions" "$work/result/pages" \
		"$work/result/qmp" --qemu "$work/qmp.sock" --debug-directory "$kernel/debug/usr/lib/debug"
}

if [ ! -f "$kernel/release" ]; then
	fetch_kernel "$kernel" "$suite" linux-image-amd64
fi
later_qemu "$work/qemu"
make_root
make_debug
make_initrd
boot
wait_for "LAB: READY"
rm -rf "$work/result"
mkdir -p "$work/result"
(cd "$work/result" && debugfs -R "rdump / ." ../out.img 2> /dev/null)
ask_qemu
cp "$work/serial.log" "$work/result/"
echo "results in $work/result"

# SPDX-License-Identifier: LGPL-2.1-or-later
# What the running system says of itself.
kill -USR1 $(pidof pmtruth)
sleep 1
pmtruth record "$truth"
ndctl list -BDRNX -vv > "$truth/ndctl.json"
ndctl list -BDRNXi -vv > "$truth/ndctl.all.json"
daxctl list -DRi > "$truth/daxctl.json"
cat /proc/iomem > "$truth/iomem"
cat /proc/self/mountinfo > "$truth/mountinfo"
cat /proc/cmdline > "$truth/cmdline"
uname -a > "$truth/uname"
pmtruth tree /sys/bus/nd/devices 2 > "$truth/sysfs.nd"
pmtruth tree /sys/bus/dax/devices 2 > "$truth/sysfs.dax"
dmesg > "$truth/dmesg"
# program headers: which physical memory /proc/kcore has
python3 - > "$truth/kcore" <<'END'
import struct
with open("/proc/kcore", "rb") as file:
    header = file.read(64)
    offset, count = struct.unpack_from("<Q", header, 32)[0], struct.unpack_from("<H", header, 56)[0]
    file.seek(offset)
    for _ in range(count):
        kind, _, _, virtual, physical, _, size, _ = struct.unpack("<IIQQQQQQ", file.read(56))
        if kind == 1 and physical != 2**64 - 1:
            print(f"{physical:#x} {size:#x} {virtual:#x}")
END
ls -l /proc/kcore >> "$truth/uname"

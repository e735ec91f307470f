/sys/block:
total 0
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 pmem0 -> ../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/pfn0.0/block/pmem0
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 vda -> ../devices/pci0000:00/0000:00:03.0/virtio0/block/vda
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 vdb -> ../devices/pci0000:00/0000:00:04.0/virtio1/block/vdb
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 vdc -> ../devices/pci0000:00/0000:00:05.0/virtio2/block/vdc

/sys/bus/dax/devices:
total 0
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 dax1.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1/dax1.0/dax1.0

/sys/bus/dax/drivers/device_dax:
total 0
--w-------    1 0        0             4096 Nov 25 10:00 bind
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 dax1.0 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1/dax1.0/dax1.0
--w-------    1 0        0             4096 Nov 25 10:00 new_id
--w-------    1 0        0             4096 Nov 25 10:00 remove_id
--w-------    1 0        0             4096 Nov 25 10:00 uevent
--w-------    1 0        0             4096 Nov 25 10:00 unbind

/sys/bus/dax/drivers/kmem:
total 0
--w-------    1 0        0             4096 Nov 25 10:00 bind
--w-------    1 0        0             4096 Nov 25 10:00 new_id
--w-------    1 0        0             4096 Nov 25 10:00 remove_id
--w-------    1 0        0             4096 Nov 25 10:00 uevent
--w-------    1 0        0             4096 Nov 25 10:00 unbind

/sys/bus/nd/devices:
total 0
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 btt0.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/btt0.0
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 btt1.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1/btt1.0
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 dax0.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/dax0.0
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 dax1.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1/dax1.0
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 dax1.1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1/dax1.1
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 namespace0.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/namespace0.0
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 namespace0.1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/namespace0.1
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 namespace1.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1/namespace1.0
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 namespace1.1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1/namespace1.1
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 ndbus0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 nmem0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/nmem0
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 nmem1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/nmem1
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 pfn0.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/pfn0.0
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 pfn0.1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/pfn0.1
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 pfn1.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1/pfn1.0
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 region0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 region1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1

/sys/bus/nd/drivers/dax_pmem:
total 0
--w-------    1 0        0             4096 Nov 25 10:00 bind
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 dax1.0 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1/dax1.0
--w-------    1 0        0             4096 Nov 25 10:00 uevent
--w-------    1 0        0             4096 Nov 25 10:00 unbind

/sys/bus/nd/drivers/nd_bus:
total 0
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 ndbus0 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0
--w-------    1 0        0             4096 Nov 25 10:00 uevent

/sys/bus/nd/drivers/nd_pmem:
total 0
--w-------    1 0        0             4096 Nov 25 10:00 bind
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 pfn0.0 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/pfn0.0
--w-------    1 0        0             4096 Nov 25 10:00 uevent
--w-------    1 0        0             4096 Nov 25 10:00 unbind

/sys/bus/nd/drivers/nd_region:
total 0
--w-------    1 0        0             4096 Nov 25 10:00 bind
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 region0 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 region1 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1
--w-------    1 0        0             4096 Nov 25 10:00 uevent
--w-------    1 0        0             4096 Nov 25 10:00 unbind

/sys/bus/nd/drivers/nvdimm:
total 0
--w-------    1 0        0             4096 Nov 25 10:00 bind
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 nmem0 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/nmem0
lrwxrwxrwx    1 0        0                0 Nov 25 10:00 nmem1 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/nmem1
--w-------    1 0        0             4096 Nov 25 10:00 uevent
--w-------    1 0        0             4096 Nov 25 10:00 unbind

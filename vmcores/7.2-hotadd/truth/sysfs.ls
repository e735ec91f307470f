/sys/block:
total 0
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 pmem0 -> ../devices/platform/ACPI0012:00/ndbus0/region0/pfn0.0/block/pmem0
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 vda -> ../devices/pci0000:00/0000:00:03.0/virtio0/block/vda
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 vdb -> ../devices/pci0000:00/0000:00:04.0/virtio1/block/vdb
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 vdc -> ../devices/pci0000:00/0000:00:05.0/virtio2/block/vdc

/sys/bus/dax/devices:
total 0
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 dax1.0 -> ../../../devices/platform/ACPI0012:00/ndbus0/region1/dax1.0/dax1.0

/sys/bus/dax/drivers/device_dax:
total 0
--w-------    1 0        0             4096 Nov 21 00:07 bind
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 dax1.0 -> ../../../../devices/platform/ACPI0012:00/ndbus0/region1/dax1.0/dax1.0
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 module -> ../../../../module/device_dax
--w-------    1 0        0             4096 Nov 21 00:07 new_id
--w-------    1 0        0             4096 Nov 21 00:07 remove_id
--w-------    1 0        0             4096 Nov 21 00:07 uevent
--w-------    1 0        0             4096 Nov 21 00:07 unbind

/sys/bus/dax/drivers/fsdev_dax:
total 0
--w-------    1 0        0             4096 Nov 21 00:07 bind
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 module -> ../../../../module/fsdev_dax
--w-------    1 0        0             4096 Nov 21 00:07 new_id
--w-------    1 0        0             4096 Nov 21 00:07 remove_id
--w-------    1 0        0             4096 Nov 21 00:07 uevent
--w-------    1 0        0             4096 Nov 21 00:07 unbind

/sys/bus/dax/drivers/kmem:
total 0
--w-------    1 0        0             4096 Nov 21 00:07 bind
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 module -> ../../../../module/kmem
--w-------    1 0        0             4096 Nov 21 00:07 new_id
--w-------    1 0        0             4096 Nov 21 00:07 remove_id
--w-------    1 0        0             4096 Nov 21 00:07 uevent
--w-------    1 0        0             4096 Nov 21 00:07 unbind

/sys/bus/nd/devices:
total 0
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 btt0.0 -> ../../../devices/platform/ACPI0012:00/ndbus0/region0/btt0.0
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 btt1.0 -> ../../../devices/platform/ACPI0012:00/ndbus0/region1/btt1.0
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 dax0.0 -> ../../../devices/platform/ACPI0012:00/ndbus0/region0/dax0.0
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 dax1.0 -> ../../../devices/platform/ACPI0012:00/ndbus0/region1/dax1.0
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 dax1.1 -> ../../../devices/platform/ACPI0012:00/ndbus0/region1/dax1.1
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 namespace0.0 -> ../../../devices/platform/ACPI0012:00/ndbus0/region0/namespace0.0
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 namespace0.1 -> ../../../devices/platform/ACPI0012:00/ndbus0/region0/namespace0.1
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 namespace1.0 -> ../../../devices/platform/ACPI0012:00/ndbus0/region1/namespace1.0
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 namespace1.1 -> ../../../devices/platform/ACPI0012:00/ndbus0/region1/namespace1.1
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 ndbus0 -> ../../../devices/platform/ACPI0012:00/ndbus0
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 nmem0 -> ../../../devices/platform/ACPI0012:00/ndbus0/nmem0
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 nmem1 -> ../../../devices/platform/ACPI0012:00/ndbus0/nmem1
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 pfn0.0 -> ../../../devices/platform/ACPI0012:00/ndbus0/region0/pfn0.0
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 pfn0.1 -> ../../../devices/platform/ACPI0012:00/ndbus0/region0/pfn0.1
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 pfn1.0 -> ../../../devices/platform/ACPI0012:00/ndbus0/region1/pfn1.0
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 region0 -> ../../../devices/platform/ACPI0012:00/ndbus0/region0
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 region1 -> ../../../devices/platform/ACPI0012:00/ndbus0/region1

/sys/bus/nd/drivers/dax_pmem:
total 0
--w-------    1 0        0             4096 Nov 21 00:07 bind
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 dax1.0 -> ../../../../devices/platform/ACPI0012:00/ndbus0/region1/dax1.0
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 module -> ../../../../module/dax_pmem
--w-------    1 0        0             4096 Nov 21 00:07 uevent
--w-------    1 0        0             4096 Nov 21 00:07 unbind

/sys/bus/nd/drivers/nd_bus:
total 0
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 module -> ../../../../module/libnvdimm
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 ndbus0 -> ../../../../devices/platform/ACPI0012:00/ndbus0
--w-------    1 0        0             4096 Nov 21 00:07 uevent

/sys/bus/nd/drivers/nd_pmem:
total 0
--w-------    1 0        0             4096 Nov 21 00:07 bind
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 module -> ../../../../module/nd_pmem
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 pfn0.0 -> ../../../../devices/platform/ACPI0012:00/ndbus0/region0/pfn0.0
--w-------    1 0        0             4096 Nov 21 00:07 uevent
--w-------    1 0        0             4096 Nov 21 00:07 unbind

/sys/bus/nd/drivers/nd_region:
total 0
--w-------    1 0        0             4096 Nov 21 00:07 bind
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 module -> ../../../../module/libnvdimm
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 region0 -> ../../../../devices/platform/ACPI0012:00/ndbus0/region0
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 region1 -> ../../../../devices/platform/ACPI0012:00/ndbus0/region1
--w-------    1 0        0             4096 Nov 21 00:07 uevent
--w-------    1 0        0             4096 Nov 21 00:07 unbind

/sys/bus/nd/drivers/nvdimm:
total 0
--w-------    1 0        0             4096 Nov 21 00:07 bind
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 module -> ../../../../module/libnvdimm
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 nmem0 -> ../../../../devices/platform/ACPI0012:00/ndbus0/nmem0
lrwxrwxrwx    1 0        0                0 Nov 21 00:07 nmem1 -> ../../../../devices/platform/ACPI0012:00/ndbus0/nmem1
--w-------    1 0        0             4096 Nov 21 00:07 uevent
--w-------    1 0        0             4096 Nov 21 00:07 unbind

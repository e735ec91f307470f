/sys/block:
total 0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 pmem0 -> ../devices/platform/e820_pmem/ndbus0/region0/pfn0.0/block/pmem0
lrwxrwxrwx    1 0        0                0 Nov 27 05:43 pmem2 -> ../devices/pci0000:00/0000:00:02.0/virtio0/ndbus1/region2/namespace2.0/block/pmem2
lrwxrwxrwx    1 0        0                0 Nov 27 05:43 pmem3 -> ../devices/pci0000:00/0000:00:03.0/virtio1/ndbus2/region3/namespace3.0/block/pmem3
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 pmem6 -> ../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region6/pfn6.0/block/pmem6
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 vda -> ../devices/pci0000:00/0000:00:18.0/virtio2/block/vda
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 vdb -> ../devices/pci0000:00/0000:00:19.0/virtio3/block/vdb
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 vdc -> ../devices/pci0000:00/0000:00:1a.0/virtio4/block/vdc

/sys/bus/dax/devices:
total 0
lrwxrwxrwx    1 0        0                0 Nov 27 05:43 dax1.0 -> ../../../devices/platform/e820_pmem/ndbus0/region1/dax1.0/dax1.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:43 dax4.0 -> ../../../devices/platform/hmem.4/dax4.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:43 dax5.0 -> ../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region5/dax5.0/dax5.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:43 dax6.1 -> ../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region6/dax6.0/dax6.1
lrwxrwxrwx    1 0        0                0 Nov 27 05:43 dax7.0 -> ../../../devices/platform/ACPI0017:00/root0/decoder0.0/region7/dax_region7/dax7.0

/sys/bus/dax/drivers/device_dax:
total 0
--w-------    1 0        0             4096 Nov 27 05:44 bind
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 dax1.0 -> ../../../../devices/platform/e820_pmem/ndbus0/region1/dax1.0/dax1.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 dax4.0 -> ../../../../devices/platform/hmem.4/dax4.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 dax5.0 -> ../../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region5/dax5.0/dax5.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 dax6.1 -> ../../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region6/dax6.0/dax6.1
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 dax7.0 -> ../../../../devices/platform/ACPI0017:00/root0/decoder0.0/region7/dax_region7/dax7.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 module -> ../../../../module/device_dax
--w-------    1 0        0             4096 Nov 27 05:43 new_id
--w-------    1 0        0             4096 Nov 27 05:44 remove_id
--w-------    1 0        0             4096 Nov 27 05:44 uevent
--w-------    1 0        0             4096 Nov 27 05:44 unbind

/sys/bus/dax/drivers/kmem:
total 0
--w-------    1 0        0             4096 Nov 27 05:44 bind
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 module -> ../../../../module/kmem
--w-------    1 0        0             4096 Nov 27 05:44 new_id
--w-------    1 0        0             4096 Nov 27 05:44 remove_id
--w-------    1 0        0             4096 Nov 27 05:44 uevent
--w-------    1 0        0             4096 Nov 27 05:43 unbind

/sys/bus/nd/devices:
total 0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 btt0.0 -> ../../../devices/platform/e820_pmem/ndbus0/region0/btt0.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 btt1.0 -> ../../../devices/platform/e820_pmem/ndbus0/region1/btt1.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 btt2.0 -> ../../../devices/pci0000:00/0000:00:02.0/virtio0/ndbus1/region2/btt2.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 btt3.0 -> ../../../devices/pci0000:00/0000:00:03.0/virtio1/ndbus2/region3/btt3.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 btt5.0 -> ../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region5/btt5.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 btt6.0 -> ../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region6/btt6.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 dax0.0 -> ../../../devices/platform/e820_pmem/ndbus0/region0/dax0.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 dax1.0 -> ../../../devices/platform/e820_pmem/ndbus0/region1/dax1.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 dax1.1 -> ../../../devices/platform/e820_pmem/ndbus0/region1/dax1.1
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 dax2.0 -> ../../../devices/pci0000:00/0000:00:02.0/virtio0/ndbus1/region2/dax2.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 dax3.0 -> ../../../devices/pci0000:00/0000:00:03.0/virtio1/ndbus2/region3/dax3.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 dax5.0 -> ../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region5/dax5.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 dax5.1 -> ../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region5/dax5.1
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 dax6.0 -> ../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region6/dax6.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 dax6.1 -> ../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region6/dax6.1
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 namespace0.0 -> ../../../devices/platform/e820_pmem/ndbus0/region0/namespace0.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 namespace1.0 -> ../../../devices/platform/e820_pmem/ndbus0/region1/namespace1.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 namespace2.0 -> ../../../devices/pci0000:00/0000:00:02.0/virtio0/ndbus1/region2/namespace2.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 namespace3.0 -> ../../../devices/pci0000:00/0000:00:03.0/virtio1/ndbus2/region3/namespace3.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 namespace5.0 -> ../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region5/namespace5.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 namespace5.1 -> ../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region5/namespace5.1
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 namespace6.0 -> ../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region6/namespace6.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 namespace6.1 -> ../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region6/namespace6.1
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 namespace6.2 -> ../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region6/namespace6.2
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 ndbus0 -> ../../../devices/platform/e820_pmem/ndbus0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 ndbus1 -> ../../../devices/pci0000:00/0000:00:02.0/virtio0/ndbus1
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 ndbus2 -> ../../../devices/pci0000:00/0000:00:03.0/virtio1/ndbus2
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 ndbus3 -> ../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 nmem0 -> ../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/nmem0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 nmem1 -> ../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/nmem1
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 nmem2 -> ../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/nmem2
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 pfn0.0 -> ../../../devices/platform/e820_pmem/ndbus0/region0/pfn0.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 pfn0.1 -> ../../../devices/platform/e820_pmem/ndbus0/region0/pfn0.1
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 pfn1.0 -> ../../../devices/platform/e820_pmem/ndbus0/region1/pfn1.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 pfn2.0 -> ../../../devices/pci0000:00/0000:00:02.0/virtio0/ndbus1/region2/pfn2.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 pfn3.0 -> ../../../devices/pci0000:00/0000:00:03.0/virtio1/ndbus2/region3/pfn3.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 pfn5.0 -> ../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region5/pfn5.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 pfn6.0 -> ../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region6/pfn6.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 pfn6.1 -> ../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region6/pfn6.1
lrwxrwxrwx    1 0        0                0 Nov 27 05:43 region0 -> ../../../devices/platform/e820_pmem/ndbus0/region0
lrwxrwxrwx    1 0        0                0 Nov 27 05:43 region1 -> ../../../devices/platform/e820_pmem/ndbus0/region1
lrwxrwxrwx    1 0        0                0 Nov 27 05:43 region2 -> ../../../devices/pci0000:00/0000:00:02.0/virtio0/ndbus1/region2
lrwxrwxrwx    1 0        0                0 Nov 27 05:43 region3 -> ../../../devices/pci0000:00/0000:00:03.0/virtio1/ndbus2/region3
lrwxrwxrwx    1 0        0                0 Nov 27 05:43 region5 -> ../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region5
lrwxrwxrwx    1 0        0                0 Nov 27 05:43 region6 -> ../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region6

/sys/bus/nd/drivers/dax_pmem:
total 0
--w-------    1 0        0             4096 Nov 27 05:43 bind
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 dax1.0 -> ../../../../devices/platform/e820_pmem/ndbus0/region1/dax1.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 dax5.0 -> ../../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region5/dax5.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 dax6.0 -> ../../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region6/dax6.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 module -> ../../../../module/dax_pmem
--w-------    1 0        0             4096 Nov 27 05:44 uevent
--w-------    1 0        0             4096 Nov 27 05:44 unbind

/sys/bus/nd/drivers/nd_bus:
total 0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 module -> ../../../../module/libnvdimm
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 ndbus0 -> ../../../../devices/platform/e820_pmem/ndbus0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 ndbus1 -> ../../../../devices/pci0000:00/0000:00:02.0/virtio0/ndbus1
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 ndbus2 -> ../../../../devices/pci0000:00/0000:00:03.0/virtio1/ndbus2
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 ndbus3 -> ../../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3
--w-------    1 0        0             4096 Nov 27 05:44 uevent

/sys/bus/nd/drivers/nd_pmem:
total 0
--w-------    1 0        0             4096 Nov 27 05:43 bind
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 module -> ../../../../module/nd_pmem
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 namespace2.0 -> ../../../../devices/pci0000:00/0000:00:02.0/virtio0/ndbus1/region2/namespace2.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 namespace3.0 -> ../../../../devices/pci0000:00/0000:00:03.0/virtio1/ndbus2/region3/namespace3.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 pfn0.0 -> ../../../../devices/platform/e820_pmem/ndbus0/region0/pfn0.0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 pfn6.0 -> ../../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region6/pfn6.0
--w-------    1 0        0             4096 Nov 27 05:44 uevent
--w-------    1 0        0             4096 Nov 27 05:43 unbind

/sys/bus/nd/drivers/nd_region:
total 0
--w-------    1 0        0             4096 Nov 27 05:43 bind
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 module -> ../../../../module/libnvdimm
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 region0 -> ../../../../devices/platform/e820_pmem/ndbus0/region0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 region1 -> ../../../../devices/platform/e820_pmem/ndbus0/region1
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 region2 -> ../../../../devices/pci0000:00/0000:00:02.0/virtio0/ndbus1/region2
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 region3 -> ../../../../devices/pci0000:00/0000:00:03.0/virtio1/ndbus2/region3
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 region5 -> ../../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region5
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 region6 -> ../../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/region6
--w-------    1 0        0             4096 Nov 27 05:44 uevent
--w-------    1 0        0             4096 Nov 27 05:43 unbind

/sys/bus/nd/drivers/nvdimm:
total 0
--w-------    1 0        0             4096 Nov 27 05:43 bind
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 module -> ../../../../module/libnvdimm
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 nmem0 -> ../../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/nmem0
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 nmem1 -> ../../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/nmem1
lrwxrwxrwx    1 0        0                0 Nov 27 05:44 nmem2 -> ../../../../devices/platform/ACPI0017:00/root0/nvdimm-bridge0/ndbus3/nmem2
--w-------    1 0        0             4096 Nov 27 05:44 uevent
--w-------    1 0        0             4096 Nov 27 05:43 unbind

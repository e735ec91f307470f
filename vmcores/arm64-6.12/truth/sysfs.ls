/sys/block:
total 0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 pmem0.1 -> ../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/namespace0.1/block/pmem0.1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 pmem0s -> ../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/btt0.0/block/pmem0s
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 pmem1 -> ../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1/pfn1.0/block/pmem1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 pmem2 -> ../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region2/pfn2.0/block/pmem2
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 pmem5 -> ../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region5/pfn5.0/block/pmem5
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 pmem6 -> ../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region6/pfn6.0/block/pmem6
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 vda -> ../devices/pci0000:00/0000:00:03.0/virtio1/block/vda
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 vdb -> ../devices/pci0000:00/0000:00:04.0/virtio2/block/vdb
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 vdc -> ../devices/pci0000:00/0000:00:05.0/virtio3/block/vdc

/sys/bus/dax/devices:
total 0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 dax1.1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1/dax1.0/dax1.1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 dax3.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region3/dax3.0/dax3.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 dax4.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region4/dax4.0/dax4.0

/sys/bus/dax/drivers/device_dax:
total 0
--w-------    1 0        0             4096 Jan  1 00:00 bind
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 dax1.1 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1/dax1.0/dax1.1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 dax3.0 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region3/dax3.0/dax3.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 module -> ../../../../module/device_dax
--w-------    1 0        0             4096 Jan  1 00:00 new_id
--w-------    1 0        0             4096 Jan  1 00:00 remove_id
--w-------    1 0        0             4096 Jan  1 00:00 uevent
--w-------    1 0        0             4096 Jan  1 00:00 unbind

/sys/bus/dax/drivers/kmem:
total 0
--w-------    1 0        0             4096 Jan  1 00:00 bind
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 dax4.0 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region4/dax4.0/dax4.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 module -> ../../../../module/kmem
--w-------    1 0        0             4096 Jan  1 00:00 new_id
--w-------    1 0        0             4096 Jan  1 00:00 remove_id
--w-------    1 0        0             4096 Jan  1 00:00 uevent
--w-------    1 0        0             4096 Jan  1 00:00 unbind

/sys/bus/nd/devices:
total 0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 btt0.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/btt0.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 btt0.1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/btt0.1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 btt1.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1/btt1.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 btt2.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region2/btt2.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 btt3.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region3/btt3.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 btt4.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region4/btt4.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 btt5.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region5/btt5.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 btt6.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region6/btt6.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 dax0.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/dax0.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 dax1.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1/dax1.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 dax1.1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1/dax1.1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 dax2.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region2/dax2.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 dax3.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region3/dax3.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 dax3.1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region3/dax3.1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 dax4.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region4/dax4.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 dax4.1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region4/dax4.1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 dax5.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region5/dax5.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 dax6.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region6/dax6.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 namespace0.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/namespace0.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 namespace0.1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/namespace0.1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 namespace0.2 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/namespace0.2
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 namespace0.3 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/namespace0.3
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 namespace1.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1/namespace1.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 namespace1.1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1/namespace1.1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 namespace1.2 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1/namespace1.2
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 namespace2.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region2/namespace2.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 namespace2.1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region2/namespace2.1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 namespace3.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region3/namespace3.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 namespace3.1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region3/namespace3.1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 namespace4.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region4/namespace4.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 namespace4.1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region4/namespace4.1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 namespace5.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region5/namespace5.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 namespace5.1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region5/namespace5.1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 namespace6.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region6/namespace6.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 namespace6.1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region6/namespace6.1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 ndbus0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 nmem0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/nmem0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 nmem1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/nmem1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 nmem2 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/nmem2
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 nmem3 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/nmem3
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 nmem4 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/nmem4
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 nmem5 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/nmem5
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 nmem6 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/nmem6
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 pfn0.1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/pfn0.1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 pfn1.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1/pfn1.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 pfn1.1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1/pfn1.1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 pfn2.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region2/pfn2.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 pfn2.1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region2/pfn2.1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 pfn3.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region3/pfn3.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 pfn4.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region4/pfn4.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 pfn5.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region5/pfn5.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 pfn5.1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region5/pfn5.1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 pfn6.0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region6/pfn6.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 pfn6.1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region6/pfn6.1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 region0 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 region1 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 region2 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region2
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 region3 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region3
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 region4 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region4
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 region5 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region5
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 region6 -> ../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region6

/sys/bus/nd/drivers/dax_pmem:
total 0
--w-------    1 0        0             4096 Jan  1 00:00 bind
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 dax1.0 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1/dax1.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 dax3.0 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region3/dax3.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 dax4.0 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region4/dax4.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 module -> ../../../../module/dax_pmem
--w-------    1 0        0             4096 Jan  1 00:00 uevent
--w-------    1 0        0             4096 Jan  1 00:00 unbind

/sys/bus/nd/drivers/nd_bus:
total 0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 module -> ../../../../module/libnvdimm
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 ndbus0 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0
--w-------    1 0        0             4096 Jan  1 00:00 uevent

/sys/bus/nd/drivers/nd_pmem:
total 0
--w-------    1 0        0             4096 Jan  1 00:00 bind
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 btt0.0 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/btt0.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 module -> ../../../../module/nd_pmem
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 namespace0.1 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/namespace0.1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 pfn1.0 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1/pfn1.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 pfn2.0 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region2/pfn2.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 pfn5.0 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region5/pfn5.0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 pfn6.0 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region6/pfn6.0
--w-------    1 0        0             4096 Jan  1 00:00 uevent
--w-------    1 0        0             4096 Jan  1 00:00 unbind

/sys/bus/nd/drivers/nd_region:
total 0
--w-------    1 0        0             4096 Jan  1 00:00 bind
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 module -> ../../../../module/libnvdimm
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 region0 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 region1 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 region2 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region2
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 region3 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region3
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 region4 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region4
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 region5 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region5
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 region6 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region6
--w-------    1 0        0             4096 Jan  1 00:00 uevent
--w-------    1 0        0             4096 Jan  1 00:00 unbind

/sys/bus/nd/drivers/nvdimm:
total 0
--w-------    1 0        0             4096 Jan  1 00:00 bind
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 module -> ../../../../module/libnvdimm
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 nmem0 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/nmem0
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 nmem1 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/nmem1
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 nmem2 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/nmem2
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 nmem3 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/nmem3
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 nmem4 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/nmem4
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 nmem5 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/nmem5
lrwxrwxrwx    1 0        0                0 Jan  1 00:00 nmem6 -> ../../../../devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/nmem6
--w-------    1 0        0             4096 Jan  1 00:00 uevent
--w-------    1 0        0             4096 Jan  1 00:00 unbind

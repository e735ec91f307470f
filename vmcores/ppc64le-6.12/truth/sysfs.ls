/sys/block:
total 0
lrwxrwxrwx    1 0        0                0 Nov 27 03:34 pmem0 -> ../devices/ndbus0/region0/pfn0.0/block/pmem0
lrwxrwxrwx    1 0        0                0 Nov 27 03:34 pmem1 -> ../devices/ndbus1/region1/pfn1.0/block/pmem1
lrwxrwxrwx    1 0        0                0 Nov 27 03:34 pmem4 -> ../devices/ndbus4/region4/pfn4.0/block/pmem4
lrwxrwxrwx    1 0        0                0 Nov 27 03:34 pmem5 -> ../devices/ndbus5/region5/pfn5.0/block/pmem5
lrwxrwxrwx    1 0        0                0 Nov 27 03:34 pmem6.1 -> ../devices/ndbus6/region6/namespace6.1/block/pmem6.1
lrwxrwxrwx    1 0        0                0 Nov 27 03:34 pmem6s -> ../devices/ndbus6/region6/btt6.0/block/pmem6s
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 vda -> ../devices/pci0000:00/0000:00:00.0/virtio0/block/vda
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 vdb -> ../devices/pci0000:00/0000:00:01.0/virtio1/block/vdb
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 vdc -> ../devices/pci0000:00/0000:00:02.0/virtio2/block/vdc

/sys/bus/dax/devices:
total 0
lrwxrwxrwx    1 0        0                0 Nov 27 03:34 dax3.0 -> ../../../devices/ndbus3/region3/dax3.0/dax3.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:34 dax5.1 -> ../../../devices/ndbus5/region5/dax5.0/dax5.1

/sys/bus/dax/drivers/device_dax:
total 0
--w-------    1 0        0            65536 Nov 27 03:35 bind
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 dax3.0 -> ../../../../devices/ndbus3/region3/dax3.0/dax3.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 dax5.1 -> ../../../../devices/ndbus5/region5/dax5.0/dax5.1
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 module -> ../../../../module/device_dax
--w-------    1 0        0            65536 Nov 27 03:35 new_id
--w-------    1 0        0            65536 Nov 27 03:35 remove_id
--w-------    1 0        0            65536 Nov 27 03:35 uevent
--w-------    1 0        0            65536 Nov 27 03:35 unbind

/sys/bus/dax/drivers/kmem:
total 0
--w-------    1 0        0            65536 Nov 27 03:35 bind
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 module -> ../../../../module/kmem
--w-------    1 0        0            65536 Nov 27 03:35 new_id
--w-------    1 0        0            65536 Nov 27 03:35 remove_id
--w-------    1 0        0            65536 Nov 27 03:35 uevent
--w-------    1 0        0            65536 Nov 27 03:35 unbind

/sys/bus/nd/devices:
total 0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 btt0.0 -> ../../../devices/ndbus0/region0/btt0.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 btt1.0 -> ../../../devices/ndbus1/region1/btt1.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 btt2.0 -> ../../../devices/ndbus2/region2/btt2.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 btt3.0 -> ../../../devices/ndbus3/region3/btt3.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 btt4.0 -> ../../../devices/ndbus4/region4/btt4.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 btt5.0 -> ../../../devices/ndbus5/region5/btt5.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 btt6.0 -> ../../../devices/ndbus6/region6/btt6.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 btt6.1 -> ../../../devices/ndbus6/region6/btt6.1
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 dax0.0 -> ../../../devices/ndbus0/region0/dax0.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 dax1.0 -> ../../../devices/ndbus1/region1/dax1.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 dax2.0 -> ../../../devices/ndbus2/region2/dax2.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 dax3.0 -> ../../../devices/ndbus3/region3/dax3.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 dax3.1 -> ../../../devices/ndbus3/region3/dax3.1
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 dax4.0 -> ../../../devices/ndbus4/region4/dax4.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 dax5.0 -> ../../../devices/ndbus5/region5/dax5.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 dax5.1 -> ../../../devices/ndbus5/region5/dax5.1
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 dax6.0 -> ../../../devices/ndbus6/region6/dax6.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 namespace0.0 -> ../../../devices/ndbus0/region0/namespace0.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 namespace0.1 -> ../../../devices/ndbus0/region0/namespace0.1
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 namespace1.0 -> ../../../devices/ndbus1/region1/namespace1.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 namespace1.1 -> ../../../devices/ndbus1/region1/namespace1.1
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 namespace2.0 -> ../../../devices/ndbus2/region2/namespace2.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 namespace3.0 -> ../../../devices/ndbus3/region3/namespace3.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 namespace3.1 -> ../../../devices/ndbus3/region3/namespace3.1
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 namespace4.0 -> ../../../devices/ndbus4/region4/namespace4.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 namespace4.1 -> ../../../devices/ndbus4/region4/namespace4.1
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 namespace5.0 -> ../../../devices/ndbus5/region5/namespace5.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 namespace5.1 -> ../../../devices/ndbus5/region5/namespace5.1
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 namespace5.2 -> ../../../devices/ndbus5/region5/namespace5.2
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 namespace6.0 -> ../../../devices/ndbus6/region6/namespace6.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 namespace6.1 -> ../../../devices/ndbus6/region6/namespace6.1
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 namespace6.2 -> ../../../devices/ndbus6/region6/namespace6.2
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 namespace6.3 -> ../../../devices/ndbus6/region6/namespace6.3
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 ndbus0 -> ../../../devices/ndbus0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 ndbus1 -> ../../../devices/ndbus1
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 ndbus2 -> ../../../devices/ndbus2
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 ndbus3 -> ../../../devices/ndbus3
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 ndbus4 -> ../../../devices/ndbus4
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 ndbus5 -> ../../../devices/ndbus5
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 ndbus6 -> ../../../devices/ndbus6
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 nmem0 -> ../../../devices/ndbus0/nmem0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 nmem1 -> ../../../devices/ndbus1/nmem1
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 nmem2 -> ../../../devices/ndbus2/nmem2
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 nmem3 -> ../../../devices/ndbus3/nmem3
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 nmem4 -> ../../../devices/ndbus4/nmem4
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 nmem5 -> ../../../devices/ndbus5/nmem5
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 nmem6 -> ../../../devices/ndbus6/nmem6
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 pfn0.0 -> ../../../devices/ndbus0/region0/pfn0.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 pfn0.1 -> ../../../devices/ndbus0/region0/pfn0.1
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 pfn1.0 -> ../../../devices/ndbus1/region1/pfn1.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 pfn1.1 -> ../../../devices/ndbus1/region1/pfn1.1
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 pfn2.0 -> ../../../devices/ndbus2/region2/pfn2.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 pfn3.0 -> ../../../devices/ndbus3/region3/pfn3.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 pfn4.0 -> ../../../devices/ndbus4/region4/pfn4.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 pfn4.1 -> ../../../devices/ndbus4/region4/pfn4.1
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 pfn5.0 -> ../../../devices/ndbus5/region5/pfn5.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 pfn5.1 -> ../../../devices/ndbus5/region5/pfn5.1
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 pfn6.1 -> ../../../devices/ndbus6/region6/pfn6.1
lrwxrwxrwx    1 0        0                0 Nov 27 03:34 region0 -> ../../../devices/ndbus0/region0
lrwxrwxrwx    1 0        0                0 Nov 27 03:34 region1 -> ../../../devices/ndbus1/region1
lrwxrwxrwx    1 0        0                0 Nov 27 03:34 region2 -> ../../../devices/ndbus2/region2
lrwxrwxrwx    1 0        0                0 Nov 27 03:34 region3 -> ../../../devices/ndbus3/region3
lrwxrwxrwx    1 0        0                0 Nov 27 03:34 region4 -> ../../../devices/ndbus4/region4
lrwxrwxrwx    1 0        0                0 Nov 27 03:34 region5 -> ../../../devices/ndbus5/region5
lrwxrwxrwx    1 0        0                0 Nov 27 03:34 region6 -> ../../../devices/ndbus6/region6

/sys/bus/nd/drivers/dax_pmem:
total 0
--w-------    1 0        0            65536 Nov 27 03:34 bind
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 dax3.0 -> ../../../../devices/ndbus3/region3/dax3.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 dax5.0 -> ../../../../devices/ndbus5/region5/dax5.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 module -> ../../../../module/dax_pmem
--w-------    1 0        0            65536 Nov 27 03:35 uevent
--w-------    1 0        0            65536 Nov 27 03:35 unbind

/sys/bus/nd/drivers/nd_bus:
total 0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 module -> ../../../../module/libnvdimm
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 ndbus0 -> ../../../../devices/ndbus0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 ndbus1 -> ../../../../devices/ndbus1
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 ndbus2 -> ../../../../devices/ndbus2
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 ndbus3 -> ../../../../devices/ndbus3
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 ndbus4 -> ../../../../devices/ndbus4
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 ndbus5 -> ../../../../devices/ndbus5
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 ndbus6 -> ../../../../devices/ndbus6
--w-------    1 0        0            65536 Nov 27 03:35 uevent

/sys/bus/nd/drivers/nd_pmem:
total 0
--w-------    1 0        0            65536 Nov 27 03:34 bind
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 btt6.0 -> ../../../../devices/ndbus6/region6/btt6.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 module -> ../../../../module/nd_pmem
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 namespace6.1 -> ../../../../devices/ndbus6/region6/namespace6.1
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 pfn0.0 -> ../../../../devices/ndbus0/region0/pfn0.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 pfn1.0 -> ../../../../devices/ndbus1/region1/pfn1.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 pfn4.0 -> ../../../../devices/ndbus4/region4/pfn4.0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 pfn5.0 -> ../../../../devices/ndbus5/region5/pfn5.0
--w-------    1 0        0            65536 Nov 27 03:35 uevent
--w-------    1 0        0            65536 Nov 27 03:34 unbind

/sys/bus/nd/drivers/nd_region:
total 0
--w-------    1 0        0            65536 Nov 27 03:34 bind
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 module -> ../../../../module/libnvdimm
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 region0 -> ../../../../devices/ndbus0/region0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 region1 -> ../../../../devices/ndbus1/region1
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 region2 -> ../../../../devices/ndbus2/region2
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 region3 -> ../../../../devices/ndbus3/region3
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 region4 -> ../../../../devices/ndbus4/region4
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 region5 -> ../../../../devices/ndbus5/region5
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 region6 -> ../../../../devices/ndbus6/region6
--w-------    1 0        0            65536 Nov 27 03:35 uevent
--w-------    1 0        0            65536 Nov 27 03:34 unbind

/sys/bus/nd/drivers/nvdimm:
total 0
--w-------    1 0        0            65536 Nov 27 03:34 bind
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 module -> ../../../../module/libnvdimm
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 nmem0 -> ../../../../devices/ndbus0/nmem0
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 nmem1 -> ../../../../devices/ndbus1/nmem1
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 nmem2 -> ../../../../devices/ndbus2/nmem2
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 nmem3 -> ../../../../devices/ndbus3/nmem3
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 nmem4 -> ../../../../devices/ndbus4/nmem4
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 nmem5 -> ../../../../devices/ndbus5/nmem5
lrwxrwxrwx    1 0        0                0 Nov 27 03:35 nmem6 -> ../../../../devices/ndbus6/nmem6
--w-------    1 0        0            65536 Nov 27 03:35 uevent
--w-------    1 0        0            65536 Nov 27 03:34 unbind

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Devices
-------

What the driver core knows of a device in addition to :mod:`drgn.helpers.linux.device`: its driver,
its parent, the devices of a bus with every walk bounded. Source: include/linux/device.h,
drivers/base/base.h.
"""

from collections.abc import Iterator

from drgn import FaultError, Object, Program, Type, offsetof

from drgn_pmem.kernel.debuginfo import find_type, find_variable
from drgn_pmem.kernel.memory import list_nodes, memory_of
from drgn_pmem.kernel.strings import kernel_string
from drgn_pmem.partial import NotSaved, Partial, Problems, WalkError

__all__ = (
    "attribute_names",
    "device_name",
    "device_path",
    "devices_of_bus",
    "devices_of_class",
    "driver_name",
    "for_each_device",
    "for_each_nd_device",
    "uuid_text",
)

_MAX_ATTRIBUTES = 256
_MAX_DEPTH = 256
"""Folders of sysfs within one another."""


def for_each_device(prog: Program, bus: str, module: str) -> Partial[list[Object]]:
    """
    Devices of a bus, as ``/sys/bus/NAME/devices`` lists them.

    :param bus: Variable: ``"nvdimm_bus_type"``, ``"dax_bus_type"``.
    :param module: Kernel module that defines it.
    :return: ``struct device *`` objects; a problem names a module without debug info
    """
    problems = Problems()
    return problems.partial(problems.collect(_devices(prog, bus, module)))


def _devices(prog: Program, bus: str, module: str) -> Iterator[Object]:
    yield from devices_of_bus(find_variable(prog, bus, module).address_of_(), bus)


def devices_of_bus(bus: Object, name: str) -> Iterator[Object]:
    """
    The same, of the bus itself.

    :param bus: ``struct bus_type *``
    :param name: Its name, for messages.
    :return: ``struct device *`` objects
    :raises WalkError: after those that could be read
    """
    members = _subsystem(bus, name, "bus").klist_devices.k_list.address_of_()
    private = find_type(bus.prog_, "struct device_private", "vmlinux")
    yield from _from_both_ends(members, private, "knode_bus.n_node", f"devices of {name}")


def devices_of_class(class_: Object, name: str) -> Iterator[Object]:
    """
    Devices of a class, as ``/sys/class/NAME`` lists them; otherwise as :func:`devices_of_bus`.

    :param class_: ``struct class *``
    """
    members = _subsystem(class_, name, "class").klist_devices.k_list.address_of_()
    # In device_private since Linux kernel commit 570d0200123f ("driver core: move
    # device->knode_class to device_private") (in v5.1).
    private = find_type(class_.prog_, "struct device_private", "vmlinux")
    holder = private
    if not private.has_member("knode_class"):
        holder = find_type(class_.prog_, "struct device", "vmlinux")
    yield from _from_both_ends(members, holder, "knode_class.n_node", f"devices of {name}")


def _from_both_ends(members: Object, holder: Type, link: str, what: str) -> Iterator[Object]:
    """Devices of a klist; those after one that the dump lacks, from the end of the list on.

    :param holder: What is in the list: devices, or the private part of each.
    """
    prog = members.prog_
    lost: FaultError | None = None
    for node in list_nodes(memory_of(prog), members.value_(), what):
        entry = Object(prog, prog.pointer_type(holder), node - offsetof(holder, link))
        try:
            yield entry.device.read_() if holder.tag == "device_private" else entry
        except FaultError as error:
            lost = error
    if lost is not None:
        raise NotSaved(f"{what}: {lost}", address=lost.address)


def _subsystem(owner: Object, name: str, member: str) -> Object:
    """``struct subsys_private *`` of a bus or class. drgn's bus_to_subsys() walks the same list
    without a bound."""
    what = f"{member}_kset"
    lost: FaultError | None = None
    try:
        head = owner.prog_[what].list.address_of_().value_()
    except FaultError as error:
        raise NotSaved(f"{name}: {error}", address=error.address) from None
    type_ = find_type(owner.prog_, "struct subsys_private", "vmlinux")
    link = offsetof(type_, "subsys.kobj.entry")
    for node in list_nodes(memory_of(owner.prog_), head, what):
        private = Object(owner.prog_, owner.prog_.pointer_type(type_), node - link)
        try:
            if private.member_(member) == owner:
                return private
        except FaultError as error:
            lost = error
    if lost is not None:
        raise NotSaved(f"{name}: {what}: {lost}", address=lost.address)
    raise WalkError(f"{name}: not in {what}, the list of all")


def for_each_nd_device(prog: Program, prefix: str) -> Partial[list[Object]]:
    """
    Devices of the NVDIMM bus of one kind.

    :param prefix: What their names begin with, before the number: ``"nmem"``, ``"namespace"``.
    :return: ``struct device *`` objects; a problem says that there is no debug info of libnvdimm
    """
    problems = Problems()
    found = []
    for device in problems.take(for_each_device(prog, "nvdimm_bus_type", "libnvdimm")):
        with problems.trying(f"name of the device at {device.value_():#x}"):
            name = device_name(device)
            if name.startswith(prefix) and name[len(prefix) : len(prefix) + 1].isdigit():
                found.append(device)
    return problems.partial(found)


def device_name(device: Object) -> str:
    """
    Name of a device: ``"namespace0.0"``.

    :param device: ``struct device *``
    """
    first = device.init_name.read_()  # until it is registered
    return kernel_string(first or device.kobj.name)


def device_path(device: Object) -> str:
    """
    Path of a device below ``/sys/devices``: ``"/platform/hmem.0/dax0.0"``, as
    ``kobject_get_path()`` has it.

    :param device: ``struct device *``
    :raises WalkError: if its chain of parents does not end
    """
    names: list[str] = []
    kobject = device.kobj.address_of_()
    while kobject:
        if len(names) >= _MAX_DEPTH:
            raise WalkError(f"device {device.value_():#x}: its chain of parents does not end")
        names.append(kernel_string(kobject.name))
        kobject = kobject.parent.read_()
    return "/".join(names[::-1]).removeprefix("devices")


def driver_name(device: Object) -> str | None:
    """
    Name of the driver that is bound to a device; None if none is.

    :param device: ``struct device *``
    """
    driver = device.driver.read_()
    return kernel_string(driver.name) if driver else None


def attribute_names(device: Object) -> set[str]:
    """
    Names of the attributes that sysfs may have for a device, by its own groups and those of its
    type; each may hide some of them.

    :param device: ``struct device *``
    :raises WalkError: if one of the lists does not end
    """
    names: set[str] = set()
    type_ = device.type.read_()
    for groups in (device.groups, *([type_.groups] if type_ else [])):
        for group in _until_null(groups, "groups of attributes"):
            for attribute in _until_null(group.attrs, "attributes of a group"):
                names.add(kernel_string(attribute.name))
    return names


def _until_null(pointers: Object, what: str) -> Iterator[Object]:
    """Pointers of an array that ends with NULL; NULL is an empty one."""
    for number in range(_MAX_ATTRIBUTES if pointers else 0):
        pointer = pointers[number].read_()
        if not pointer:
            return
        yield pointer
    if pointers:
        raise WalkError(f"{what}: more than {_MAX_ATTRIBUTES}")


def uuid_text(pointer: Object) -> str | None:
    """
    UUID as ndctl prints it; None for a NULL pointer.

    :param pointer: ``uuid_t *`` (``u8 *`` before v5.16)
    """
    if not pointer:
        return None
    text = pointer.prog_.read(pointer.value_(), 16).hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))

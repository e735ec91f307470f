# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Debug info
----------

libnvdimm, nd_pmem, dax and the file systems are modules on most distributions. What a walker needs
of them it asks for here, so that a missing piece is named together with the module that has it.
"""

from drgn import Object, ObjectNotFoundError, Program, Type

from drgn_pmem.errors import MissingDebugInfo, NotInKernel
from drgn_pmem.kernel.kmod import (
    has_kernel_debug_info,
    has_no_module,
    how_to_get_kernel,
    lacking_modules,
)

__all__ = (
    "find_type",
    "find_variable",
    "has_member",
    "has_type",
    "need_kernel_debug_info",
    "no_debug_info",
)


_EXPORTED = {
    "libnvdimm": ("libnvdimm", "nvdimm_bus_register"),
    "dax": ("dax", "alloc_dax"),
    "device_dax": ("dax", "alloc_dax"),
    "dm_mod": ("dm_mod", "dm_get_device"),
    "pgmap_array": ("vmlinux", "memremap_pages"),
}
"""Module, or variable of vmlinux that is there only with CONFIG_ZONE_DEVICE -> the module without
which it has nothing to manage, and a function that this one exports in every version."""


def no_debug_info(module: str) -> str:
    """What is said of a module that was loaded and whose debug info is not: always the same, so
    that it is said once."""
    return f"no debug info of the kernel module {module}"


def _missing(prog: Program, what: str, module: str) -> MissingDebugInfo:
    if not has_kernel_debug_info(prog):
        return MissingDebugInfo(
            f"{what} is not known: no debug info of the kernel: {how_to_get_kernel(prog)}",
            "vmlinux",
        )
    if lacking_modules(prog, (module,)):
        return MissingDebugInfo(no_debug_info(module), module)
    exported = _EXPORTED.get(what if module == "vmlinux" else module)
    if exported is not None and has_no_module(prog, *exported):
        missing = what if module == "vmlinux" else module
        return NotInKernel(f"{what} is not known: the crashed kernel had no {missing}", module)
    if module == "vmlinux":
        return MissingDebugInfo(f"{what} is not known: this kernel does not have it")
    return MissingDebugInfo(
        f"{what} is not known: the kernel module {module} was not loaded, or this kernel does not "
        "have it"
    )


def need_kernel_debug_info(prog: Program, what: str) -> None:
    """
    For what would be empty without debug info of the kernel, and must not be taken for nothing.

    :param what: What cannot be known without.
    :raises MissingDebugInfo: without it
    """
    if not has_kernel_debug_info(prog):
        raise _missing(prog, what, "vmlinux")


def find_type(prog: Program, name: str, module: str) -> Type:
    """
    Type by name.

    :param name: ``"struct nd_region"``
    :param module: Kernel module that defines it, ``"vmlinux"`` for the kernel itself.
    :raises MissingDebugInfo: naming the module
    """
    try:
        return prog.type(name)
    except LookupError:
        raise _missing(prog, name, module) from None


def has_type(prog: Program, name: str) -> bool:
    """Whether the loaded debug info knows a type."""
    try:
        prog.type(name)
    except LookupError:
        return False
    return True


def find_variable(prog: Program, name: str, module: str) -> Object:
    """
    Global or static variable by name.

    :raises MissingDebugInfo: naming the module
    """
    try:
        return prog[name]
    except (KeyError, ObjectNotFoundError):
        raise _missing(prog, name, module) from None


def has_member(value: "Object | Type", member: str) -> bool:
    """Whether a structure (or what a pointer points to) has a member: how kernels are told
    apart."""
    type_ = value if isinstance(value, Type) else value.type_
    while hasattr(type_, "type") and not hasattr(type_, "members"):
        type_ = type_.type
    return type_.has_member(member)

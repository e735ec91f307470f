# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Debug info
----------

libnvdimm, nd_pmem, dax and the file systems are modules on most distributions. Walkers get their
types, variables and members here, so that the message names the missing one and the module that
defines it. A member that this kernel lacks is a :class:`~drgn_pmem.errors.MissingDebugInfo`, never
an AttributeError.
"""

from drgn import Object, ObjectNotFoundError, Program, Type, TypeKind

from drgn_pmem.errors import MissingDebugInfo, NotInKernel
from drgn_pmem.kernel.kmod import (
    has_kernel_debug_info,
    has_no_module,
    how_to_get_kernel,
    lacking_modules,
    modules_known,
)

__all__ = (
    "find_type",
    "find_variable",
    "has_member",
    "has_type",
    "has_variable",
    "member",
    "need_kernel_debug_info",
    "no_debug_info",
    "optional_member",
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
    """Message for a loaded module without debug info. Constant, so that duplicates collapse."""
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
    if not modules_known(prog):
        return MissingDebugInfo(
            f"{what} is not known: the list of modules could not be read to its end, so the "
            f"kernel module {module} may have been loaded",
            module,
        )
    return MissingDebugInfo(
        f"{what} is not known: the kernel module {module} was not loaded, or this kernel does not "
        "have it"
    )


def need_kernel_debug_info(prog: Program, what: str) -> None:
    """
    Require debug info of the kernel for an answer that would be empty without it.

    :param what: What is unknown without it.
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
        # not a problem: that is the question
        return False
    return True


def find_variable(prog: Program, name: str, module: str) -> Object:
    """
    Global or static variable by name.

    :raises MissingDebugInfo: naming the module
    """
    from drgn_pmem.dumpfile.faults import guard_reads  # on use: it needs numpy

    guard_reads(prog)  # every walk begins at a variable: its reads are guarded from there on
    found = _variable(prog, name)
    if found is None:
        raise _missing(prog, name, module)
    return found


def _variable(prog: Program, name: str) -> Object | None:
    """A variable; None if this kernel does not have it, or only declares it in a header."""
    try:
        found: Object = prog[name]
    except (KeyError, ObjectNotFoundError):
        # not a problem: the caller names what is missing
        return None
    return None if found.absent_ else found


def has_variable(prog: Program, name: str) -> bool:
    """Whether the loaded debug info defines a variable."""
    return _variable(prog, name) is not None


def _structure(value: "Object | Type") -> Type:
    """The structure that a value is, or points to."""
    type_ = value if isinstance(value, Type) else value.type_
    while type_.kind in (TypeKind.TYPEDEF, TypeKind.POINTER, TypeKind.ARRAY):
        type_ = type_.type
    return type_


def has_member(value: "Object | Type", member: str) -> bool:
    """
    Whether a structure (or what a pointer points to) has a member: how kernels are distinguished.

    :param member: ``"range"``; ``"kobj.name"`` for a nested one.
    """
    type_ = _structure(value)
    for name in member.split("."):
        type_ = _structure(type_)
        if type_.kind not in _STRUCTURES or not type_.is_complete() or not type_.has_member(name):
            return False
        type_ = type_.member(name).type
    return True


_STRUCTURES = (TypeKind.STRUCT, TypeKind.UNION, TypeKind.CLASS)


def optional_member(value: Object, *names: str) -> Object | None:
    """
    A member by the first of several names that this kernel has; None if it has none of them.

    For what a kernel of that age did not have at all. What every kernel has is asked for with
    :func:`member`.

    :param value: A structure, or a pointer to one.
    :param names: Newest first; ``"kobj.name"`` for a nested one.
    """
    for name in names:
        if has_member(value, name):
            for part in name.split("."):
                value = value.member_(part)
            return value
    return None


def member(value: Object, *names: str) -> Object:
    """
    A member by the first of several names that this kernel has.

    :param value: A structure, or a pointer to one.
    :param names: Newest first; ``"kobj.name"`` for a nested one.
    :raises MissingDebugInfo: if the kernel has none of them
    """
    found = optional_member(value, *names)
    if found is None:
        type_ = _structure(value)
        # A type that is only declared is defined in a module that this one does not see.
        if type_.kind in _STRUCTURES and not type_.is_complete():
            raise MissingDebugInfo(f"the members of {type_.type_name()} are not known")
        raise MissingDebugInfo(
            f"{type_.type_name()} of this kernel has no member {' or '.join(names)}"
        )
    return found

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Names of namespaces
-------------------

What a user may call a namespace: its device (``namespace2.0``), its block or character device
(``pmem2``, ``/dev/pmem2``, ``dax1.1``), the name it was given (``lab-ext4``), its uuid.
"""

from drgn import Program

from drgn_pmem.analysis.inventory.daxonly import dax_without_namespace
from drgn_pmem.errors import NotFound, UsageError
from drgn_pmem.kernel.namespace import Namespace, for_each_namespace
from drgn_pmem.partial import Problems, WalkError

__all__ = ("find_namespace", "namespace_called")


def namespace_called(namespaces: list[Namespace], name: str) -> Namespace | None:
    """
    The one of several namespaces that a user's word names; None if it names none of them.

    :raises UsageError: if the word is the given name of several
    """
    plain = name.removeprefix("/dev/")
    for namespace in namespaces:
        if plain in (namespace.dev, *namespace.devices):
            return namespace
    found = [n for n in namespaces if name == n.name or name.lower() in (n.uuid, n.raw_uuid)]
    # A name is free text, so that several may have it.
    enabled = [n for n in found if not n.idle]
    chosen = enabled if len(enabled) == 1 else found
    if len(chosen) > 1:
        devices = " and ".join(n.dev for n in chosen)
        raise UsageError(f"{name!r} is the name of {devices}: give the device")
    return chosen[0] if chosen else None


def find_namespace(prog: Program, name: str) -> Namespace:
    """
    Namespace by its device name, its block or character device, its given name or its uuid; or a
    DAX device without namespace, by its name.

    :raises NotFound: if there is none, naming those that there are
    :raises WalkError: if none of those that could be read has the name, and there may be more
    :raises UsageError: if several have it
    """
    problems = Problems()
    namespaces = problems.take(for_each_namespace(prog))
    if namespace_called(namespaces, name) is None:
        namespaces = [*namespaces, *problems.take(dax_without_namespace(prog))]
    found = namespace_called(namespaces, name)
    if found is not None:
        return found
    known = ", ".join(sorted(n.dev for n in namespaces if not n.idle)) or "none"
    if problems:
        raise WalkError(
            f"whether there is a namespace {name!r} is not known; could be read: {known}; "
            f"{next(iter(problems))}"
        )
    raise NotFound(f"no namespace {name!r}; there are: {known}")

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Kernel modules
--------------

Which modules the crashed kernel had loaded, which of them have no debug info here, and where to
get it. Modules that are built in or were not loaded are not missing.
"""

from collections.abc import Iterable, Iterator
import re

from drgn import Object, ObjectNotFoundError, Program, RelocatableModule
from drgn.helpers.linux.list import list_for_each_entry

from drgn_pmem.kernel.walk import bounded
from drgn_pmem.partial import Partial, Problems

__all__ = (
    "debug_package",
    "has_kernel_debug_info",
    "has_no_module",
    "how_to_get_kernel",
    "how_to_get_modules",
    "lacking_modules",
    "modules_known",
    "symbol_address",
)

_CACHE_KEY = "drgn_pmem.kernel.modules"

_PACKAGES = (
    # Debian: uname -r ends with the flavour, which ends with the architecture.
    (
        r"-(amd64|arm64(-16k)?|armmp(-lpae)?|loong64|powerpc64le(-64k)?|riscv64|s390x|686(-pae)?)$",
        "linux-image-{}-dbg",
    ),
    # Ubuntu
    (r"-(generic|lowlatency|aws|azure|gcp|gke|ibm|kvm|oracle)(-64k)?$", "linux-image-{}-dbgsym"),
    # Oracle's UEK, then Fedora, CentOS, RHEL and what is built from it
    (r"\.(el)\d+uek\.", "kernel-uek-debuginfo-{}"),
    (r"\.(fc|el|eln|oe|amzn|an)\d*(_\d+)?\.", "kernel-debuginfo-{}"),
    # SUSE
    (r"-(default|64kb)$", "kernel-{1}-debuginfo"),
)  # fmt: skip
"""Pattern of a distribution's ``uname -r`` -> the package with the debug info. Used only to name
the package."""


def debug_package(release: str) -> str | None:
    """
    Package with the debug info of a distribution's kernel and of its modules.

    :param release: ``uname -r``
    :return: None if the release matches no known distribution
    """
    # It comes from the dump and goes into a command that the user may run.
    if not re.fullmatch(r"[\w.+~-]+", release, re.ASCII):
        return None
    for pattern, package in _PACKAGES:
        found = re.search(pattern, release)
        if found:
            return package.format(release, found[1])
    return None


def _release(prog: Program) -> str:
    try:
        return prog["UTS_RELEASE"].string_().decode("ascii", "backslashreplace")
    except LookupError:
        # not a problem: it only names the package to install
        return ""


def has_kernel_debug_info(prog: Program) -> bool:
    """Whether the debug info of the kernel itself is loaded."""
    try:
        prog.type("struct page")
    except LookupError:
        # not a problem: that is the question
        return False
    return True


def _loaded(prog: Program) -> Partial[frozenset[str]]:
    """Names of the modules that the crashed kernel had loaded."""
    answer: Partial[frozenset[str]] | None = prog.cache.get(_CACHE_KEY)
    if answer is None:
        try:
            head = prog["modules"].address_of_()
        except (KeyError, ObjectNotFoundError):
            return Partial(frozenset())  # built without modules, or there is no debug info yet
        problems = Problems()
        names = problems.collect(_names(head))
        answer = prog.cache[_CACHE_KEY] = problems.partial(frozenset(names))
    return answer


def _names(head: Object) -> Iterator[str]:
    for entry in bounded(list_for_each_entry("struct module", head, "list"), "modules"):
        yield entry.name.string_().decode("ascii", "replace")


def modules_known(prog: Program) -> bool:
    """Whether all modules that the crashed kernel had loaded could be read."""
    return _loaded(prog).complete


def has_no_module(prog: Program, name: str, exported: str) -> bool:
    """
    Whether it is certain that the crashed kernel had nothing of a module, built in or loaded.

    :param name: As in ``lsmod``.
    :param exported: A function that it has had in every version.
    """
    # A symbol table without panic() proves nothing.
    return (
        modules_known(prog)
        and name not in _loaded(prog).whole()
        and _is_built_in(prog, "panic")
        and not _is_built_in(prog, exported)
    )


def symbol_address(prog: Program, name: str) -> int | None:
    """
    Address of a function or variable by the symbol tables that are loaded; None if none of them has
    the name.
    """
    try:
        return prog.symbol(name).address
    except LookupError:
        # not a problem: that is the question
        return None


def _is_built_in(prog: Program, function: str) -> bool:
    return symbol_address(prog, function) is not None


def lacking_modules(prog: Program, wanted: Iterable[str]) -> list[str]:
    """
    Those of some modules that the crashed kernel had loaded and whose debug info is not loaded, as
    far as :func:`modules_known`.

    :param wanted: Names as in ``lsmod``.
    """
    # not a problem: a walk that lacks debug info of a module says so itself
    candidates = Problems().take(_loaded(prog)).intersection(wanted)
    if not candidates:
        return []
    there = {
        module.name
        for module in prog.modules()
        if isinstance(module, RelocatableModule) and module.debug_file_path is not None
    }
    return sorted(candidates - there)


def how_to_get_modules(prog: Program) -> str:
    """How to get the debug info of modules and load it, as part of a sentence."""
    return _install(prog) + (
        "give their files (.ko or .ko.debug) with -s, or the folder with them with "
        "--debug-directory"
    )


def how_to_get_kernel(prog: Program) -> str:
    """The same for the kernel itself."""
    return _install(prog) + "give its vmlinux with -s"


def _install(prog: Program) -> str:
    package = debug_package(_release(prog))
    return f"install {package}, or " if package else ""

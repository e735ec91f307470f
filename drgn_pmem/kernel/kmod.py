# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Kernel modules
--------------

Which modules the crashed kernel had loaded, of which of them the debug info is not loaded here, and
where a user gets it. What is built in, or was not loaded, lacks nothing.
"""

from collections.abc import Iterable
import re

from drgn import ObjectNotFoundError, Program, RelocatableModule
from drgn.helpers.linux.list import list_for_each_entry

from drgn_pmem.kernel.walk import bounded, collect

__all__ = (
    "debug_package",
    "has_kernel_debug_info",
    "has_no_module",
    "how_to_get_kernel",
    "how_to_get_modules",
    "lacking_modules",
)

_CACHE_KEY = "drgn_pmem.kernel.modules"

_PACKAGES = (
    # Debian: uname -r ends with the flavour, which ends with the architecture.
    (
        r"-(amd64|arm64|armmp(-lpae)?|loong64|powerpc64le(-64k)?|riscv64|s390x|686(-pae)?)$",
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
"""What a distribution calls its kernels (``uname -r``) -> the package with their debug info. Only
the name of a package depends on it, no answer."""


def debug_package(release: str) -> str | None:
    """
    Package with the debug info of a distribution's kernel and of its modules.

    :param release: ``uname -r``
    :return: None if the release looks like no distribution's that is known here
    """
    # It comes out of the dump and goes into a command that the user may run.
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
        return ""


def has_kernel_debug_info(prog: Program) -> bool:
    """Whether the debug info of the kernel itself is loaded."""
    try:
        prog.type("struct page")
    except LookupError:
        return False
    return True


def _loaded(prog: Program) -> tuple[frozenset[str], bool]:
    """Names of the modules that the crashed kernel had loaded, and whether these are all."""
    answer: tuple[frozenset[str], bool] | None = prog.cache.get(_CACHE_KEY)
    if answer is None:
        try:
            head = prog["modules"].address_of_()
        except (KeyError, ObjectNotFoundError):
            return frozenset(), True  # built without modules, or there is no debug info yet
        entries = bounded(list_for_each_entry("struct module", head, "list"), "modules")
        found, problems = collect(
            entry.name.string_().decode("ascii", "replace") for entry in entries
        )
        answer = prog.cache[_CACHE_KEY] = frozenset(found), not problems
    return answer


def has_no_module(prog: Program, name: str, exported: str) -> bool:
    """
    Whether it is certain that the crashed kernel had nothing of a module, built in or loaded.

    :param name: As in ``lsmod``.
    :param exported: A function that it has had in every version.
    """
    loaded, whole = _loaded(prog)
    # A symbol table that does not know panic() tells nothing.
    return (
        whole
        and name not in loaded
        and _is_built_in(prog, "panic")
        and not _is_built_in(prog, exported)
    )


def _is_built_in(prog: Program, function: str) -> bool:
    try:
        prog.symbol(function)
    except LookupError:
        return False
    return True


def lacking_modules(prog: Program, wanted: Iterable[str]) -> list[str]:
    """
    Those of some modules that the crashed kernel had loaded and whose debug info is not loaded.

    :param wanted: Names as in ``lsmod``.
    """
    candidates = _loaded(prog)[0].intersection(wanted)
    if not candidates:
        return []
    there = {
        module.name
        for module in prog.modules()
        if isinstance(module, RelocatableModule) and module.debug_file_path is not None
    }
    return sorted(candidates - there)


def how_to_get_modules(prog: Program) -> str:
    """Where to get the debug info of modules, and how to give it to us: half a sentence."""
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

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The VMCOREINFO text that a dump is opened with
----------------------------------------------

Its own note or what the user gave, if that fits the memory and drgn can use it; else the text in
the crashed machine's memory.
"""

from drgn_pmem.dumpfile.fit import Fit, fit_of
from drgn_pmem.dumpfile.locate import find_vmcoreinfo
from drgn_pmem.dumpfile.records import DumpFile
from drgn_pmem.dumpfile.vmcoreinfo import Vmcoreinfo
from drgn_pmem.errors import DumpFileError

__all__ = ("located_text", "note_that_fits", "text_that_fits")


def note_that_fits(dump: DumpFile, lines: list[str]) -> bytes | None:
    """None for the dump's own note."""
    note = dump.vmcoreinfo or b""
    text = text_that_fits(dump, note, "the VMCOREINFO note", lines)
    return None if text == note else text


def text_that_fits(dump: DumpFile, text: bytes, what: str, lines: list[str]) -> bytes:
    """
    A VMCOREINFO text; if it does not fit the memory, the one in memory that does, with a line about
    it in ``lines``.

    :param what: What the text is, for the line.
    """
    info = Vmcoreinfo.parse(text)
    fit = fit_of(info, dump.memory.read) if dump.memory is not None else Fit.UNKNOWN
    damaged = _damage(info)
    if damaged:
        fit = Fit.NO
    # The kernel's image is in every dump that is whole: where it is not, it may be elsewhere.
    if fit is not Fit.NO and (fit is not Fit.NOT_SAVED or dump.truncated):
        return text
    found = find_vmcoreinfo(dump)
    said = f"{dump.path}: {what} (Linux {info.osrelease}) does not fit this memory"
    if damaged:
        said = f"{dump.path}: {what} is damaged: it has no valid {damaged}"
    if found is not None and found.verified:
        lines.append(
            f"{said}; using the one in memory at {found.address:#x} (Linux {found.info.osrelease})"
        )
        return found.text
    if fit is Fit.NO:
        lines.append(f"{said}, and memory holds none that {'is whole' if damaged else 'does'}")
    return text


def _damage(info: Vmcoreinfo) -> str:
    """What a text lacks without which drgn cannot use it; empty if nothing."""
    if not info.osrelease:
        return "OSRELEASE"
    size = info.page_size or 0
    return "" if size > 0 and not size & (size - 1) else "PAGESIZE"


def located_text(dump: DumpFile, lines: list[str]) -> bytes:
    """VMCOREINFO from memory, with a line about it in ``lines``."""
    found = find_vmcoreinfo(dump)
    if found is None:
        raise DumpFileError(
            f"{dump.path}: {'the file is truncated: ' if dump.truncated else ''}no VMCOREINFO note"
            " in the dump and none in the memory that it holds; give its text with --vmcoreinfo"
            " FILE (QEMU: start it with -device vmcoreinfo)"
        )
    lines.append(
        f"{dump.path}: no VMCOREINFO note in the dump; using the one in memory at"
        f" {found.address:#x} (Linux {found.info.osrelease}"
        f"{'' if found.verified else ', not verified: the kernel was not found where it says'})"
    )
    return found.text

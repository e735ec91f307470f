#!/usr/bin/env python3
# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Pack a run of the lab into ``vmcores/``.

``pack.py kernel VMLINUX CONFIG ARCHITECTURE [MODULE...]``
    pack a shrunk vmlinux, and the debug info of modules, into
    ``vmcores/kernels/ARCHITECTURE-RELEASE/``. CONFIG is ``-`` for a distribution's kernel.
``pack.py sample NAME OUTPUT ARCHITECTURE RELEASE LOADER DESCRIPTION FORMAT...``
    pack OUTPUT/vmcore (format ``raw``) or OUTPUT/vmcore.FORMAT for each format, the default one
    first, and OUTPUT/truth into ``vmcores/NAME/``, and describe it in ``vmcores/index.json``.
    ``FORMAT=BASE,BASE`` packs what differs from other formats (``elf=raw``), also of samples that
    were packed before (``qemu-elf=elf,OTHER:qemu-elf``), or from the sample's debug info
    (``qemu-elf=vmlinux``: it has the kernel's read-only data). Whoever makes a base anew makes
    those anew that were told apart from it.

``pack.py place FOLDER NAME ARCHITECTURE RELEASE LOADER DESCRIPTION DEBUG_DIRECTORY FORMAT...``
    describe the dumps in FOLDER/NAME as they are, unpacked, in FOLDER/index.json; their debug info
    is in FOLDER/DEBUG_DIRECTORY, laid out as /usr/lib/debug is.

``size`` in the index is that of the unpacked file, ``sha256`` that of the file as it lies there.
"""

from collections.abc import Sequence
import concurrent.futures
import hashlib
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from delta import write_delta  # and the way to drgn_pmem

from drgn_pmem.shell.sample import File, load_index

VMCORES = pathlib.Path(__file__).resolve().parent.parent
INDEX = VMCORES / "index.json"
DEFAULT = "6.1-fileload"
_BLOCK = 1 << 20
LZMA2 = "--lzma2=preset=9e,dict=256MiB"
"""A dump holds the kernel's text more than once (PT_LOAD, RAM, capture kernel), far apart."""


def digest(path: pathlib.Path) -> str:
    """SHA-256 of a file."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            sha256.update(block)
    return sha256.hexdigest()


def pack(
    source: pathlib.Path,
    target: pathlib.Path,
    bases: Sequence[pathlib.Path] = (),
    filters: Sequence[str] = (),
) -> dict[str, object]:
    """
    Compress a file, or what tells it apart from its bases, with xz, and describe it for the index.

    :param filters: Of xz, before the compression.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=source.parent) as delta, target.open("wb") as out:
        packed = source
        if bases:
            write_delta(source, delta, bases)
            delta.flush()
            packed = pathlib.Path(delta.name)
        subprocess.run(["xz", "-T1", *filters, LZMA2, "-c", packed], stdout=out, check=True)
    return {
        "file": str(target.relative_to(VMCORES)),
        "size": source.stat().st_size,
        "sha256": digest(target),
    }


def unpacked(entry: dict[str, object]) -> pathlib.Path:
    """A file that was packed before."""
    path = VMCORES / str(entry["file"])
    sha256, size = str(entry["sha256"]), int(str(entry["size"]))
    return File(path=path, size=size, sha256=sha256, sample=path.parent.name).unpack()


def release_of(vmlinux: pathlib.Path) -> str:
    """The kernel's release, from its banner."""
    match = re.search(rb"Linux version (\S+) ", vmlinux.read_bytes())
    if not match:
        raise SystemExit(f"pack.py: {vmlinux} has no Linux banner")
    return match[1].decode()


def read_index(path: pathlib.Path = INDEX, default: str = DEFAULT) -> dict[str, object]:
    if path.exists():
        index: dict[str, object] = json.loads(path.read_text())
        return index
    return {"version": 1, "default": default, "kernels": {}, "samples": {}}


def write_index(index: dict[str, object], path: pathlib.Path = INDEX) -> None:
    path.write_text(json.dumps(index, indent=2) + "\n")


def file_of(format: str) -> str:
    """Name of a dump in one format, as the lab leaves it."""
    return "vmcore" if format == "raw" else f"vmcore.{format}"


def pack_kernel(
    vmlinux: pathlib.Path,
    config: pathlib.Path,
    architecture: str,
    modules: Sequence[pathlib.Path],
) -> None:
    """Pack debug info; samples of the same kernel share it."""
    key = f"{architecture}-{release_of(vmlinux)}"
    folder = VMCORES / "kernels" / key
    entry = pack(vmlinux, folder / "vmlinux.xz")
    if str(config) != "-":
        shutil.copyfile(config, folder / "config")
    if modules:
        entry["modules"] = [pack(path, folder / f"{path.name}.xz") for path in modules]
    index = read_index()
    index["kernels"][key] = entry  # type: ignore[index]
    write_index(index)
    print(key, (folder / "vmlinux.xz").stat().st_size)


def copy_truth(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copy the record, without the empty files of tools that had nothing to say."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    for path in sorted(target.rglob("*"), reverse=True):
        path.chmod(0o755 if path.is_dir() else 0o644)
        if path.is_file() and path.stat().st_size == 0:
            path.unlink()


def pack_sample(
    name: str,
    output: pathlib.Path,
    architecture: str,
    release: str,
    loader: str,
    description: str,
    formats: list[str],
) -> None:
    """Pack the dumps of one crash and what is true about it."""
    folder = VMCORES / name
    shutil.rmtree(folder, ignore_errors=True)

    def path(reference: str) -> pathlib.Path:
        sample, _, format = reference.rpartition(":")
        if format == "vmlinux":
            return unpacked(kernel)
        if sample:
            return load_index(VMCORES)[0][sample].formats[format].unpack()
        return output / file_of(format)

    bases: dict[str, list[str]] = {}
    for word in formats:
        format, _, references = word.partition("=")
        bases[format] = references.split(",") if references else []

    def pack_format(format: str) -> dict[str, object]:
        target = folder / f"{path(format).name}.xz"
        # the kernel's text
        filters = ["--x86"] if architecture == "x86_64" and "elf" in format else []
        entry = pack(path(format), target, [path(base) for base in bases[format]], filters)
        return {**entry, "base": bases[format]} if bases[format] else entry

    kernel: dict[str, object] = dict(read_index()["kernels"][f"{architecture}-{release}"])  # type: ignore[index]
    modules = kernel.pop("modules", None)
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as workers:
        packed = dict(zip(bases, workers.map(pack_format, bases), strict=True))
    copy_truth(output / "truth", folder / "truth")
    index = read_index()
    index["samples"][name] = {  # type: ignore[index]
        "description": description,
        "release": release,
        "architecture": architecture,
        "loader": loader,
        "formats": packed,
        "vmlinux": kernel,
        **({"modules": modules} if modules else {}),
        "truth": f"{name}/truth",
    }
    write_index(index)
    for format, entry in packed.items():
        print(name, format, (VMCORES / str(entry["file"])).stat().st_size)


def place_sample(
    folder: pathlib.Path,
    name: str,
    architecture: str,
    release: str,
    loader: str,
    description: str,
    debug_directory: str,
    formats: list[str],
) -> None:
    """Describe the dumps of one crash where they are."""
    index = read_index(folder / "index.json", name)
    index["samples"][name] = {  # type: ignore[index]
        "description": description,
        "release": release,
        "architecture": architecture,
        "loader": loader,
        "formats": {
            format: {
                "file": f"{name}/{file_of(format)}",
                "size": (folder / name / file_of(format)).stat().st_size,
            }
            for format in formats
        },
        "debug_directories": [debug_directory],
        "kernel_directories": [f"{debug_directory}/lib/modules/{release}"],
        "truth": f"{name}/truth",
    }
    write_index(index, folder / "index.json")


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:1] == ["kernel"] and len(arguments) >= 4:
        _, vmlinux, config, architecture, *modules = arguments
        paths = [pathlib.Path(module) for module in modules]
        pack_kernel(pathlib.Path(vmlinux), pathlib.Path(config), architecture, paths)
    elif arguments[:1] == ["sample"] and len(arguments) >= 8:
        _, name, output, architecture, release, loader, description, *formats = arguments
        pack_sample(name, pathlib.Path(output), architecture, release, loader, description, formats)
    elif arguments[:1] == ["place"] and len(arguments) >= 9:
        _, folder, name, architecture, release, loader, description, debug, *formats = arguments
        place_sample(
            pathlib.Path(folder), name, architecture, release, loader, description, debug, formats
        )
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()

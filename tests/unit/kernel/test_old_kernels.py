# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Structures as kernels from 4.18 on have them: each is asked for the members that it has."""

import dataclasses
import re
from typing import Any

from drgn import Object, Program, Type, TypeEnumerator, TypeKind, TypeMember, sizeof
import pytest

from drgn_pmem.errors import MissingDebugInfo
from drgn_pmem.kernel.dax import DaxDevice, _devices_of_class, _pgmap, _ranges
from drgn_pmem.kernel.debuginfo import (
    find_variable,
    has_member,
    has_variable,
    member,
    optional_member,
)
from drgn_pmem.kernel.dm import _fops
from drgn_pmem.kernel.iomem import Resource
from drgn_pmem.kernel.kexec import BackupRegion, LoadedBy, _image
from drgn_pmem.kernel.outline import _outline
from drgn_pmem.kernel.pgmap import _root, is_mapped, read_pgmap
from drgn_pmem.partial import Cause, Problems, WalkError
from drgn_pmem.ranges import Range

from ...synthetic import kernel

ADDRESS = 0xFFFF888012340000
START, END = 0x100000000, 0x13FFFFFFF
WORD = 8


class Types:
    """Types of a kernel, by name, made of 8-byte members: the rest does not matter here."""

    def __init__(self) -> None:
        self.memory: dict[int, int] = {}
        self.prog: Program = kernel("", {})
        self.prog.add_memory_segment(ADDRESS, 1 << 16, self._read, False)
        self.word = self.prog.int_type("unsigned long", WORD, False, "little")
        self.subsections = False
        """Whether memory is added in less than sections of 128 MiB."""
        self.prog.register_object_finder("section", self._find_object, enable_index=0)
        self.prog.register_type_finder("section", self._find_type, enable_index=0)

    def _find_object(self, prog: Program, name: str, flags: Any, filename: Any) -> Object | None:
        return Object(prog, self.word, 27) if name == "SECTION_SIZE_BITS" else None

    def _find_type(self, prog: Program, kinds: Any, name: str, filename: Any) -> Type | None:
        wanted = name == "mem_section_usage" and TypeKind.STRUCT in kinds and self.subsections
        return self.struct(name, "subsection_map") if wanted else None

    def _read(self, _: int, count: int, offset: int, physical: bool) -> bytes:
        data = b"".join(
            self.memory.get(at, 0).to_bytes(WORD, "little")
            for at in range(offset // WORD, (offset + count) // WORD + 1)
        )
        return data[offset % WORD :][:count]

    def struct(self, name: str, *members: "str | tuple[str, Type]") -> Type:
        offset, made = 0, []
        for item in members:
            own, type_ = (item, self.word) if isinstance(item, str) else item
            made.append(TypeMember(type_, own, offset * 8))
            offset += sizeof(type_)
        return self.prog.struct_type(name, offset, tuple(made))

    def at(self, type_: Type, values: dict[str, int]) -> Object:
        """``type *`` to a structure in memory with these members set (``"res.start"``)."""
        pointer = Object(self.prog, self.prog.pointer_type(type_, WORD, "little"), ADDRESS)
        for path, value in values.items():
            found = pointer
            for part in path.split("."):
                found = found[int(part)] if part.isdigit() else found.member_(part)
            address = found.address_
            assert address is not None
            self.memory[(address - ADDRESS) // WORD] = value
        return pointer


@pytest.fixture
def types() -> Types:
    return Types()


ALTMAP = ("base_pfn", "reserve", "free", "align", "alloc")


def memory_type(types: Types, second: str = "PUBLIC") -> Type:
    return types.prog.enum_type(
        "memory_type",
        types.word,
        (
            TypeEnumerator("MEMORY_DEVICE_PRIVATE", 1),
            TypeEnumerator(f"MEMORY_DEVICE_{second}", 2),
            TypeEnumerator("MEMORY_DEVICE_FS_DAX", 3),
        ),
    )


def dev_pagemap(types: Types, *shape: str) -> Type:
    """``struct dev_pagemap`` with the members that a shape names."""
    range_ = types.struct("range", "start", "end")
    known: dict[str, Any] = {
        "altmap": types.struct("vmem_altmap", *ALTMAP),
        "altmap_5_4": types.struct("vmem_altmap", "base_pfn", "end_pfn", *ALTMAP[1:]),
        "res": types.struct("resource", "start", "end", "name", "flags"),
        "range": range_,
        "ranges": types.prog.array_type(range_, 2),
        "type": memory_type(types),
        "type_6_0": memory_type(types, "COHERENT"),
    }
    return types.struct(
        "dev_pagemap",
        *(
            (re.sub(r"_\d_\d$", "", name), known[name]) if name in known else name
            for name in shape
        ),
    )  # fmt: skip


SHAPES = {
    "4.18": ("altmap", "res", "ref", "type", "altmap_valid"),
    "5.3": ("altmap", "res", "ref", "type", "flags"),
    "5.4": ("altmap_5_4", "res", "ref", "type", "flags"),
    "5.9": ("altmap_5_4", "res", "ref", "type", "flags", "owner"),
    "5.10": ("altmap_5_4", "ref", "type", "flags", "owner", "nr_range", "range"),
    "5.17": ("altmap_5_4", "ref", "type", "flags", "vmemmap_shift", "owner", "nr_range", "range"),
    "6.0": ("altmap_5_4", "type_6_0", "flags", "vmemmap_shift", "owner", "nr_range", "range"),
}


@pytest.mark.parametrize("version", SHAPES)
def test_a_page_map_of_each_age_is_read(types: Types, version: str) -> None:
    shape = SHAPES[version]
    place = "res" if "res" in shape else "range"
    values = {
        f"{place}.start": START,
        f"{place}.end": END,
        "type": 3,
        "altmap.base_pfn": START >> 12,
        "altmap.reserve": 2,
        "altmap.free": 30,
        "altmap_valid" if "altmap_valid" in shape else "flags": 1,
    }
    values |= {"nr_range": 1} if "nr_range" in shape else {}
    values |= {"owner": 0x1234} if "owner" in shape else {}
    values |= {"vmemmap_shift": 9} if "vmemmap_shift" in shape else {}
    pointer = types.at(dev_pagemap(types, *shape), values)
    found = read_pgmap(pointer)
    assert found.ranges == (Range(START, END + 1),)
    assert found.type == "MEMORY_DEVICE_FS_DAX"
    assert found.altmap is not None
    assert (found.altmap.reserve, found.altmap.free) == (2, 30)
    assert (found.altmap.end_pfn is None) == (version in ("4.18", "5.3"))
    assert found.owner == (0x1234 if "owner" in shape else None)
    assert found.vmemmap_shift == (9 if "vmemmap_shift" in shape else 0)
    assert is_mapped(pointer)


@pytest.mark.parametrize(
    ("start", "base", "subsections", "first"),
    [
        (0x155000, 0x150000, False, 0x155002),  # as seen on 4.18: the section begins before it
        (0x150000, 0x150000, False, 0x150002),
        (0x155000, 0x155000, True, 0x155002),
        (0x155100, 0x155000, True, 0x155100),  # the kernel skips nothing where these two differ
    ],
)
def test_the_struct_pages_of_the_reserve_are_the_only_ones_that_were_never_written(
    types: Types, start: int, base: int, subsections: bool, first: int
) -> None:
    types.subsections = subsections
    values = {
        "res.start": start << 12,
        "res.end": (0x158000 << 12) - 1,
        "type": 3,
        "altmap_valid": 1,
        "altmap.base_pfn": base,
        "altmap.reserve": 2 + start - base,
        "altmap.free": 0x400,
    }
    found = read_pgmap(types.at(dev_pagemap(types, *SHAPES["4.18"]), values))
    assert found.memmap_pfn == first


@pytest.mark.parametrize(
    ("value", "fsdax", "device"),
    [(0, False, True), (1, False, False), (2, False, False), (3, True, False)],
)
def test_before_5_3_the_page_map_of_device_dax_has_no_type(
    types: Types, value: int, fsdax: bool, device: bool
) -> None:
    values = {"res.start": START, "res.end": END, "type": value}
    found = read_pgmap(types.at(dev_pagemap(types, *SHAPES["4.18"]), values))
    assert (found.is_fsdax, found.is_device_dax) == (fsdax, device)


@pytest.mark.parametrize("name", ["MEMORY_DEVICE_DEVDAX", "MEMORY_DEVICE_GENERIC"])
def test_device_dax_by_the_names_it_had_since(types: Types, name: str) -> None:
    shape = SHAPES["5.4"]
    pointer = types.at(dev_pagemap(types, *shape), {"res.start": START, "res.end": END})
    found = dataclasses.replace(read_pgmap(pointer), type=name)
    assert (found.is_fsdax, found.is_device_dax, found.is_dax) == (False, True, True)


@pytest.mark.parametrize(
    ("type_", "mode"), [(0, "devdax"), (1, None), (3, "fsdax")], ids=["none", "private", "fsdax"]
)
def test_without_libnvdimm_the_page_map_says_the_mode_where_no_dax_device_has_the_data(
    types: Types, type_: int, mode: str | None
) -> None:
    """As on 4.18: the resource of the namespace has all of it, whatever its mode."""
    values = {
        "res.start": START,
        "res.end": END,
        "type": type_,
        "altmap_valid": 1,
        "altmap.base_pfn": START >> 12,
        "altmap.reserve": 2,
        "altmap.free": 0x3FE,
    }
    pgmap = read_pgmap(types.at(dev_pagemap(types, *SHAPES["4.18"]), values))
    pointer = types.at(types.struct("resource", "start", "end"), {})
    resource = Resource(
        start=START, end=END, name="namespace1.1", flags=0, desc="", depth=1, object=pointer
    )
    # A device of other memory (hmem) begins where the namespace ends.
    other = dataclasses.replace(resource, name="dax9.0", start=END + 1, end=END + 0x10000000)
    found = _outline(resource, "namespace1.1", "region1", [other], [pgmap], other.end)
    assert (found.mode, found.map, found.data) == (mode, "dev", START + 0x400000)
    assert (found.start, found.end, found.chardev) == (START, END + 1, None)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("gap", [0, 0x7E00000], ids=["adjacent", "next memory block"])
def test_a_device_that_begins_after_the_namespace_is_of_the_same_persistent_memory(
    types: Types, together: bool, gap: int
) -> None:
    pointer = types.at(types.struct("resource", "start", "end"), {})
    resource = Resource(
        start=START, end=END, name="namespace1.1", flags=0, desc="", depth=1, object=pointer
    )
    device = dataclasses.replace(resource, name="dax1.1", start=END + 1 + gap, end=END + 0x10000000)
    last = device.end if together else END
    found = _outline(resource, "namespace1.1", "region1", [device], [], last)
    assert (found.mode, found.chardev) == (("devdax", "dax1.1") if together else (None, None))
    # Where the data begins in the gap is not known.
    assert found.data == (END + 1 if together and not gap else None)
    assert found.end - 1 == (device.end if together else END)


def test_a_page_map_without_altmap_has_none(types: Types) -> None:
    values = {"res.start": START, "res.end": END, "type": 3}
    found = read_pgmap(types.at(dev_pagemap(types, *SHAPES["4.18"]), values))
    assert found.altmap is None
    assert found.first_pfn == START >> 12


@pytest.mark.parametrize("gone", ["res", "type", "altmap", "altmap_valid"])
def test_a_page_map_without_a_member_that_all_have_is_a_problem(types: Types, gone: str) -> None:
    shape = [name for name in SHAPES["4.18"] if name != gone]
    place = {} if gone == "res" else {"res.start": START, "res.end": END}
    place |= {} if gone == "altmap_valid" else {"altmap_valid": 1}
    pointer = types.at(dev_pagemap(types, *shape), place)
    problems = Problems()
    assert problems.attempt("page map", lambda: read_pgmap(pointer)) is None
    (problem,) = problems
    assert problem.cause is Cause.NOT_IN_KERNEL
    assert "struct dev_pagemap of this kernel has no member" in problem.why
    assert gone in problem.why


def test_the_order_of_compound_pages_is_not_0_where_only_its_name_is_not_known(
    types: Types,
) -> None:
    """A kernel with MEMORY_DEVICE_COHERENT is newer than vmemmap_shift."""
    shape = [name for name in SHAPES["6.0"] if name != "vmemmap_shift"]
    values = {"nr_range": 1, "range.start": START, "range.end": END}
    pointer = types.at(dev_pagemap(types, *shape), values)
    with pytest.raises(MissingDebugInfo, match="no member vmemmap_shift"):
        read_pgmap(pointer)


def dev_dax(types: Types, shape: str) -> tuple[Type, dict[str, int]]:
    """``struct dev_dax`` of an age, and what its ranges are in it."""
    resource = types.struct("resource", "start", "end", "name", "flags")
    range_ = types.struct("range", "start", "end")
    region = types.struct("dax_region", "id", "align", ("res", resource))
    to_region = ("region", types.prog.pointer_type(region, WORD, "little"))
    pagemap = types.struct("dev_pagemap", "flags")
    if shape == "4.18":
        array = types.prog.array_type(resource, 1)
        members: tuple[Any, ...] = (to_region, "id", "num_resources", ("res", array))
        return types.struct("dev_dax", *members), {
            "num_resources": 1,
            "res.0.start": START,
            "res.0.end": END,
        }
    if shape == "5.4":
        members = (to_region, ("pgmap", pagemap))
        # The region lies after the device.
        return types.struct("dev_dax", *members), {
            "region": ADDRESS + 0x1000,
            "region.res.start": START,
            "region.res.end": END,
        }
    to_pgmap = ("pgmap", types.prog.pointer_type(pagemap, WORD, "little"))
    if shape == "RHEL 8.7":
        return types.struct("dev_dax", to_region, ("range", range_), to_pgmap), {
            "range.start": START,
            "range.end": END,
            "pgmap": 0x1234,
        }
    one = types.struct("dev_dax_range", "pgoff", ("range", range_))
    to_ranges = ("ranges", types.prog.pointer_type(one, WORD, "little"))
    return types.struct("dev_dax", to_region, "align", to_pgmap, "nr_range", to_ranges), {
        "nr_range": 1,
        "ranges": ADDRESS + 0x1000,
        "ranges.0.range.start": START,
        "ranges.0.range.end": END,
        "pgmap": 0x1234,
    }


@pytest.mark.parametrize(
    ("shape", "pgmap"),
    [("4.18", 0), ("5.4", ADDRESS + WORD), ("RHEL 8.7", 0x1234), ("5.14", 0x1234)],
)
def test_a_dax_device_of_each_age_is_read(types: Types, shape: str, pgmap: int) -> None:
    device = types.at(*dev_dax(types, shape))
    assert _ranges(device) == (Range(START, END + 1),)
    assert _pgmap(device) == pgmap


@pytest.mark.parametrize(("shape", "count"), [("4.18", "num_resources"), ("5.14", "nr_range")])
def test_an_implausible_number_of_ranges_is_refused(types: Types, shape: str, count: str) -> None:
    type_, values = dev_dax(types, shape)
    device = types.at(type_, values | {count: 1 << 20})
    with pytest.raises(WalkError, match="implausible"):
        _ranges(device)


def test_the_first_name_that_there_is_counts(types: Types) -> None:
    inner = types.struct("inner", "value")
    pointer = types.at(types.struct("outer", "old", ("deep", inner)), {"old": 1, "deep.value": 2})
    assert member(pointer, "new", "old").value_() == 1
    assert member(pointer, "deep.value", "old").value_() == 2
    assert member(pointer[0], "old").value_() == 1
    assert optional_member(pointer, "new", "deep.other", "old.value") is None
    assert has_member(pointer, "deep.value")
    assert not has_member(pointer, "deep.value.more")


def test_a_member_that_there_is_not_is_named(types: Types) -> None:
    pointer = types.at(types.struct("outer", "old"), {})
    with pytest.raises(MissingDebugInfo, match="struct outer of this kernel has no member a or b"):
        member(pointer, "a", "b")


def test_a_type_that_is_only_declared_has_no_members(types: Types) -> None:
    declared = types.prog.struct_type("hidden", None, None)
    pointer = Object(types.prog, types.prog.pointer_type(declared, WORD, "little"), ADDRESS)
    assert not has_member(pointer, "any")
    with pytest.raises(MissingDebugInfo, match="struct hidden are not known"):
        member(pointer, "any")


@pytest.mark.parametrize(
    "there", [("pgmap_array",), ("pgmap_radix",), ("pgmap_array", "pgmap_radix")]
)
def test_the_root_of_page_maps_is_the_newest_there_is(types: Types, there: tuple[str, ...]) -> None:
    places = {name: ADDRESS + 0x100 * number for number, name in enumerate(there)}

    def find(prog: Program, name: str, flags: object, filename: object) -> Object | None:
        return Object(prog, types.word, address=places[name]) if name in places else None

    types.prog.register_object_finder("test", find, enable_index=0)
    assert _root(types.prog).value_() == places[there[0]]


def test_a_variable_that_is_only_declared_is_not_in_the_kernel(types: Types) -> None:
    """5.4: drivers/dax/super.c declares dax_class; only dax_pmem_compat, not built, defines it."""

    def find(prog: Program, name: str, flags: object, filename: object) -> Object | None:
        return Object(prog, types.word) if name == "dax_class" else None

    types.prog.register_object_finder("test", find, enable_index=0)
    assert types.prog["dax_class"].absent_
    assert not has_variable(types.prog, "dax_class")
    with pytest.raises(MissingDebugInfo, match="dax_class is not known"):
        find_variable(types.prog, "dax_class", "dax")
    assert not list(_devices_of_class(types.prog))


# struct kimage_arch of x86_64
ARCH = {
    "4.18": ("backup_src_start", "backup_src_sz", "backup_load_addr", "elf_load_addr"),
    "5.5": ("elf_load_addr",),
    "5.13": (),
}


def kimage(types: Types, version: str, gone: str = "") -> Object:
    segment = types.struct("kexec_segment", "buf", "bufsz", "mem", "memsz")
    own = () if ARCH[version] else ("elf_load_addr",)
    members: list[Any] = [
        "start",
        "nr_segments",
        ("segment", types.prog.array_type(segment, 2)),
        "file_mode",
        ("arch", types.struct("kimage_arch", *ARCH[version])),
        *own,
    ]
    type_ = types.struct("kimage", *(m for m in members if m not in (gone, (gone,))))
    values = {"start": 0x3000000, "nr_segments": 1, "segment.0.mem": 0x309F000, "file_mode": 1}
    values |= {"elf_load_addr" if own else "arch.elf_load_addr": 0x309F000}
    if version == "4.18":
        values |= {"arch.backup_src_start": 0x1000, "arch.backup_src_sz": 0x9EC00}
        values |= {"arch.backup_load_addr": 0x3001000}
    return types.at(type_, {path: value for path, value in values.items() if path != gone})


@pytest.mark.parametrize("version", ARCH)
def test_a_crash_image_of_each_age_is_read(types: Types, version: str) -> None:
    image = _image(kimage(types, version))
    assert image.loader is LoadedBy.FILE
    assert image.elf_load_addr == image.segments[0].physical == 0x309F000
    backup = BackupRegion(start=0x1000, size=0x9EC00, physical=0x3001000)
    assert image.backup == (backup if version == "4.18" else None)


@pytest.mark.parametrize("gone", ["file_mode", "elf_load_addr"])
def test_who_loaded_a_crash_image_is_not_guessed(types: Types, gone: str) -> None:
    with pytest.raises(MissingDebugInfo, match=f"no member {gone}"):
        _image(kimage(types, "5.13", gone))


@pytest.mark.parametrize("there", [("dm_blk_dops",), ("dm_blk_dops", "dm_rq_blk_dops")])
def test_disks_of_device_mapper_have_the_operations_that_there_are(
    types: Types, there: tuple[str, ...]
) -> None:
    """4.18 to 5.4 and RHEL 8 have none of request-based disks."""
    places = {name: ADDRESS + 0x100 * number for number, name in enumerate(there)}

    def find(prog: Program, name: str, flags: object, filename: object) -> Object | None:
        return Object(prog, types.word, address=places[name]) if name in places else None

    types.prog.register_object_finder("test", find, enable_index=0)
    assert _fops(types.prog) == set(places.values())


def test_a_dax_device_before_5_10_has_no_alignment_of_its_own_in_json() -> None:
    values: dict[str, Any] = {
        "chardev": "dax0.0",
        "size": 0,
        "target_node": None,
        "align": 1 << 21,
        "mode": "devdax",
        "ranges": (),
        "region": 0,
        "pgmap": 0,
        "memory_blocks": None,
        "object": None,
    }
    old = DaxDevice(**values, own_align=False).to_json()
    assert old == {"chardev": "dax0.0", "size": 0, "mode": "devdax"}
    assert DaxDevice(**values).to_json() == old | {"align": 1 << 21}

# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What sysfs had is what ndctl could print."""

from drgn import Object
import pytest

from drgn_pmem.analysis.inventory.listing import Inventory
from drgn_pmem.kernel.device import attribute_names
from drgn_pmem.kernel.region import Region
from drgn_pmem.output.ndctl import nest
from drgn_pmem.partial import Problems, WalkError

from .test_old_kernels import ADDRESS, WORD, Types


class Sysfs:
    """A region whose device has a group of attributes of its type, and one of its own."""

    def __init__(self, of_type: list[str], own: list[str]) -> None:
        types = Types()
        self._memory, self._next = types.memory, 64
        pointer = types.prog.pointer_type
        char = types.prog.int_type("char", 1, True)
        attribute = types.struct("attribute", ("name", pointer(char, WORD)))
        group = types.struct(
            "attribute_group", "name", ("attrs", pointer(pointer(attribute, WORD), WORD))
        )
        groups = pointer(pointer(group, WORD), WORD)
        device_type = types.struct("device_type", "name", ("groups", groups))
        device = types.struct("device", ("type", pointer(device_type, WORD)), ("groups", groups))
        range_ = types.struct("badblocks", "count")
        self.object = types.at(
            types.struct("nd_region", ("dev", device), ("bb", range_)),
            {
                "dev.type": self._put([0, self._put([self._group(of_type), 0])]),
                "dev.groups": self._put([self._group(own), 0]),
            },
        )

    def _put(self, words: list[int]) -> int:
        at, self._next = self._next, self._next + len(words)
        self._memory |= {at + i: word for i, word in enumerate(words)}
        return ADDRESS + at * WORD

    def _text(self, text: str) -> int:
        data = text.encode().ljust(32, b"\0")
        return self._put([int.from_bytes(data[i : i + 8], "little") for i in range(0, 32, 8)])

    def _group(self, names: list[str]) -> int:
        attributes = [self._put([self._text(name)]) for name in names]
        return self._put([0, self._put([*attributes, 0])])

    def region(self) -> Region:
        return Region(
            dev="region0",
            bus="ndbus0",
            size=1 << 30,
            resource=1 << 32,
            align=None,
            available_size=0,
            max_available_extent=0,
            type="pmem",
            numa_node=0,
            target_node=1,
            iset_id=None,
            mappings=None,
            persistence_domain="unknown",
            enabled=True,
            object=self.object,
        )


def names_of(sysfs: Sysfs) -> set[str]:
    device: Object = sysfs.object.dev.address_of_()
    return attribute_names(device)


@pytest.mark.parametrize(
    ("of_type", "own", "exports"),
    [
        (["size", "align"], ["numa_node", "target_node"], True),
        (["size", "target_node"], [], True),
        (["size"], ["numa_node"], False),
    ],
)
def test_the_target_node_is_in_ndctls_json_where_the_kernel_told_ndctl(
    of_type: list[str], own: list[str], exports: bool
) -> None:
    """5.1 to 5.4 know it and have no attribute: it is printed, but not as what ndctl printed."""
    sysfs = Sysfs(of_type, own)
    assert names_of(sysfs) == {*of_type, *own}
    inventory = Inventory(
        buses=[], dimms=[], regions=[sysfs.region()], namespaces=[], dax_regions=[]
    )
    for dump, shown in ((None, exports), (lambda _: {}, True)):
        (value,) = nest(
            inventory,
            buses=False,
            dimms=False,
            regions=True,
            namespaces=False,
            dax=False,
            verbose=True,
            dump=dump,
            problems=Problems(),
        )
        assert value.get("target_node") == (1 if shown else None)


def test_a_list_of_attributes_that_does_not_end_is_damaged() -> None:
    with pytest.raises(WalkError, match="attributes of a group: more than 256"):
        names_of(Sysfs(["size"] * 300, []))

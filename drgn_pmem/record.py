# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Records
-------

What functions return: frozen dataclasses with keyword-only fields. How a field is shown is declared
at the field, once; JSON, ``repr`` and HTML come from that::

    class Range(Record):
        start: int = shown(Show.ADDRESS)
        size: int = shown(Show.SIZE)
        name: str
        object: Object = shown(Show.HIDDEN)

    >>> Range(start=0x1000, size=4096, name="pmem0", object=obj)
    Range(start=0x1000, size=4096, name='pmem0')
    >>> Range(...).to_json()
    {'start': '0x1000', 'size': 4096, 'name': 'pmem0'}
"""

from collections.abc import Callable, Mapping
import dataclasses
import enum
import html
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[Any], Any]:
        """Python 3.10 has none; only type checkers look at it."""
        return lambda decorated: decorated


__all__ = ("Record", "Show", "shown", "to_json")


class Show(enum.Enum):
    """How a field is shown."""

    PLAIN = "plain"
    """As it is: numbers as numbers, enums by value, records by their own fields."""
    ADDRESS = "address"
    """In hexadecimal: ``"0x1000"`` in JSON, ``0x1000`` in ``repr``; also each of several."""
    SIZE = "size"
    """bytes: a number in JSON, human-readable in tables and ``repr`` where asked for."""
    HIDDEN = "hidden"
    """Not at all, and not compared: drgn objects, indexes."""


def shown(
    show: Show = Show.PLAIN,
    *,
    key: str | None = None,
    optional: bool = False,
    json: Callable[[Any], Any] | bool = True,
    default: Any = dataclasses.MISSING,
    default_factory: Any = dataclasses.MISSING,
) -> Any:
    """
    Declare how a field of a :class:`Record` is shown.

    :param key: Its key in JSON, if that is not its name.
    :param optional: Left out of JSON where it is None.
    :param json: Function that makes its JSON value; False leaves it out of JSON.
    """
    hidden = show is Show.HIDDEN
    metadata = {"show": show, "key": key, "optional": optional, "json": False if hidden else json}
    options: dict[str, Any] = {"metadata": metadata, "compare": not hidden, "repr": not hidden}
    if default is not dataclasses.MISSING:
        options["default"] = default
    if default_factory is not dataclasses.MISSING:
        options["default_factory"] = default_factory
    return dataclasses.field(**options)


def _hexadecimal(value: Any) -> Any:
    if isinstance(value, int):
        return f"{value:#x}"
    if isinstance(value, (tuple, list)):
        return [_hexadecimal(item) for item in value]
    return value


def _python(value: Any, address: bool) -> str:
    """Python text of a value, which can be pasted."""
    if isinstance(value, enum.Enum):
        single = value.name is not None and "|" not in value.name
        return f"{type(value).__name__}" + (f".{value.name}" if single else f"({value.value!r})")
    if type(value) in (list, tuple):
        items = ", ".join(_python(item, address) for item in value)
        if type(value) is list:
            return f"[{items}]"
        return f"({items},)" if len(value) == 1 else f"({items})"
    if type(value) is dict:
        pairs = (f"{_python(k, False)}: {_python(v, address)}" for k, v in value.items())
        return f"{{{', '.join(pairs)}}}"
    return f"{value:#x}" if address and type(value) is int else repr(value)


_PLAIN = frozenset((str, int, bool, float))


def to_json(value: Any) -> Any:
    """The JSON value of a record, an enum, or a container of them."""
    if value is None or type(value) in _PLAIN:
        return value
    if hasattr(value, "to_json"):
        return to_json(value.to_json())
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {
            key.value if isinstance(key, enum.Enum) else key: to_json(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


@dataclass_transform(
    kw_only_default=True, frozen_default=True, field_specifiers=(shown, dataclasses.field)
)
class Record:
    """Base of all records: a subclass is a frozen dataclass with keyword-only fields."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # Made below, and not compiled for every class: a command imports sixty of them.
        dataclasses.dataclass(frozen=True, kw_only=True, repr=False, eq=False, match_args=False)(
            cls
        )

    def _compared(self) -> tuple[Any, ...]:
        names = type(self).__dict__.get("_compared_names")
        if names is None:
            own = dataclasses.fields(self)  # type: ignore[arg-type]
            names = tuple(item.name for item in own if item.compare)
            type.__setattr__(type(self), "_compared_names", names)
        return tuple([getattr(self, name) for name in names])

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self is other or self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash(self._compared())

    def to_json(self) -> dict[str, Any]:
        """Its fields as JSON has them; a record with other keys overrides this."""
        values: dict[str, Any] = {}
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            convert = item.metadata.get("json", True)
            value = getattr(self, item.name)
            if convert is False or (value is None and item.metadata.get("optional")):
                continue
            if callable(convert):
                value = convert(value)
            elif item.metadata.get("show") is Show.ADDRESS:
                value = _hexadecimal(value)
            values[item.metadata.get("key") or item.name] = to_json(value)
        return values

    def _shown(self) -> list[tuple[str, str]]:
        pairs = []
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            if not item.repr:
                continue
            address = item.metadata.get("show") is Show.ADDRESS
            pairs.append((item.name, _python(getattr(self, item.name), address)))
        return pairs

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{n}={t}' for n, t in self._shown())})"

    def _repr_html_(self) -> str:
        """As a table, for notebooks."""
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>"
            for name, text in self._shown()
        )
        return f"<table><caption>{html.escape(type(self).__name__)}</caption>{rows}</table>"

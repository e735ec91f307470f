# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes docs/api.md from the docstrings of the public names: ``make docs``."""

import ast
import dataclasses
import enum
import inspect
from pathlib import Path
import re
import textwrap
import typing
from typing import Any

import drgn_pmem


def main() -> None:
    """Write the reference beside this file."""
    (Path(__file__).parent / "api.md").write_text(reference())


def reference() -> str:
    """The reference of the public API, Markdown."""
    parts = [
        "# Python API",
        "Written by `make docs` from the docstrings. Everything that a command answers is a "
        "function of `drgn_pmem`: `from drgn_pmem import *` gives them all, and `--drgn` prints "
        "those that a command uses. `prog` is a `drgn.Program`, from `drgn_pmem.open()` or drgn's "
        "own.",
        "A function that may find only a part returns a `Partial`: a loop over it yields what was "
        "found and raises `Incomplete` at the end if that is not all.",
    ]
    values = {name: getattr(drgn_pmem, name) for name in drgn_pmem.__all__}
    for title, modules in drgn_pmem._GROUPS.items():
        parts.append(f"## {title}")
        for names in modules.values():
            parts += [_entry(name, values[name]) for name in names]
    parts.append("## Records")
    parts.append("What the functions give. Addresses are integers, shown in hexadecimal.")
    public = set(values.values())
    records = sorted(_records(values.values()) - public, key=lambda record: record.__name__)
    parts += [_entry(record.__name__, record) for record in records]
    return "\n\n".join(parts) + "\n"


def _entry(name: str, value: Any) -> str:
    parts = [f"### {name}"]
    if inspect.isfunction(value):
        parts.append(f"```python\n{_signature(name, value)}\n```")
    parts.append(_markdown(inspect.getdoc(value) or ""))
    if inspect.isclass(value):
        parts.append(_members(value))
    return "\n\n".join(part for part in parts if part)


def _signature(name: str, function: Any) -> str:
    signature = inspect.signature(function)
    words = [_plain(str(parameter)) for parameter in signature.parameters.values()]
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    if inspect.Parameter.KEYWORD_ONLY in kinds:
        words.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    given = "" if signature.return_annotation is signature.empty else signature.return_annotation
    result = f" -> {_type(given)}" if given != "" else ""
    line = f"{name}({', '.join(words)}){result}"
    if len(line) <= 100:
        return line
    return f"{name}(\n" + "".join(f"    {word},\n" for word in words) + f"){result}"


def _type(annotation: Any) -> str:
    if annotation is None:
        return "None"
    if isinstance(annotation, str):
        return _plain(annotation)
    if inspect.isclass(annotation) and not typing.get_args(annotation):
        return annotation.__name__
    return _plain(str(annotation))


def _plain(text: str) -> str:
    """An annotation without the modules of its names."""
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z])", "", text).replace("'", "")


def _members(value: type) -> str:
    """A class's fields, or the values of an enum, with what the lines below them say."""
    said = _documented(value)
    if issubclass(value, enum.Enum):
        rows = [f"| `{item.name}` | {_cell(said.get(item.name, ''))} |" for item in value]
        return "\n".join(["| value | meaning |", "|---|---|", *rows])
    if not dataclasses.is_dataclass(value):
        return ""
    rows = [
        f"| `{item.name}` | `{_cell(_type(item.type))}` | {_cell(said.get(item.name, ''))} |"
        for item in dataclasses.fields(value)
        if not item.name.startswith("_")
    ]
    rows += [
        f"| `{name}` | property | {_cell(_first(inspect.getdoc(member) or ''))} |"
        for name, member in inspect.getmembers(value, lambda m: isinstance(m, property))
        if not name.startswith("_")
    ]
    return "\n".join(["| field | type | meaning |", "|---|---|---|", *rows]) if rows else ""


def _documented(value: type) -> dict[str, str]:
    """Names that a class assigns -> the string below each."""
    said: dict[str, str] = {}
    for each in reversed([c for c in value.__mro__ if c.__module__.startswith("drgn_pmem")]):
        body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0]
        assert isinstance(body, ast.ClassDef)
        name = None
        for statement in body.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                name = statement.target.id
            elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                name = statement.targets[0].id
            elif (
                name is not None
                and isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            ):
                said[name] = _inline(" ".join(statement.value.value.split()))
                name = None
            else:
                name = None
    return said


def _records(values: Any) -> set[type]:
    """Dataclasses and enums of this package that functions return, and those in their fields."""
    found: set[type] = set()
    wanted = [value for value in values if inspect.isfunction(value) or inspect.isclass(value)]
    while wanted:
        value = wanted.pop()
        for annotation in _annotations(value):
            for kind in _classes(annotation):
                if kind not in found:
                    found.add(kind)
                    wanted.append(kind)
    return found


def _annotations(value: Any) -> list[Any]:
    """Types of a record's fields, or that of what a function returns; none that cannot be resolved
    without importing what only type checkers import."""
    if inspect.isclass(value) and not dataclasses.is_dataclass(value):
        return []
    try:
        hints = typing.get_type_hints(value)
    except NameError:
        return []
    return list(hints.values()) if inspect.isclass(value) else [hints.get("return")]


def _classes(annotation: Any) -> list[type]:
    arguments = typing.get_args(annotation)
    if arguments:
        return [kind for argument in arguments for kind in _classes(argument)]
    ours = inspect.isclass(annotation) and annotation.__module__.startswith("drgn_pmem")
    shown = ours and (dataclasses.is_dataclass(annotation) or issubclass(annotation, enum.Enum))
    return [annotation] if shown else []


def _markdown(text: str) -> str:
    """A docstring: reST's roles, fields and examples as Markdown."""
    blocks: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        if block.lstrip().startswith(">>> "):
            blocks.append(f"```pycon\n{textwrap.dedent(block)}\n```")
        elif block.startswith("    "):
            blocks.append(f"```python\n{textwrap.dedent(block)}\n```")
        elif block.startswith(":"):
            blocks.append(_fields(block))
        else:
            line = " ".join(block.split())
            blocks.append(_inline(line[:-1] if line.endswith("::") else line))
    return "\n\n".join(blocks)


def _fields(block: str) -> str:
    """``:param x:`` and the like, a line each."""
    items = [" ".join(item.split()) for item in re.split(r"\n(?=:)", block)]
    lines = []
    for item in items:
        match = re.match(r":(param|return|raises)(?: (\w+))?: ?(.*)", item)
        assert match is not None, item
        kind, name, what = match.groups()
        label = {"param": f"`{name}`", "return": "Returns", "raises": f"Raises `{name}`"}[kind]
        lines.append(f"- {label}: {_inline(what)}")
    return "\n".join(lines)


def _inline(text: str) -> str:
    text = re.sub(r":[a-z:]+:`~?(?:[\w.]*\.)?(\w+(?:\(\))?)`", r"`\1`", text)
    return text.replace("``", "`")


def _first(text: str) -> str:
    return _inline(" ".join(text.split("\n\n")[0].split()))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()

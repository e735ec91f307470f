# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Unknown is never nothing, held by the shape of the source: an error that is caught becomes a
problem of the answer (:mod:`drgn_pmem.partial`) or is raised again, and nothing else says that an
answer is incomplete.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MODULES = sorted(
    path
    for folder in ("drgn_pmem/kernel", "drgn_pmem/analysis", "drgn_pmem/dumpfile", "commands")
    for path in (ROOT / folder).rglob("*.py")
)

REASON = "# not a problem: "
"""A handler that may answer with nothing says why in a comment that begins so."""


def _answers_nothing(statement: ast.stmt) -> bool:
    """Whether a statement passes, continues or answers a constant, an empty list and the like."""
    if isinstance(statement, (ast.Pass, ast.Continue, ast.Break)):
        return True
    if not isinstance(statement, ast.Return):
        return False
    value = statement.value
    return (
        value is None
        or isinstance(value, ast.Constant)
        or (isinstance(value, (ast.List, ast.Tuple, ast.Set)) and not value.elts)
        or (isinstance(value, ast.Dict) and not value.keys)
    )


def _ends_an_iterator(handler: ast.ExceptHandler) -> bool:
    return isinstance(handler.type, ast.Name) and handler.type.id == "StopIteration"


def _silent_handlers(tree: ast.AST, lines: list[str]) -> Iterator[int]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.ExceptHandler) or _ends_an_iterator(node):
            continue
        if all(map(_answers_nothing, node.body)):
            end = node.body[-1].end_lineno or node.lineno
            if not any(REASON in line for line in lines[node.lineno - 1 : end]):
                yield node.lineno


def _suppressed(tree: ast.AST, lines: list[str]) -> Iterator[int]:
    """``contextlib.suppress(...)`` without a reason beside it."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.With):
            continue
        called = (item.context_expr for item in node.items)
        names = [ast.unparse(c.func) for c in called if isinstance(c, ast.Call)]
        around = lines[max(node.lineno - 2, 0) : node.body[0].lineno]
        if any(n.endswith("suppress") for n in names) and not any(REASON in x for x in around):
            yield node.lineno


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_error_is_suppressed(path: Path) -> None:
    source = path.read_text()
    found = list(_suppressed(ast.parse(source), source.splitlines()))
    assert not found, f"{path.relative_to(ROOT)}: errors are suppressed in lines {found}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_error_is_swallowed(path: Path) -> None:
    source = path.read_text()
    silent = list(_silent_handlers(ast.parse(source), source.splitlines()))
    assert not silent, f"{path.relative_to(ROOT)}: errors are swallowed in lines {silent}"


def _optional_problems(tree: ast.AST) -> Iterator[int]:
    """Lists of words, and parameters that a caller may leave out."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            arguments = node.args
            plain = arguments.args[len(arguments.args) - len(arguments.defaults) :]
            keyword = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
            optional = [*plain, *(a for a, default in keyword if default is not None)]
            yield from (a.lineno for a in optional if a.arg in ("problems", "lacks"))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            words = ast.unparse(node.annotation)
            if node.target.id in ("problems", "lacks") and "str" in words:
                yield node.lineno


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_else_says_that_an_answer_is_incomplete(path: Path) -> None:
    other = list(_optional_problems(ast.parse(path.read_text())))
    assert not other, f"{path.relative_to(ROOT)}: not a Problems or Partial in lines {other}"


def _lost_problems(tree: ast.AST, lines: list[str]) -> Iterator[int]:
    """Values of a Partial that are taken without its problems: ``Problems().take(...)`` throws them
    away, ``partial._value`` passes by them. (``partial.value`` does not exist for mypy: see
    ``PRODUCT_CODE`` in partial.py, and the test below.)"""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        base = node.value
        fresh = (
            isinstance(base, ast.Call)
            and isinstance(base.func, ast.Name)
            and base.func.id == "Problems"
        )
        inside = node.attr == "_value" and not (isinstance(base, ast.Name) and base.id == "self")
        if (fresh or inside) and not any(
            REASON in line for line in lines[max(node.lineno - 2, 0) : node.lineno]
        ):
            yield node.lineno


GATHER = {"add", "attempt", "collect", "extend", "find", "take", "trying", "until_interrupted"}


def _gathered_for_nothing(tree: ast.AST) -> Iterator[int]:
    """A ``Problems()`` in which a function gathers what it then neither returns nor looks at."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        made, read = dict[str, int](), set[str]()
        gathering = set[ast.AST]()
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and ast.unparse(node.value) == "Problems()":
                made[ast.unparse(node.targets[0])] = node.lineno
            elif isinstance(node, ast.Attribute) and node.attr in GATHER:
                gathering.add(node.value)
        for node in ast.walk(function):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                read |= {node.id} if node not in gathering else set()
        yield from (line for name, line in made.items() if name.isidentifier() and name not in read)


EVERYWHERE = sorted(
    path
    for folder in ("drgn_pmem", "commands")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "partial.py"
)


@pytest.mark.parametrize("path", EVERYWHERE, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_value_is_taken_without_its_problems(path: Path) -> None:
    source = path.read_text()
    tree = ast.parse(source)
    lost = [*_lost_problems(tree, source.splitlines()), *_gathered_for_nothing(tree)]
    assert not lost, f"{path.relative_to(ROOT)}: problems are lost in lines {lost}"


def test_mypy_knows_no_value_of_a_partial() -> None:
    """make lint then fails wherever the package reads Partial.value."""
    (partial,) = (
        node
        for node in ast.parse((ROOT / "drgn_pmem/partial.py").read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == "Partial"
    )
    always = {
        name.id if isinstance(name, ast.Name) else name.name
        for node in partial.body
        for name in (node, getattr(node, "target", None))
        if isinstance(name, (ast.Name, ast.FunctionDef))
    }
    assert "value" not in always
    (hidden,) = (node for node in partial.body if isinstance(node, ast.If))
    assert ast.unparse(hidden.test) == "not PRODUCT_CODE"
    assert 'always_true = ["PRODUCT_CODE"]' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("source", "lost"),
    [
        ("x = Problems().take(f())", True),
        ("x = Problems().attempt('', f)", True),
        ("x = f()._value", True),
        ("x = problems.take(f())", False),
        ("# not a problem: they are taken above\nx = Problems().take(f())", False),
    ],
)
def test_the_rule_sees_lost_problems(source: str, lost: bool) -> None:
    assert bool(list(_lost_problems(ast.parse(source), source.splitlines()))) is lost


@pytest.mark.parametrize(
    ("end", "lost"),
    [
        ("return x", True),
        ("return problems.partial(x)", False),
        ("return x if problems else None", False),
        ("return g(x, problems)", False),
    ],
)
def test_the_rule_sees_what_is_gathered_for_nothing(end: str, lost: bool) -> None:
    source = f"def f():\n    problems = Problems()\n    x = problems.take(h())\n    {end}"
    assert bool(list(_gathered_for_nothing(ast.parse(source)))) is lost


@pytest.mark.parametrize(
    ("source", "silent"),
    [
        ("with suppress(E):\n    f()", True),
        ("with a, contextlib.suppress(E):\n    f()", True),
        ("# not a problem: b\nwith suppress(E):\n    f()", False),
    ],
)
def test_the_rule_sees_suppressed_errors(source: str, silent: bool) -> None:
    assert bool(list(_suppressed(ast.parse(source), source.splitlines()))) is silent


@pytest.mark.parametrize(
    ("source", "silent"),
    [
        ("try:\n    f()\nexcept E:\n    pass", True),
        ("try:\n    f()\nexcept E:\n    return []", True),
        ("try:\n    f()\nexcept E:\n    return None", True),
        ("try:\n    f()\nexcept E as error:\n    problems.add(error)", False),
        ("try:\n    f()\nexcept E as error:\n    raise F from error", False),
        ("try:\n    f()\nexcept E:  # not a problem: asked for by name\n    pass", False),
    ],
)
def test_the_rule_sees_what_it_is_for(source: str, silent: bool) -> None:
    body = source
    if "return" in source:
        body = "def g():\n" + "".join(f"    {line}\n" for line in source.splitlines())
    assert bool(list(_silent_handlers(ast.parse(body), body.splitlines()))) is silent

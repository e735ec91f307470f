# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Answers that may be incomplete
------------------------------

Unknown is never nothing. A dump may lack any byte, so a walk may find only a part, and its caller
must know. There is one way to say so: a function that may find only a part
returns :class:`Partial`, what it found together with every :class:`Problem` it met.

A function that uses several of them gathers their problems in a :class:`Problems`, the only place
from which it gets their values, and returns a :class:`Partial` itself::

    def files_of(prog: Program) -> Partial[list[File]]:
        problems = Problems()
        tasks = problems.take(tasks_of(prog))
        files = []
        for task in tasks:
            with problems.trying(f"descriptors of {task.pid}"):
                files += read_files(prog, task)
        return problems.partial(files)

In a script, a plain loop is enough: ``for task in tasks_of(prog)`` yields what was found and then
raises :class:`Incomplete` if that is not all.
"""

from collections.abc import Callable, Iterable, Iterator
import contextlib
from dataclasses import dataclass, field, replace
import enum
from typing import Any, Generic, TypeVar, cast

from drgn import FaultError, Object, ObjectNotFoundError

from drgn_pmem.errors import MissingDebugInfo, NotFound, NotInKernel, PmemError, UsageError

__all__ = (
    "Cause",
    "Incomplete",
    "NotSaved",
    "Partial",
    "Problem",
    "Problems",
    "State",
    "WalkError",
    "few_of_a_kind",
    "is_of_dump",
)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")


class State(enum.Enum):
    """Whether bytes of memory are in a dump."""

    SAVED = "saved"
    """The bytes are in the dump file."""
    EXCLUDED = "excluded"
    """The dump covers the address but left the bytes out: zero or filtered, which cannot be
    determined."""
    ABSENT = "absent"
    """No segment or bitmap of the dump covers the address."""
    TRUNCATED = "truncated"
    """The headers describe the bytes, the file ends before them."""
    UNMAPPED = "unmapped"
    """The kernel's page tables, read in full from a verified root, do not map the virtual
    address (never the state of a physical address)."""
    DAMAGED = "damaged"
    """The file's own entry for the page cannot be right, so the page cannot be found in it."""
    UNKNOWN = "unknown"
    """Where a virtual address is in physical memory cannot be determined, for another reason than a
    page table in one of the states above (never the state of a physical address)."""


_CAUGHT = (PmemError, FaultError, LookupError, AttributeError, NotImplementedError)
"""What a read of a dump may raise, if :func:`is_of_dump`."""


def is_of_dump(error: BaseException) -> bool:
    """
    Whether an error is about the dump, not a mistake in this package. For a member that the
    kernel's structure does not have, drgn raises AttributeError, or LookupError itself (none of its
    subclasses); for page tables that it cannot walk, NotImplementedError.
    """
    if isinstance(error, AttributeError):
        return isinstance(error.obj, Object)
    return isinstance(error, (PmemError, FaultError, ObjectNotFoundError)) or (
        type(error) in (LookupError, NotImplementedError)
    )


class Cause(enum.Enum):
    """Why a part of an answer is missing."""

    NOT_SAVED = "not saved"
    """Bytes that the dump does not hold."""
    DAMAGED = "damaged"
    """Bytes that are saved and cannot be what the kernel wrote: a cyclic list, a wild pointer, an
    implausible count."""
    LIMIT = "limit"
    """A limit of drgn-pmem was reached."""
    NO_DEBUG_INFO = "no debug info"
    """Debug info of the kernel or of a module is not loaded."""
    NOT_IN_KERNEL = "not in this kernel"
    """The crashed kernel has no such type, member or variable."""
    UNSUPPORTED = "unsupported"
    """It exists, and neither drgn nor drgn-pmem can read it (an architecture, a format)."""
    INTERRUPTED = "interrupted"
    """The user pressed Ctrl-C."""
    NOT_FOUND = "not found"
    """What was asked for is not there, or names nothing: the dump is not at fault."""
    FORMAT = "format"
    """No dump of this kind can hold it, so its absence does not make an answer incomplete."""


class WalkError(PmemError):
    """A walk that could not continue; what it found before is valid."""


class NotSaved(WalkError):
    """
    Bytes that the dump does not hold.

    :param address: Where: a virtual or physical address; None if it is in the message only.
    :param state: In which way; None if that could not be determined.
    """

    def __init__(
        self, message: str, *, address: int | None = None, state: State | None = None
    ) -> None:
        super().__init__(message)
        self.address = address
        self.state = state


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that an answer lacks, and why."""

    cause: Cause
    why: str
    """For the user. Decisions depend on :attr:`cause`, never on this."""
    what: str = ""
    """What was read: ``"the task list"``; empty if :attr:`why` says it."""
    state: State | None = None
    """For :attr:`Cause.NOT_SAVED`: in which way, if known."""
    module: str | None = None
    """For :attr:`Cause.NO_DEBUG_INFO`: the kernel module, ``"vmlinux"`` for the kernel itself."""
    query: str | None = None
    """What the user typed, where there is no answer to that."""
    subject: str | None = None
    """The namespace that alone lacks something, by its device name; None if that is not known."""

    def __str__(self) -> str:
        return f"{self.what}: {self.why}" if self.what else self.why

    @property
    def degrades(self) -> bool:
        """Whether it makes an answer incomplete."""
        return self.cause is not Cause.FORMAT

    def about(self, what: str, subject: str | None = None) -> "Problem":
        """The same problem as part of something larger."""
        what = ": ".join(filter(None, (what, self.what)))
        return replace(self, what=what, subject=self.subject or subject)

    @classmethod
    def of(cls, error: BaseException, what: str = "") -> "Problem":
        """
        The problem that an error describes.

        :param error: A :class:`~drgn_pmem.errors.PmemError`, or what drgn raises for memory, a
            variable or a member that is not there.
        """
        if isinstance(error, MissingDebugInfo):
            cause = Cause.NO_DEBUG_INFO if error.module is not None else Cause.NOT_IN_KERNEL
            return cls(cause=cause, why=str(error), what=what, module=error.module)
        if isinstance(error, NotSaved):
            return cls(cause=Cause.NOT_SAVED, why=str(error), what=what, state=error.state)
        if isinstance(error, FaultError):
            return cls(cause=Cause.NOT_SAVED, why=str(error), what=what)
        if isinstance(error, ObjectNotFoundError):
            return cls(cause=Cause.NOT_IN_KERNEL, why=f"this kernel has no {error.name}", what=what)
        if isinstance(error, AttributeError) or type(error) is LookupError:
            return cls(cause=Cause.NOT_IN_KERNEL, why=f"this kernel's {error}", what=what)
        if isinstance(error, NotImplementedError):
            return cls(cause=Cause.UNSUPPORTED, why=f"drgn cannot: {error}", what=what)
        if isinstance(error, KeyboardInterrupt):
            return cls(cause=Cause.INTERRUPTED, why="interrupted", what=what)
        if isinstance(error, (NotFound, UsageError)):
            return cls(cause=Cause.NOT_FOUND, why=str(error), what=what)
        return cls(cause=Cause.DAMAGED, why=str(error), what=what)


class Incomplete(WalkError):
    """
    Not all that was asked for could be read.

    :param problems: Why.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems]
        others = len(lines) - 1
        more = f" (and {others} more problem{'s' * (others > 1)})" if others > 0 else ""
        super().__init__((lines[0] if lines else "incomplete") + more)


PRODUCT_CODE = False
"""True for mypy of this package (``always_true`` in pyproject.toml), which then knows no
:attr:`Partial.value`: its code must use :meth:`Problems.take`, so that no problem is lost."""


@dataclass(frozen=True, repr=False)
class Partial(Generic[T_co]):
    """
    What was found, and what is missing from it.

    ``for record in partial`` yields the records found, then raises :class:`Incomplete` if there are
    more that could not be read: a plain loop cannot mistake a part for the whole.
    """

    _value: T_co
    problems: tuple[Problem, ...] = ()

    if not PRODUCT_CODE:

        @property
        def value(self) -> T_co:
            """What was found."""
            return self._value

    def __repr__(self) -> str:
        return f"Partial({self._value!r}, problems={self.problems!r})"

    @property
    def complete(self) -> bool:
        """Whether :attr:`value` is all there is."""
        return not any(problem.degrades for problem in self.problems)

    def whole(self) -> T_co:
        """
        The value where it is complete.

        :raises Incomplete: where it is not
        """
        if not self.complete:
            raise Incomplete(problem for problem in self.problems if problem.degrades)
        return self._value

    def __iter__(self) -> Iterator[Any]:
        yield from cast("Iterable[Any]", self._value)
        self.whole()

    def map(self, function: Callable[[T_co], U]) -> "Partial[U]":
        """The same problems with another value."""
        return Partial(function(self._value), self.problems)


_MAX_PROBLEMS = 50
"""Problems of one answer that are named one by one: a dump may lack a million inodes."""


def _few(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    """The first problems, Ctrl-C and then those that make the answer incomplete before the others,
    and how many more there are. Each input of the user that has no answer is named."""
    if len(problems) <= _MAX_PROBLEMS:
        return problems
    if inputs := tuple(problem for problem in problems if problem.query is not None):
        return (*inputs, *_few(tuple(p for p in problems if p.query is None)))
    ordered = sorted(problems, key=lambda p: (p.cause is not Cause.INTERRUPTED, not p.degrades))
    rest = ordered[_MAX_PROBLEMS:]
    more = Problem(cause=rest[0].cause, why=f"and {len(rest)} more problems")
    return (*ordered[:_MAX_PROBLEMS], more)


_FIRST, _NAMED = 4, 16
"""Problems of one kind that are shown, and further ones that are named."""


def few_of_a_kind(problems: Iterable[Problem]) -> Iterator[Problem]:
    """Of many problems of one kind, the first and how many more."""
    kinds: dict[object, list[Problem]] = {}
    for problem in problems:
        kinds.setdefault((problem.cause, problem.state, problem.module), []).append(problem)
    for same in kinds.values():
        yield from same[:_FIRST]
        if len(same) > _FIRST:
            rest = list(dict.fromkeys(p.query or p.what or p.why.split()[0] for p in same[_FIRST:]))
            names = ", ".join(rest[:_NAMED]) + (", ..." if len(rest) > _NAMED else "")
            why = f"{len(rest)} more of this kind: {names}"
            yield replace(same[0], what="", why=why, query=None)


@dataclass
class Problems:
    """What an answer lacks, gathered while the answer is made. A problem counts once."""

    _problems: dict[Problem, None] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Problem]:
        return iter(tuple(self._problems))

    def __len__(self) -> int:
        return len(self._problems)

    def __bool__(self) -> bool:
        """Whether anything is missing."""
        return any(problem.degrades for problem in self._problems)

    def add(
        self, problem: "Problem | BaseException", what: str = "", subject: str | None = None
    ) -> None:
        """
        Note a problem, or the one that an error describes.

        What the crashed kernel did not have at all (:class:`~drgn_pmem.errors.NotInKernel`) is not
        a problem: then there was none of it.

        :param what: What could not be read.
        :param subject: :attr:`Problem.subject`
        """
        if isinstance(problem, NotInKernel):
            return
        if isinstance(problem, Incomplete):
            self.extend(problem.problems, what, subject)
        elif isinstance(problem, Problem):
            self._problems.setdefault(problem.about(what, subject) if what or subject else problem)
        else:
            self._problems.setdefault(Problem.of(problem).about(what, subject))

    def extend(
        self, problems: Iterable[Problem], what: str = "", subject: str | None = None
    ) -> None:
        """Note several problems."""
        for problem in problems:
            self.add(problem, what, subject)

    def take(self, partial: "Partial[T]", what: str = "", subject: str | None = None) -> T:
        """
        The value of a :class:`Partial`; its problems become this answer's.

        :param what: What it is part of, for the messages.
        :param subject: :attr:`Problem.subject`
        """
        self.extend(partial.problems, what, subject)
        return partial._value

    def find(self, partial: "Partial[T | None]", what: str = "") -> T | None:
        """
        What was searched for. Where it was found that is certain, and what could not be read
        does not matter; otherwise its problems become this answer's.

        :param partial: The result of the search, None if nothing was found.
        :param what: What it is part of, for the messages.
        """
        return partial._value if partial._value is not None else self.take(partial, what)

    @contextlib.contextmanager
    def trying(self, what: str, subject: str | None = None) -> Iterator[None]:
        """
        A block that may fail because of the dump: the error becomes a problem, the rest of the
        block is skipped.

        :param what: What the block reads.
        :param subject: :attr:`Problem.subject`
        """
        try:
            yield
        except _CAUGHT as error:
            if not is_of_dump(error):
                raise
            self.add(error, what, subject)

    def attempt(self, what: str, read: Callable[[], T]) -> T | None:
        """One value, or None and a problem."""
        with self.trying(what):
            return read()
        return None

    def collect(self, entries: Iterable[T], what: str = "") -> list[T]:
        """All entries of a walk, or those that it yields until it fails."""
        found: list[T] = []
        with self.trying(what):
            for entry in entries:
                found.append(entry)
        return found

    def until_interrupted(
        self, entries: Iterable[T], what: str, into: list[T] | None = None
    ) -> list[T]:
        """
        All entries, or those until the user presses Ctrl-C: what was found is kept.

        :param what: What was not finished.
        :param into: List to add them to; a new one if None.
        """
        found: list[T] = [] if into is None else into
        try:
            found.extend(entries)
        except KeyboardInterrupt as error:
            self.add(error, what)
        return found

    def partial(self, value: T) -> "Partial[T]":
        """The answer: a value and the problems gathered so far."""
        return Partial(value, _few(tuple(self._problems)))

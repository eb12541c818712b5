"""Every error that aiotrain raises, on one page.

AiotrainError
├── ConfigError             a configuration that cannot work: all its faults at once
├── EnvError                the environment cannot be made, used or trusted
│   ├── UnsupportedSpaceError   its spaces are none that a policy is built for
│   └── InvalidStepError        it returned NaN, a wrong shape or a wrong type
├── CheckpointError         a checkpoint cannot be resumed from, or what was learned cannot be saved
├── CurriculumError         a curriculum's own code failed, or what it returned cannot be saved
├── SharedMemoryError       the ring does not fit, or cannot be created
├── WorkerError             workers die faster than they can be replaced
├── DivergenceError         the policy's parameters are no longer finite
└── TrainerStateError       a trainer is used before it is open, after it is closed, or by two tasks at once

Each carries a message and, where they are known, worker, episode, seed and step. All of these survive pickling, and so
the way from a worker to the main process.
Below them stands what settings check and explain themselves with: `Faults` collects their faults, `unknown_name`
suggests the nearest names, `is_of` checks a type, `documented` has ``help`` tell what each field means.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "AiotrainError",
    "CheckpointError",
    "ConfigError",
    "CurriculumError",
    "DivergenceError",
    "EnvError",
    "Faults",
    "InvalidStepError",
    "SharedMemoryError",
    "TrainerStateError",
    "UnsupportedSpaceError",
    "WorkerError",
    "documented",
    "is_of",
    "unknown_name",
]


class AiotrainError(Exception):
    """The base of every error that aiotrain raises on purpose. The fields say where; None if unknown or nowhere."""

    def __init__(
        self,
        *message: object,
        worker: int | None = None,
        episode: int | None = None,
        seed: int | None = None,
        step: int | None = None,
    ) -> None:
        super().__init__(*message)
        self.worker = worker
        """Number of the worker, from 0."""
        self.episode = episode
        """Number of the episode in the run, from 0."""
        self.seed = seed
        """Seed that the episode was reset with."""
        self.step = step
        """Number of the episode's last step that returned, from 1; 0 before the first."""


class ConfigError(AiotrainError, ValueError):
    """A configuration that cannot work; the message lists every fault found."""

    @classmethod
    def of(cls, faults: Sequence[str]) -> ConfigError:
        """One error for all ``faults``, a line each."""
        if len(faults) == 1:
            return cls(faults[0])
        return cls("\n".join([f"{len(faults)} settings cannot work:", *(f"  - {fault}" for fault in faults)]))


class EnvError(AiotrainError):
    """The environment cannot be made, used or trusted; the message holds the worker's traceback."""


class UnsupportedSpaceError(EnvError, ConfigError):
    """An observation or action space that no policy here is built for."""


class InvalidStepError(EnvError):
    """The environment returned NaN, a wrong shape or a wrong type; says worker, episode, seed and step."""


class CheckpointError(AiotrainError):
    """A checkpoint cannot be resumed from, or what was learned cannot be saved; says which file and why."""


class CurriculumError(AiotrainError):
    """A curriculum's own code failed, or what it returned cannot be saved; says which class and method."""


class SharedMemoryError(AiotrainError):
    """Shared memory is too small or out of reach; says the bytes needed and free, and what to change."""


class WorkerError(AiotrainError):
    """No worker can be kept alive; says how the last ones died."""


class DivergenceError(AiotrainError):
    """The policy's parameters are no longer finite; says after which update, and what to change."""


class TrainerStateError(AiotrainError):
    """A trainer used before it is open, after it is closed, or by two tasks at once."""


_MOST_NAMES = 30  # that a message lists


def unknown_name(what: str, name: object, known: Sequence[str]) -> str:
    """Say that no ``what`` is called ``name``; suggest the nearest names, and list all ``known`` ones if they are few.

    The sentence ends with its full stop or question mark.
    """
    lowered = {candidate.lower(): candidate for candidate in known}
    near = get_close_matches(str(name).lower(), lowered, n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(lowered[word] for word in near)}?" if near else "."
    return f"unknown {what} {name!r}{hint}" + (f" There are: {', '.join(known)}." if len(known) <= _MOST_NAMES else "")


_Kind = TypeVar("_Kind", bound=type)


def documented(kind: _Kind) -> _Kind:
    """Append the docstrings of a dataclass's fields to its own, as a section Attributes, for ``help``.

    A field's docstring is the string literal after it, which Python itself drops. Fields of base classes come first.
    """
    lines = []
    for each in reversed(kind.__mro__):
        if dataclasses.is_dataclass(each):
            for name, text in _field_docstrings(each).items():
                lines.append(textwrap.indent(f"{name}: {text}", "    " * 2).replace("    ", "", 1))
    kind.__doc__ = f"{inspect.cleandoc(kind.__doc__ or '')}\n\nAttributes:\n" + "\n".join(lines)
    return kind


def _field_docstrings(kind: type) -> dict[str, str]:
    """Return the docstrings of the fields that a dataclass itself declares; none where there is no source."""
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except OSError:
        return {}
    found = {}
    for field, after in itertools.pairwise(definition.body if isinstance(definition, ast.ClassDef) else []):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(after, ast.Expr):
            text = after.value.value if isinstance(after.value, ast.Constant) else None
            if isinstance(text, str):
                found[field.target.id] = inspect.cleandoc(text)
    return found


class Faults:
    """Collects the faults of a settings dataclass, a sentence each, which names the setting by its flag.

    The checks of values accept None: where the declared type does not allow it, `of_right_type` finds that fault.
    They compare values, so that they need the right types: run them only if `of_right_type` returned True.
    """

    def __init__(self, settings: DataclassInstance) -> None:
        self._settings = settings
        self.found: list[str] = []

    def check(self, holds: bool, sentence: str) -> None:
        """Add ``sentence`` unless ``holds``."""
        if not holds:
            self.found.append(sentence)

    def positive(self, name: str) -> None:
        """Check that a number, or each of a tuple of numbers, is above 0."""
        value = getattr(self._settings, name)
        values = value if isinstance(value, tuple) else (value,)
        holds = value is None or all(each > 0 for each in values)
        self.check(holds, f"{_flag(name)} must be positive, not {_shown(value)}")

    def not_negative(self, name: str) -> None:
        """Check that a number is 0 or above."""
        value = getattr(self._settings, name)
        self.check(value is None or value >= 0, f"{_flag(name)} cannot be negative ({_shown(value)})")

    def at_least(self, name: str, least: int) -> None:
        """Check that a number is not below ``least``."""
        value = getattr(self._settings, name)
        self.check(value is None or value >= least, f"{_flag(name)} must be at least {least}, not {_shown(value)}")

    def between(self, name: str, low: float, high: float) -> None:
        """Check that a number is not below ``low`` and not above ``high``."""
        value = getattr(self._settings, name)
        holds = value is None or low <= value <= high
        self.check(holds, f"{_flag(name)} must lie between {low} and {high}, not at {_shown(value)}")

    def finite(self) -> bool:
        """Check that no number is infinite or NaN; return whether none is."""
        before = len(self.found)
        for each in dataclasses.fields(self._settings):
            value = getattr(self._settings, each.name)
            holds = not isinstance(value, float) or math.isfinite(value)
            self.check(holds, f"{_flag(each.name)} must be a finite number, not {value}")
        return len(self.found) == before

    def of_right_type(self) -> bool:
        """Check that all settings are of their declared types; return whether they are.

        See `is_of` for the types that are known; a bool is no number.
        """
        before = len(self.found)
        types = get_type_hints(type(self._settings))
        for each in dataclasses.fields(self._settings):
            value = getattr(self._settings, each.name)
            expected = _in_words(types[each.name], each.type)
            sentence = f"{_flag(each.name)} must be {expected}, not {value!r} ({type(value).__name__})"
            self.check(is_of(types[each.name], value), sentence)
        return len(self.found) == before


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _in_words(expected: Any, source: object) -> str:
    """Describe a declared type; ``source`` is how it is written."""
    if get_origin(expected) is Literal:
        return f"one of {', '.join(map(str, get_args(expected)))}"
    return f"of type {source}"


def is_of(expected: Any, value: object) -> bool:
    """Return whether ``value`` is of the type ``expected``, as type checkers see it, but that a bool is no number.

    Known are literals, lists, tuples, mappings, unions and plain classes.
    """
    kind, inner = get_origin(expected) or expected, get_args(expected)
    if kind in (UnionType, Union):
        return any(is_of(each, value) for each in inner)
    if kind is Literal:
        return value in inner
    if isinstance(value, bool):
        return kind in (bool, object)
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        return isinstance(value, tuple) and len(value) == len(inner) and all(map(is_of, inner, value))
    if kind in (list, tuple) and inner:
        return isinstance(value, kind) and all(is_of(inner[0], each) for each in value)
    if kind is Mapping:
        return isinstance(value, Mapping) and all(
            is_of(inner[0], name) and is_of(inner[1], each) for name, each in value.items()
        )
    return isinstance(value, int | float if kind is float else kind)

"""Whether settings are of the types that their dataclass declares; what comes from Python or a file may not be."""

from __future__ import annotations

import dataclasses
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["of_wrong_type"]


def of_wrong_type(settings: DataclassInstance) -> list[str]:
    """The settings that are of another type than declared, a sentence each."""
    types = get_type_hints(type(settings))
    return [
        f"{each.name.replace('_', '-')} must be {_in_words(each, types[each.name])}, "
        f"not {value!r} ({type(value).__name__})"
        for each in dataclasses.fields(settings)
        if not _is_of(types[each.name], value := getattr(settings, each.name))
    ]


def _in_words(each: dataclasses.Field[Any], expected: Any) -> str:
    """A declared type as people read it."""
    if get_origin(expected) is Literal:
        return f"one of {', '.join(map(str, get_args(expected)))}"
    return f"of type {each.type}"


def _is_of(expected: Any, value: Any) -> bool:
    """Whether ``value`` is of the type ``expected``, as type checkers see it but for one thing: bool is no number."""
    kind, inner = get_origin(expected) or expected, get_args(expected)
    if kind in (UnionType, Union):
        return any(_is_of(each, value) for each in inner)
    if kind is Literal:
        return value in inner
    if isinstance(value, bool):
        return kind is bool
    if kind is tuple:
        return isinstance(value, tuple) and all(_is_of(inner[0], each) for each in value)
    return isinstance(value, int | float if kind is float else kind)

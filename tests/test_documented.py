"""``help`` of what aiotrain offers tells what each field means."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

import aiotrain
from aiotrain.cage2 import Cage2, SearchConfig

PUBLIC = {name: getattr(aiotrain, name) for name in aiotrain.__all__ if name != "__version__"}
DATACLASSES = {name: each for name, each in PUBLIC.items() if dataclasses.is_dataclass(each) and name != "Evaluation"}


@pytest.mark.parametrize("kind", [*DATACLASSES.values(), Cage2, SearchConfig], ids=lambda kind: kind.__name__)
def test_help_tells_every_field(kind: type) -> None:
    text = inspect.getdoc(kind) or ""
    untold = [each.name for each in dataclasses.fields(kind) if f"{each.name}: " not in text]
    assert not untold, f"help({kind.__name__}) does not tell {', '.join(untold)}: put a docstring below the field"


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_a_docstring(name: str) -> None:
    documented = inspect.getdoc(PUBLIC[name])
    assert documented, f"aiotrain.{name} has no docstring"
    assert name in dir(aiotrain)

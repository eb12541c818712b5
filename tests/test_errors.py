"""What every error of the package holds, and that none of it is lost between processes."""

from __future__ import annotations

import dataclasses
import math
import pickle
from typing import Any, Literal

import pytest

from aiotrain.errors import AiotrainError, ConfigError, Faults, unknown_name

WHERE = {"worker": 3, "episode": 12, "seed": 99, "step": 0}


def tree(cls: type[AiotrainError]) -> list[type[AiotrainError]]:
    return [cls, *(each for child in cls.__subclasses__() for each in tree(child))]


def where_of(error: AiotrainError) -> dict[str, int | None]:
    return {name: getattr(error, name) for name in WHERE}


@pytest.mark.parametrize("cls", sorted(set(tree(AiotrainError)), key=lambda cls: cls.__name__))
@pytest.mark.parametrize("where", [{}, {"episode": 12}, WHERE])
def test_errors_survive_pickling_with_their_fields(cls: type[AiotrainError], where: dict[str, int]) -> None:
    sent = cls("what happened", **where)
    sent.add_note("in test")
    came = pickle.loads(pickle.dumps(sent))
    assert type(came) is cls
    assert str(came) == "what happened"
    assert where_of(came) == where_of(sent) == dict.fromkeys(WHERE) | where
    assert came.__notes__ == ["in test"]


def test_the_faults_of_a_configuration_come_as_one_error() -> None:
    assert str(ConfigError.of(["a is wrong"])) == "a is wrong"
    assert str(ConfigError.of(["a is wrong", "b too"])) == "2 settings cannot work:\n  - a is wrong\n  - b too"
    assert where_of(ConfigError.of(["a is wrong"])) == dict.fromkeys(WHERE)


@dataclasses.dataclass(frozen=True)
class Settings:
    step_size: float = 0.5
    sizes: tuple[int, ...] = (1, 2)
    limit: int | None = None
    kind: Literal["one", "two"] = "one"


def faults_of(**changes: Any) -> Faults:
    return Faults(Settings(**changes))


def checked_all(**changes: Any) -> list[str]:
    """The faults that every check finds."""
    faults = faults_of(**changes)
    if faults.of_right_type() and faults.finite():
        faults.positive("sizes")
        faults.not_negative("step_size")
        faults.between("step_size", -1, 1)
        faults.at_least("limit", 3)
        faults.positive("limit")
    return faults.found


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"limit": 3, "step_size": 1}, []),
        (
            {"step_size": -2.5},
            ["step-size cannot be negative (-2.5)", "step-size must lie between -1 and 1, not at -2.5"],
        ),
        ({"sizes": (4, 0)}, ["sizes must be positive, not (4, 0)"]),
        ({"limit": 0}, ["limit must be at least 3, not 0", "limit must be positive, not 0"]),
        ({"step_size": math.nan}, ["step-size must be a finite number, not nan"]),
        (
            {"kind": "three", "limit": True, "sizes": [1]},
            [
                "sizes must be of type tuple[int, ...], not [1] (list)",
                "limit must be of type int | None, not True (bool)",
                "kind must be one of one, two, not 'three' (str)",
            ],
        ),
    ],
    ids=str,
)
def test_faults_name_the_flag_and_the_value(changes: dict[str, Any], expected: list[str]) -> None:
    assert checked_all(**changes) == expected


def test_a_fault_of_ones_own_is_kept_if_the_check_does_not_hold() -> None:
    faults = faults_of()
    faults.check(True, "all is well")
    faults.check(False, "limit is missing")
    assert faults.found == ["limit is missing"]


def test_an_unknown_name_is_told_with_the_nearest_and_all_if_they_are_few() -> None:
    assert unknown_name("colour", "Gren", ["red", "green"]) == (
        "unknown colour 'Gren'; did you mean green or red? There are: red, green."
    )
    assert unknown_name("colour", "zzz", ["red"]) == "unknown colour 'zzz'. There are: red."
    many = [f"colour-{number}" for number in range(100)]
    told = unknown_name("colour", "Colour-77", many)
    assert told.startswith("unknown colour 'Colour-77'; did you mean colour-77 or ")
    assert told.endswith("?"), "all of a hundred are listed"

"""What every error of the package holds, and that none of it is lost between processes."""

from __future__ import annotations

import pickle

import pytest

from aiotrain.errors import AiotrainError, ConfigError

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

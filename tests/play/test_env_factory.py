"""From the name of an environment to the environment."""

from __future__ import annotations

import pickle
import threading

import gymnasium
import pytest

from aiotrain.errors import ConfigError, EnvError
from aiotrain.play.env_factory import EnvFactory
from envs import Toy, closure, not_an_environment, toy


def travelled(factory: EnvFactory) -> EnvFactory:
    sent: EnvFactory = pickle.loads(pickle.dumps(factory))
    return sent


@pytest.mark.parametrize(
    "env",
    [toy, Toy, lambda: Toy(), closure(4), "envs:toy", "envs:Toy"],
    ids=lambda each: getattr(each, "__name__", str(each)),
)
def test_factories_travel(env: object) -> None:
    made = travelled(EnvFactory.of(env))()  # type: ignore[arg-type]
    assert type(made).__name__ == "Toy"
    made.reset(seed=0)


def test_keyword_arguments_reach_the_environment() -> None:
    assert EnvFactory.of(Toy, longest=77)().unwrapped.lengths == (3, 77)  # type: ignore[attr-defined]


def test_gymnasium_id() -> None:
    made = travelled(EnvFactory.of("CartPole-v1"))()
    assert made.spec is not None
    assert made.spec.id == "CartPole-v1"
    made.close()


def test_time_limit_truncates() -> None:
    env = EnvFactory.of(lambda: Toy(shortest=50, longest=50), 4)()
    env.reset(seed=0)
    assert [env.step(0)[3] for _ in range(4)] == [False, False, False, True]


def test_unknown_id_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="CartPole-v1") as caught:
        EnvFactory.of("Cartpole-v1")
    assert "module:factory" in str(caught.value)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ("no_such_module:make", "there is no module 'no_such_module'"),
        ("no_such.module:make", "there is no module"),
        ("envs:", "write module:factory"),
        ("__main__:make", "gave as a Python callable, .* Give the callable again"),
        ("envs:outer.<locals>.make", "gave as a Python callable"),
    ],
)
def test_module_that_cannot_be_found(env: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        EnvFactory.of(env)


def test_name_that_the_module_does_not_have_is_told() -> None:
    with pytest.raises(EnvError, match="no_such_factory"):
        EnvFactory.of("envs:no_such_factory")()


def test_what_cannot_be_pickled_says_why() -> None:
    lock = threading.Lock()
    with pytest.raises(ConfigError, match="inside the factory") as caught:
        EnvFactory.of(lambda: lock and Toy())
    assert "lock" in str(caught.value)


def test_factory_of_something_else() -> None:
    with pytest.raises(EnvError, match=r"made a str, not a gymnasium\.Env"):
        EnvFactory.of(not_an_environment)()


def test_wrapped_environments_are_environments() -> None:
    assert EnvFactory.of(lambda: gymnasium.wrappers.TimeLimit(Toy(), 3))().unwrapped is not None

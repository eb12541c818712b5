"""What is read off an environment's spaces."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from aiotrain.errors import ConfigError, EnvError, UnsupportedSpaceError
from aiotrain.play.spaces import EnvSpec
from envs import Toy
from sample_data import spec_of


def spec_with(observation: spaces.Space[Any], action: spaces.Space[Any]) -> EnvSpec:
    env = Toy()
    env.observation_space, env.action_space = observation, action  # type: ignore[assignment]
    return EnvSpec.of(env, "mine")


BOX, PICK = spaces.Box(-1, 1, (2,)), spaces.Discrete(3)


@pytest.mark.parametrize(
    ("space", "kind", "inputs", "itemsize"),
    [
        (spaces.Box(-1, 1, (2, 3), np.float32), "box", 6, 4),
        (spaces.Box(-1, 1, (), np.float64), "box", 1, 8),
        (spaces.Box(0, 255, (4, 4, 3), np.uint8), "box", 48, 1),
        (spaces.MultiBinary(52), "bits", 52, 1),
        (spaces.MultiBinary((2, 3)), "bits", 6, 1),
        (spaces.Discrete(7), "one_hot", 7, 8),
    ],
    ids=str,
)
def test_observations(space: spaces.Space[Any], kind: str, inputs: int, itemsize: int) -> None:
    spec = spec_with(space, PICK)
    assert (spec.observation_kind, spec.inputs) == (kind, inputs)
    assert np.dtype(spec.observation_dtype).itemsize == itemsize
    encoded = spec.encode(np.stack([space.sample() for _ in range(3)]))
    assert encoded.shape == (3, inputs)
    assert encoded.dtype == np.float32


def test_one_hot_counts_from_the_first_value() -> None:
    assert spec_of("one_hot").encode(np.array([1, 4])).tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]


def test_actions() -> None:
    shifted = spec_with(BOX, spaces.Discrete(3, start=-1))
    assert (shifted.action_kind, shifted.outputs, shifted.action_start) == ("discrete", 3, -1)
    assert shifted.ring_action_dtype == np.int16
    assert spec_with(BOX, spaces.Discrete(40_000)).ring_action_dtype == np.int32
    gaussian = spec_with(BOX, spaces.Box(np.array([-1, -np.inf]), np.array([2, np.inf]), dtype=np.float64))
    assert (gaussian.action_low, gaussian.action_high) == ((-1, -np.inf), (2, np.inf))
    assert (gaussian.action_dtype, gaussian.ring_action_dtype) == ("float64", np.float32)


@pytest.mark.parametrize(
    ("observation", "action", "words"),
    [
        (spaces.Dict({"a": BOX}), PICK, "FlattenObservation"),
        (spaces.Tuple([BOX]), PICK, "FlattenObservation"),
        (spaces.MultiDiscrete([2, 3]), PICK, "FlattenObservation"),
        (spaces.Text(5), PICK, "Wrap the environment"),
        (BOX, spaces.MultiDiscrete([2, 3]), "action space"),
        (BOX, spaces.Box(-1, 1, (2, 2)), "one axis"),
        (BOX, spaces.Box(0, 9, (2,), np.int32), "Box of floats"),
    ],
    ids=str,
)
def test_unsupported_spaces_say_what_to_do(
    observation: spaces.Space[Any], action: spaces.Space[Any], words: str
) -> None:
    with pytest.raises(UnsupportedSpaceError, match=words) as caught:
        spec_with(observation, action)
    assert str(caught.value).startswith("mine: ")
    assert isinstance(caught.value, ConfigError)
    assert isinstance(caught.value, EnvError)


@pytest.mark.parametrize(
    ("limit", "registered", "own", "expected"),
    [(None, None, None, None), (9, 7, None, 7), (5, 7, None, 5), (None, 7, 3, 3), (None, None, "3", None)],
)
def test_lowest_time_limit_counts(limit: int | None, registered: int | None, own: object, expected: int | None) -> None:
    env: gymnasium.Env[Any, Any] = Toy()
    env.spec = SimpleNamespace(max_episode_steps=registered)  # type: ignore[assignment]
    if own is not None:
        env.max_steps = own  # type: ignore[attr-defined]
    assert EnvSpec.of(env, "mine", limit).max_episode_steps == expected

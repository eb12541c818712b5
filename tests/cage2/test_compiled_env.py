"""The compiled engine as a single Gymnasium environment."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import aiotrain  # noqa: F401 (registers the environment)
from aiotrain.cage2 import CAGE2_ID
from aiotrain.cage2.scenario import RED_AGENTS


def test_gymnasium_s_checker_finds_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(CAGE2_ID, simulator="compiled").unwrapped)


@pytest.mark.parametrize("red_agent", RED_AGENTS)
def test_plays_the_episodes_of_the_vector_environment(red_agent: str) -> None:
    vector = gymnasium.make_vec(CAGE2_ID, num_envs=4, red_agent=red_agent, max_steps=50)
    expected, _ = vector.reset(seed=7)
    envs = [gymnasium.make(CAGE2_ID, simulator="compiled", red_agent=red_agent, max_steps=50) for _ in range(4)]
    for index, env in enumerate(envs):
        np.testing.assert_array_equal(env.reset(seed=7 + index)[0], expected[index])
    generator = np.random.default_rng(1)
    for step in range(50):
        actions = generator.integers(0, 145, 4)
        expected, rewards, _, truncations, info = vector.step(actions)
        for index, env in enumerate(envs):
            seen, reward, terminated, truncated, own_info = env.step(actions[index])
            where = f"{red_agent}, environment {index}, step {step}"
            np.testing.assert_array_equal(seen, expected[index], err_msg=where)
            assert (reward, terminated, truncated) == (rewards[index], False, truncations[index]), where
            assert own_info == {"red_hosts": info["red_hosts"][index]}, where


def test_equals_the_environment_on_cyborg_in_spaces_and_limit() -> None:
    compiled, cyborg = (gymnasium.make(CAGE2_ID, simulator=each, max_steps=30) for each in ("compiled", "cyborg"))
    assert compiled.observation_space == cyborg.observation_space
    assert compiled.action_space == cyborg.action_space
    assert compiled.unwrapped.max_steps == cyborg.unwrapped.max_steps == 30  # type: ignore[attr-defined]


def test_goes_on_with_its_own_numbers_where_no_seed_is_given() -> None:
    def returns_of(env: gymnasium.Env[np.ndarray, np.int64]) -> list[float]:
        found = []
        for _ in range(3):
            found.append(sum(float(env.step(np.int64(0))[1]) for _ in range(100)))
            env.reset()
        return found

    first, second = (gymnasium.make(CAGE2_ID, simulator="compiled", red_agent="RedMeanderAgent") for _ in range(2))
    first.reset(seed=3)
    second.reset(seed=3)
    played = returns_of(first)
    assert played == returns_of(second)
    assert len(set(played)) > 1, "an unseeded reset repeats the episode"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"simulator": "cybrog"}, "unknown simulator 'cybrog'; did you mean cyborg"),
        ({"simulator": "compiled", "red_agent": "B_line"}, "did you mean B_lineAgent"),
        ({"simulator": "compiled", "red_agent": "mine:Red"}, "for mine:Red, choose the simulator cyborg"),
        ({"simulator": "compiled", "max_steps": 0}, "max_steps is 0"),
    ],
)
def test_refusals(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gymnasium.make(CAGE2_ID, **arguments)


def test_needs_a_reset_and_a_real_action() -> None:
    env = gymnasium.make(CAGE2_ID, simulator="compiled").unwrapped
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.int64(0))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action 145 does not exist"):
        env.step(np.int64(145))

"""Red agents that take turns: who plays an episode is a function of its seed, the same on both simulators."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import gymnasium
import numpy as np
import pytest

from aiotrain.cage2 import CAGE2_ID
from aiotrain.cage2.red_agents import drawn_red_agent
from aiotrain.cage2.scenario import RED_AGENTS
from aiotrain.cage2.simulators.compiled_env import Cage2CompiledEnv
from aiotrain.cage2.simulators.cyborg_env import Cage2Env
from aiotrain.cage2.simulators.vector_env import Cage2VectorEnv

STEPS = 12


def episode(env: gymnasium.Env[Any, Any], seed: int | None) -> list[tuple[bytes, float, int]]:
    """What happens to a blue agent that only sleeps."""
    observation, info = env.reset(seed=seed)
    seen = [(observation.tobytes(), 0.0, info["red_hosts"])]
    for _ in range(STEPS):
        observation, reward, *_, info = env.step(0)
        seen.append((observation.tobytes(), float(reward), info["red_hosts"]))
    return seen


@pytest.mark.parametrize("shares", [(0.475, 0.475, 0.05), (1, 1, 0), (0, 0, 7), (2.0, 0.0, 1.0)], ids=str)
def test_each_plays_its_share(shares: tuple[float, ...]) -> None:
    count = 20_000
    drawn = Counter(drawn_red_agent(seed, shares) for seed in range(count))
    for number, share in enumerate(shares):
        expected = share / sum(shares)
        error = math.sqrt(expected * (1 - expected) / count)
        assert abs(drawn[number] / count - expected) <= 4 * error, f"{RED_AGENTS[number]}: {drawn[number]} of {count}"


def test_neighbouring_and_extreme_seeds_are_independent_draws() -> None:
    pairs = Counter(itertools.pairwise(drawn_red_agent(seed, (1, 1, 0)) for seed in range(20_001)))
    assert all(abs(count - 5_000) < 5 * math.sqrt(5_000) for count in pairs.values()), pairs
    for seed in (0, 2**63 - 1, 2**64 - 1):
        assert drawn_red_agent(seed, (0, 1, 0)) == 1


@pytest.mark.parametrize("make", [Cage2Env, Cage2CompiledEnv])
def test_an_episode_is_that_of_the_agent_drawn_for_its_seed(make: Any) -> None:
    shares = (1, 1, 1)
    mixed = make("mixed", STEPS, red_shares=shares)
    alone = [make(red_agent, STEPS) for red_agent in RED_AGENTS]
    drawn = [drawn_red_agent(seed, shares) for seed in range(12)]
    assert set(drawn) == {0, 1, 2}
    for seed, red_agent in enumerate(drawn):
        expected = episode(alone[red_agent], seed)
        assert episode(mixed, seed) == expected, f"seed {seed} should be played by {RED_AGENTS[red_agent]}"


@pytest.mark.parametrize("make", [Cage2Env, Cage2CompiledEnv])
def test_without_a_seed_the_agent_follows_from_the_last_one(make: Any) -> None:
    shares = (1, 0, 1)  # a sleeper's episodes are told from those of B_line by what happens in them
    env, again = make("mixed", STEPS, red_shares=shares), make("mixed", STEPS, red_shares=shares)
    episodes = [episode(env, 5 if number == 0 else None) for number in range(12)]
    assert [episode(again, 5 if number == 0 else None) for number in range(12)] == episodes
    asleep = [all(reward == 0 for _, reward, _ in each) for each in episodes]
    assert 0 < sum(asleep) < 12


def test_the_vector_environment_draws_anew_in_each_episode() -> None:
    shares = (1, 1, 1)
    vector = Cage2VectorEnv(64, "mixed", STEPS, red_shares=shares)
    vector.reset(seed=3)
    assert vector.state["red"].tolist() == [drawn_red_agent(3 + i, shares) for i in range(64)]
    first = vector.state["red"].copy()
    for _ in range(STEPS):
        vector.step(np.zeros(64, np.int64))
        np.testing.assert_array_equal(vector.state["red"], first, "an agent changed within an episode")
    vector.step(np.zeros(64, np.int64))
    assert (vector.state["steps"] == 0).all()
    assert 20 < (vector.state["red"] != first).sum() < 62
    with pytest.raises(ValueError, match="unknown red agent 'blue'"):
        Cage2VectorEnv(2, ["B_lineAgent", "blue"])


@pytest.mark.parametrize("simulator", ["compiled", "cyborg"])
@pytest.mark.parametrize("shares", [(1, 1), (1, -1, 1), (0, 0, 0), (1, math.nan, 1), (1, math.inf, 1)], ids=str)
def test_shares_that_cannot_be_are_refused(simulator: str, shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must be 3 shares, numbers from 0 on"):
        gymnasium.make(CAGE2_ID, simulator=simulator, red_agent="mixed", red_shares=shares)

"""The vector environment keeps Gymnasium's promises."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import aiotrain.cage2  # noqa: F401 (registers the environment)
from aiotrain.cage2.engine import NO_TAPE, RED_AGENTS, allocate, reset_batch, step_batch
from aiotrain.cage2.simulators.vector_env import Cage2VectorEnv


def make(num_envs: int, **kwargs: Any) -> gymnasium.vector.VectorEnv:
    return gymnasium.make_vec("aiotrain/Cage2-v0", num_envs=num_envs, vectorization_mode="vector_entry_point", **kwargs)


def test_make_vec_gives_the_compiled_environment_with_the_spaces_of_the_single_one() -> None:
    compiled = make(3)
    assert isinstance(compiled.unwrapped, Cage2VectorEnv)
    stepwise = gymnasium.make_vec("aiotrain/Cage2-v0", num_envs=3, vectorization_mode="sync")
    for name in ("single_observation_space", "single_action_space", "observation_space", "action_space"):
        assert getattr(compiled, name) == getattr(stepwise, name), name
    assert compiled.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert compiled.num_envs == 3
    stepwise.close()
    compiled.close()


def test_what_comes_back_has_the_types_of_a_sync_vector_env() -> None:
    compiled = make(4, max_steps=5)
    stepwise = gymnasium.make_vec("aiotrain/Cage2-v0", num_envs=4, vectorization_mode="sync", max_steps=5)
    ours, theirs = compiled.reset(seed=1), stepwise.reset(seed=1)
    for _ in range(12):
        for one, other in zip(ours, theirs, strict=True):
            if isinstance(one, dict):
                assert one.keys() == other.keys()
                assert all(one[k].dtype == other[k].dtype and one[k].shape == other[k].shape for k in one)
            else:
                assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert compiled.observation_space.contains(ours[0])
        actions = compiled.action_space.sample()
        ours, theirs = compiled.step(actions), stepwise.step(actions)
        assert (ours[3] == theirs[3]).all(), "truncated in different steps"
    stepwise.close()


def test_episodes_are_those_of_the_engine_and_autoreset_takes_a_step() -> None:
    reds = [RED_AGENTS[i % 3] for i in range(9)]
    env = make(9, red_agent=reds, max_steps=20)
    state = allocate(9, red_agent=reds, max_steps=20)
    observations, info = env.reset(seed=40)
    reset_batch(state, np.arange(40, 49, dtype=np.uint64))
    assert (observations == state["observation"]).all()
    assert (info["red_hosts"] == state["held"]).all()
    rng = np.random.default_rng(0)
    tenths = np.zeros(9, np.int32)
    for step in range(20):
        actions = rng.integers(0, 145, 9)
        observations, rewards, terminations, truncations, info = env.step(actions)
        step_batch(state, actions, tenths, NO_TAPE)
        assert (observations == state["observation"]).all()
        assert (rewards == tenths / 10).all()
        assert (info["red_hosts"] == state["held"]).all()
        assert not terminations.any()
        assert (truncations == (step == 19)).all()
    observations, rewards, _, truncations, info = env.step(actions)
    assert not observations.any()
    assert not rewards.any()
    assert not truncations.any()
    assert (info["red_hosts"] == 1 << 8).all()
    *_, truncations, _ = env.step(actions)
    assert not truncations.any(), "the autoreset did not begin a new count of steps"


def test_seeds() -> None:
    env = make(4, red_agent="RedMeanderAgent")

    def episode(seed: Any) -> np.ndarray:
        first, _ = env.reset(seed=seed)
        return np.stack([first, *(env.step(np.zeros(4, np.int64))[0] for _ in range(30))], axis=1)

    once = episode(7)
    assert (episode(7) == once).all()
    assert (episode([7, 8, 9, 10]) == once).all()
    again = episode(None)
    assert (again != once).any(axis=(1, 2)).all(), "without a seed the same episode came again"
    mixed = episode([None, 8, None, 10])
    assert (mixed[[1, 3]] == once[[1, 3]]).all()
    other = make(4, red_agent="RedMeanderAgent")
    other.reset()
    assert other.np_random is not None


def test_what_is_returned_is_the_callers_to_keep() -> None:
    env = make(2)
    observations, info = env.reset(seed=0)
    observations[:] = 1
    info["red_hosts"][:] = 0
    following, _, _, _, info = env.step(np.zeros(2, np.int64))
    assert not following.any()
    assert (info["red_hosts"] == 1 << 8).all()


def test_gymnasiums_vector_wrappers_work() -> None:
    env = gymnasium.wrappers.vector.RecordEpisodeStatistics(make(3, max_steps=10))
    env.reset(seed=0)
    for _ in range(10):
        *_, info = env.step(env.action_space.sample())
    assert (info["episode"]["l"] == 10).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_steps": 0}, "an episode has at least 1 step"),
        ({"red_agent": "Meander"}, "unknown red agent"),
        ({"red_agent": "package.module:Red"}, "vectorization_mode='sync'"),
        ({"scenario": {}}, "plays Scenario2 only"),
        ({"rules": "older"}, "unknown rules"),
    ],
)
def test_refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(1, **arguments)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([0], "shape"),
        ([0.0, 1.0], "integers"),
        ([0, 145], "0..144"),
        ([-1, 0], "0..144"),
    ],
)
def test_refuses_actions(actions: list, message: str) -> None:
    env = Cage2VectorEnv(2)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(2, np.int64))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(np.array(actions))


def test_refuses_seeds_that_do_not_fit() -> None:
    env = Cage2VectorEnv(2)
    with pytest.raises(ValueError, match="3 seeds were given for 2"):
        env.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="negative"):
        env.reset(seed=-1)

"""Advantages against their definition, and the rewards that they are estimated from."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from learners import PLAIN, everything, learner, minibatches_of, on_policy

from aiotrain.learn.ppo import advantages
from aiotrain.learn.rewards import returns_so_far, scaled
from aiotrain.learn.running_statistics import RunningMoments
from aiotrain.play.spaces import EnvSpec
from aiotrain.transport.trajectories import Trajectories
from sample_data import spec_of, trajectories

NUMBERS = st.floats(-10, 10, width=32)


def naive_advantages(
    rewards: list[float], values: list[float], final_value: float, terminated: bool, gamma: float, lam: float
) -> list[float]:
    """The definition: sum over k of (gamma lambda)^k delta_{t+k}."""
    following = [*values[1:], 0.0 if terminated else final_value]
    deltas = [r + gamma * after - v for r, v, after in zip(rewards, values, following, strict=True)]
    return [sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, len(deltas))) for t in range(len(deltas))]


@given(
    st.lists(
        st.tuples(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=7), NUMBERS, st.booleans()),
        min_size=1,
        max_size=6,
    ),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_advantages_are_their_definition(
    runs: list[tuple[list[tuple[float, float]], float, bool]], gamma: float, lam: float
) -> None:
    expected = []
    for steps, final_value, terminated in runs:
        rewards, values = ([step[i] for step in steps] for i in (0, 1))
        expected += naive_advantages(rewards, values, final_value, terminated, gamma, lam)
    got = advantages(
        np.array([step[0] for steps, *_ in runs for step in steps], np.float32),
        np.array([step[1] for steps, *_ in runs for step in steps], np.float32),
        np.array([final for _, final, _ in runs], np.float32),
        np.array([len(steps) for steps, *_ in runs]),
        np.array([terminated for *_, terminated in runs]),
        gamma,
        lam,
    )
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("terminated", "expected"), [(True, 1 + 0.9 + 0.81), (False, 1 + 0.9 + 0.81 + 0.729 * 5)])
def test_advantage_in_closed_form(terminated: bool, expected: float) -> None:
    """With lambda 1 it is the discounted return, less the value."""
    got = advantages(
        np.ones(3, np.float32),
        np.array([2, 7, -3], np.float32),
        np.array([5], np.float32),
        np.array([3]),
        np.array([terminated]),
        0.9,
        1.0,
    )
    assert got[0] == pytest.approx(expected - 2)


def test_a_cut_where_the_value_is_true_changes_nothing() -> None:
    """A trajectory in two fragments has the advantages of the whole, if lambda is 0: each looks one step ahead."""
    rng = np.random.default_rng(0)
    rewards, values = rng.standard_normal((2, 6)).astype(np.float32)
    whole = advantages(rewards, values, np.zeros(1, np.float32), np.array([6]), np.array([True]), 0.9, 0.0)
    cut = advantages(
        rewards, values, np.array([values[4], 0], np.float32), np.array([4, 2]), np.array([False, True]), 0.9, 0.0
    )
    np.testing.assert_allclose(cut, whole, rtol=1e-6)


def test_fragment_is_bootstrapped_with_the_value_of_what_was_seen_last() -> None:
    """The whole update: only the value of the final observation can tell two batches apart, where it counts."""
    spec = spec_of("box")
    estimates = {}
    for name, terminated in (("cut", False), ("ended", True)):
        one = learner(spec, dataclasses.replace(PLAIN, epochs=1))
        batch = on_policy(one, spec, trajectories(spec, [5], ended=[terminated], terminated=[terminated]))
        other = dataclasses.replace(batch, final_observations=batch.final_observations + 3)
        estimates[name] = [learned_from(spec, each) for each in (batch, other)]
    assert not np.array_equal(*estimates["cut"]), "the value after a cut is not used"
    np.testing.assert_array_equal(*estimates["ended"], err_msg="there is a future after a terminal state")


def learned_from(spec: EnvSpec, batch: Trajectories, **settings: Any) -> npt.NDArray[np.float32]:
    one = learner(spec, dataclasses.replace(PLAIN, epochs=1, **settings))
    one.update(batch, 0.0)
    return everything(one)


def test_advantages_are_brought_to_mean_0_and_deviation_1_over_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of()
    one = learner(spec, dataclasses.replace(PLAIN, epochs=1, minibatch_size=7))
    seen = minibatches_of(monkeypatch)
    one.update(on_policy(one, spec, trajectories(spec, [9, 11])), 0.0)
    advantage = np.concatenate([minibatch.advantages for minibatch in seen])
    assert len(advantage) == 20
    assert advantage.mean() == pytest.approx(0, abs=1e-6)
    assert advantage.std() == pytest.approx(1, rel=1e-5)


# ---------------------------------------------------------------------- rewards


@given(st.lists(st.lists(NUMBERS, min_size=1, max_size=6), min_size=1, max_size=5), st.floats(0, 1))
def test_returns_so_far_are_discounted_sums(runs: list[list[float]], gamma: float) -> None:
    expected = [
        sum(gamma ** (t - k) * rewards[k] for k in range(t + 1)) for rewards in runs for t in range(len(rewards))
    ]
    flat = np.array([reward for rewards in runs for reward in rewards], np.float32)
    lengths = np.array([len(rewards) for rewards in runs])
    np.testing.assert_allclose(returns_so_far(flat, lengths, gamma), expected, rtol=1e-6, atol=1e-6)


@given(st.lists(st.lists(NUMBERS, min_size=1, max_size=9), min_size=1, max_size=6))
def test_running_moments_are_those_of_everything(parts: list[list[float]]) -> None:
    moments = RunningMoments()
    for part in parts:
        moments.add(np.array(part))
    everything = np.concatenate(parts)
    assert moments.count == len(everything)
    np.testing.assert_allclose(moments.mean, everything.mean(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(moments.variance, everything.var(), rtol=1e-9, atol=1e-9)


def test_rewards_are_scaled_by_the_deviation_of_the_returns() -> None:
    spec = spec_of()
    moments, seen = RunningMoments(), []
    for i in range(2):
        batch = trajectories(spec, [7, 5], seed=i)
        lengths = batch.headers["length"]
        seen.append(returns_so_far(batch.rewards, lengths, 0.5))
        got = scaled(batch.rewards, lengths, 0.5, moments)
        np.testing.assert_allclose(got, batch.rewards / np.concatenate(seen).std(), rtol=1e-5)


def test_rewards_of_the_same_return_are_left_as_they_are() -> None:
    """There is no deviation to divide by."""
    rewards = np.full(4, 3.0, np.float32)
    np.testing.assert_array_equal(scaled(rewards, np.ones(4, int), 0.9, RunningMoments()), rewards)


def test_a_learner_scales_rewards_only_if_asked_to() -> None:
    """The scale changes what the value network learns."""
    spec = spec_of()
    batch = trajectories(spec, [9, 7])
    larger = dataclasses.replace(batch, rewards=batch.rewards * 8)
    for scales in (True, False):
        learned = [learned_from(spec, each, scale_rewards=scales) for each in (batch, larger)]
        assert np.allclose(*learned, rtol=1e-4, atol=1e-6) == scales, f"scale_rewards {scales}"


def test_a_reward_counts_once_for_each_horizon_it_lies_within() -> None:
    """Of an episode in one slot as of one in two fragments, whose second begins with its fourth step."""
    spec = spec_of()
    whole = trajectories(spec, [7])
    cut = trajectories(spec, [3, 4], episodes=[0, 0], fragments=[0, 1], ended=[False, True])
    cut.headers["episode_steps"] = [3, 7]
    for batch in (whole, cut):
        counted = dataclasses.replace(batch, rewards=batch.rewards * np.array([3, 3, 2, 2, 2, 1, 0], np.float32))
        learned = []
        for horizons, played_batch in (((2, 6, 5), batch), ((), counted)):
            one = learner(spec, dataclasses.replace(PLAIN, horizons=horizons, scale_rewards=True))
            for _ in range(2):
                one.update(played_batch, 0.0)
            learned.append(one.parameters())
        np.testing.assert_array_equal(*learned)


def test_bonuses_count_once_whatever_the_horizons() -> None:
    spec = spec_of()
    batch = trajectories(spec, [7])
    batch = dataclasses.replace(batch, rewards=np.zeros(7, np.float32), bonuses=batch.rewards)
    learned = [learned_from(spec, batch, horizons=horizons) for horizons in ((), (2, 7))]
    np.testing.assert_array_equal(*learned)


def test_beyond_the_last_horizon_there_is_no_future() -> None:
    """Where an episode is truncated there, as where it terminates; before, what was seen last is worth something."""
    spec = spec_of()
    for last, matters in ((6, True), (5, False)):
        learned = []
        for terminated in (True, False):
            one = learner(spec, dataclasses.replace(PLAIN, horizons=(2, last)))
            one.update(on_policy(one, spec, trajectories(spec, [5], terminated=[terminated])), 0.0)
            learned.append(everything(one))
        assert np.array_equal(*learned) != matters, f"last horizon {last}"

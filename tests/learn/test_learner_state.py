"""What a learner saves: a snapshot to go back to, and a state to go on from exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from learners import KINDS, learner

from aiotrain.learn.ppo import Learner
from aiotrain.learn.settings import PPOConfig
from aiotrain.transport.trajectories import Trajectories
from envs import Action, Observation
from sample_data import spec_of, trajectories

CONFIG = PPOConfig(hidden_sizes=(8,), minibatch_size=16)


def assert_equal(one: Any, other: Any, where: str = "state") -> None:
    """Two states are equal to the bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            assert_equal(one[name], other[name], f"{where}.{name}")
    else:
        np.testing.assert_array_equal(one, other, err_msg=where)


def trained(observation: Observation, action: Action, updates: int) -> tuple[Learner, Trajectories]:
    """Return a learner after so many updates, and a batch to learn from next."""
    spec = spec_of(observation, action)
    one = learner(spec, CONFIG)
    for number in range(updates):
        one.update(trajectories(spec, [9, 4], seed=number), 0.1)
    batch = trajectories(spec, [8, 5, 13], seed=7)
    if observation == "box":  # a few are further out than what is normalised may be
        batch.observations[::4] *= 100
    return one, batch


@pytest.mark.parametrize(("observation", "action"), KINDS)
@pytest.mark.parametrize("updates", [0, 2])
def test_a_learner_goes_on_exactly_from_its_state(observation: Observation, action: Action, updates: int) -> None:
    """Networks, optimiser, scales and random generator: also in a learner of another seed."""
    one, batch = trained(observation, action, updates)
    state, before = one.state_dict(), one.parameters()
    expected = one.update(batch, 0.5), one.state_dict()
    assert not np.array_equal(one.parameters(), before), "nothing was learned"
    for other in (one, learner(spec_of(observation, action), CONFIG, seed=5)):
        other.load_state_dict(state)
        assert_equal(other.state_dict(), state)
        assert other.update(batch, 0.5) == expected[0]
        assert_equal(other.state_dict(), expected[1])


@pytest.mark.parametrize(("observation", "action"), KINDS)
@pytest.mark.parametrize("updates", [0, 2])
def test_a_learner_goes_back_to_a_snapshot_and_draws_on(observation: Observation, action: Action, updates: int) -> None:
    one, batch = trained(observation, action, updates)
    snapshot = one.snapshot()
    one.update(batch, 0.5)
    generator = one.state_dict()["generator"]
    one.go_back_to(snapshot)
    assert_equal(one.snapshot(), snapshot)
    np.testing.assert_array_equal(one.state_dict()["generator"], generator, err_msg="the generator went back too")


def test_a_snapshot_is_a_copy() -> None:
    one, batch = trained("box", "discrete", 1)
    snapshot, again = one.snapshot(), one.snapshot()
    one.update(batch, 0.5)
    assert_equal(snapshot, again)
    one.go_back_to(snapshot)
    one.update(batch, 0.5)
    assert_equal(snapshot, again)

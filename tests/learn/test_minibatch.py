"""From the observations of a batch to the networks' inputs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from learners import CPU, KINDS, everything, inputs_for, learner, masked, on_policy, share_no_rows

from aiotrain.learn.minibatch import Bits, inputs_of
from aiotrain.learn.settings import PPOConfig
from envs import Action, Observation
from sample_data import spec_of, trajectories


@pytest.mark.parametrize(("observation", "action"), KINDS)
def test_equal_observations_share_a_row(observation: Observation, action: Action) -> None:
    spec = spec_of(observation, action)
    batch = trajectories(spec, [14, 16])
    batch = dataclasses.replace(batch, observations=batch.observations[np.arange(30) % 5])
    inputs = inputs_of(batch, spec, CPU, None)
    assert isinstance(inputs.distinct, torch.Tensor)
    assert len(inputs.distinct) <= 7, "5 observations and 2 final ones take more rows"
    expected = spec.encode(np.concatenate([batch.observations, batch.final_observations]))
    np.testing.assert_array_equal(inputs.distinct[inputs.rows], expected)


def test_a_part_of_the_steps_needs_a_part_of_the_rows() -> None:
    spec = masked(spec_of("bits"))
    batch = trajectories(spec, [40])
    steps = torch.tensor([3, 30, 3, 17, 8])
    inputs = inputs_for(batch, spec).at(steps)
    assert isinstance(inputs.distinct, torch.Tensor)
    assert inputs.allowed is not None
    assert len(inputs.distinct) == len(inputs.allowed) <= 4
    np.testing.assert_array_equal(inputs.distinct[inputs.rows], spec.encode(batch.observations[steps]))
    np.testing.assert_array_equal(inputs.allowed[inputs.rows], batch.masks[steps] != 0)


@pytest.mark.parametrize(("observation", "action"), KINDS)
def test_shared_rows_change_nothing_that_is_learned(
    observation: Observation, action: Action, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is computed once for all steps that saw the same is what would be computed for each."""
    spec = spec_of(observation, action)
    config = PPOConfig(hidden_sizes=(8,), minibatch_size=16, normalize_observations=True)
    batches = [trajectories(spec, [14, 16], seed=number) for number in range(3)]
    batches = [dataclasses.replace(batch, observations=batch.observations[np.arange(30) % 5]) for batch in batches]
    learned = []
    for shares in (True, False):
        if not shares:
            share_no_rows(monkeypatch)
        one = learner(spec, config)
        for batch in batches:
            one.update(batch, 0.0)
        learned.append(everything(one))
    np.testing.assert_allclose(*learned, rtol=1e-4, atol=1e-5)


def test_what_was_seen_under_another_mask_is_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = masked(spec_of("bits"))
    config = PPOConfig(hidden_sizes=(8,), minibatch_size=16)
    batch = trajectories(spec, [30, 30])
    batch = dataclasses.replace(batch, observations=batch.observations[np.arange(60) % 3])
    learned = []
    for shares in (True, False):
        one = learner(spec, config)
        batch = on_policy(one, spec, batch)
        if not shares:
            share_no_rows(monkeypatch)
        for _ in range(3):
            one.update(batch, 0.0)
        learned.append(everything(one))
    np.testing.assert_allclose(*learned, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hidden", [(), (8,), (16, 8)], ids=str)
def test_many_bits_are_learned_from_by_their_ones_as_they_are(
    hidden: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With rows without any one, and inputs that never are."""
    spec = dataclasses.replace(spec_of("bits"), observation_shape=(300,), inputs=300)
    config = PPOConfig(hidden_sizes=hidden, minibatch_size=16)
    batches = [trajectories(spec, [9, 4, 17], seed=number) for number in range(3)]
    for batch in batches:
        batch.observations[5] = batch.observations[:, 7] = batch.final_observations[1] = 0
    learned = []
    for by_ones in (True, False):
        if not by_ones:
            monkeypatch.setattr("aiotrain.learn.minibatch.MANY_BITS", 301)
        assert isinstance(inputs_for(batches[0], spec).distinct, Bits) == by_ones
        one = learner(spec, config)
        for batch in batches:
            metrics = one.update(on_policy(one, spec, batch), 0.0)
        learned.append((everything(one), *metrics.values()))
    for with_ones, dense in zip(*learned, strict=True):
        np.testing.assert_allclose(with_ones, dense, rtol=1e-3, atol=1e-5)


def test_only_many_bits_that_are_not_normalised_are_taken_by_their_ones() -> None:
    spec = dataclasses.replace(spec_of("bits"), observation_shape=(300,), inputs=300)
    batch = trajectories(spec, [3])
    assert isinstance(inputs_for(batch, spec).distinct, Bits)
    assert isinstance(inputs_for(batch, spec, normalize=lambda dense: dense).distinct, torch.Tensor)
    few = spec_of("bits")
    assert isinstance(inputs_for(trajectories(few, [3]), few).distinct, torch.Tensor)


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "float16", "float32", "float64"]
)
def test_learner_reads_every_dtype_as_the_workers_do(dtype: str) -> None:
    spec = dataclasses.replace(spec_of("box"), observation_dtype=dtype)
    observations = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    batch = dataclasses.replace(trajectories(spec, [2]), observations=observations, final_observations=observations[:1])
    inputs = inputs_for(batch, spec)
    assert isinstance(inputs.distinct, torch.Tensor)
    np.testing.assert_array_equal(inputs.distinct[inputs.rows], spec.encode(observations))
    assert inputs.distinct.dtype == torch.float32


def test_learner_counts_one_hot_from_the_first_value() -> None:
    spec = spec_of("one_hot")
    observations = np.array([1, 4, 2])
    inputs = inputs_for(dataclasses.replace(trajectories(spec, [3]), observations=observations), spec)
    assert isinstance(inputs.distinct, torch.Tensor)
    np.testing.assert_array_equal(inputs.distinct[inputs.rows], spec.encode(observations))

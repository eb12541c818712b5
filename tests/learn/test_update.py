"""What an update makes of a batch: steps, schedules, normalisation and metrics."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from learners import (
    CPU,
    KINDS,
    PLAIN,
    assert_finite,
    everything,
    inputs_for,
    learner,
    log_softmax,
    minibatches_of,
    numpy_policy,
    on_policy,
    played,
)

from aiotrain.learn.ppo import pick_device
from aiotrain.learn.settings import PPOConfig
from envs import Action, Observation
from sample_data import spec_of, trajectories


@pytest.mark.parametrize(("observation", "action"), KINDS)
def test_update_is_deterministic_and_leaves_torchs_generator_alone(observation: Observation, action: Action) -> None:
    spec = spec_of(observation, action)
    config = PPOConfig(hidden_sizes=(8,), minibatch_size=16)
    results = []
    for before in (1, 2):
        torch.manual_seed(before)
        state = torch.get_rng_state()
        one = learner(spec, config, seed=7)
        metrics = [one.update(trajectories(spec, [9, 4, 17], seed=i), i / 3) for i in range(3)]
        assert torch.equal(state, torch.get_rng_state())
        results.append((metrics, everything(one)))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])
    assert_finite(one, metrics[-1])


def test_seed_changes_the_start() -> None:
    spec = spec_of()
    assert not np.array_equal(learner(spec, seed=0).parameters(), learner(spec, seed=1).parameters())


def test_first_actions_are_nearly_uniform() -> None:
    policy = numpy_policy(learner(spec_of()))
    probabilities = np.exp(log_softmax(policy.head(np.eye(3, dtype=np.float32))))
    np.testing.assert_allclose(probabilities, 1 / 3, atol=0.02)


def test_advantage_raises_the_probability_of_its_action() -> None:
    spec = spec_of()
    one = learner(spec, dataclasses.replace(PLAIN, entropy_coef=0.0, learning_rate=0.01))
    for i in range(20):
        batch = trajectories(spec, [1] * 64, seed=i)
        batch = dataclasses.replace(batch, rewards=(batch.actions == 2).astype(np.float32))
        one.update(on_policy(one, spec, batch), 0.0)
    assert np.exp(log_softmax(numpy_policy(one).head(np.zeros((1, 3), np.float32))))[0, 2] > 0.8


def test_gradients_are_scaled_down_to_the_largest_norm() -> None:
    """Adam's first moment after one step is a tenth of the gradient."""
    spec = spec_of()
    batch = trajectories(spec, [30])
    norms = []
    for largest in (1e3, 1e-2):
        one = learner(spec, dataclasses.replace(PLAIN, epochs=1, max_grad_norm=largest))
        one.update(batch, 0.0)
        norms.append(10 * float(np.linalg.norm(one.snapshot()["optimizer"]["exp_avg"])))
    assert norms[0] > 0.05, "the gradient is too small for the test"
    assert norms[1] == pytest.approx(1e-2, rel=1e-3)


# -------------------------------------------------------------------- schedules


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 1e-3), (0.5, 6e-4), (1.0, 2e-4)])
def test_learning_rate_falls_along_a_line(progress: float, expected: float) -> None:
    """It is told, and the update is the one of a learner that always has it."""
    spec = spec_of()
    learned = []
    for first, last in ((1e-3, 2e-4), (expected, expected)):
        one = learner(spec, dataclasses.replace(PLAIN, learning_rate=first, final_learning_rate=last))
        metrics = one.update(trajectories(spec, [8]), progress)
        assert metrics["learning_rate"] == pytest.approx(expected)
        learned.append(everything(one))
    np.testing.assert_allclose(*learned, rtol=1e-6, atol=1e-7)


def test_the_entropy_bonus_changes_along_a_straight_line() -> None:
    spec = spec_of()
    batch = trajectories(spec, [30])
    learned = {}
    for name, progress, coefs in (
        ("half way", 0.5, {"entropy_coef": 0.5, "final_entropy_coef": 0.1}),
        ("the mean", 0.5, {"entropy_coef": 0.3}),
        ("none given", 1.0, {"entropy_coef": 0.3}),
        ("the end", 1.0, {"entropy_coef": 0.5, "final_entropy_coef": 0.3}),
        ("the beginning", 0.0, {"entropy_coef": 0.5, "final_entropy_coef": 0.3}),
    ):
        one = learner(spec, dataclasses.replace(PLAIN, final_learning_rate=PLAIN.learning_rate, **coefs))
        one.update(batch, progress)
        learned[name] = one.parameters()
    for name in ("half way", "none given", "the end"):
        np.testing.assert_allclose(learned[name], learned["the mean"], rtol=1e-5, atol=1e-6, err_msg=name)
    assert not np.allclose(learned["the beginning"], learned["the mean"], rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------ minibatches


def test_every_epoch_passes_once_over_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of()
    one = learner(spec, dataclasses.replace(PLAIN, epochs=3, minibatch_size=7))
    seen = minibatches_of(monkeypatch)
    batch = on_policy(one, spec, trajectories(spec, [9, 11]))
    one.update(batch, 0.0)
    assert [len(minibatch.actions) for minibatch in seen] == [7, 7, 6] * 3
    epochs = [torch.cat([each.returns for each in seen[first : first + 3]]) for first in (0, 3, 6)]
    for other in epochs[1:]:
        torch.testing.assert_close(other.sort().values, epochs[0].sort().values)
        assert not torch.equal(other, epochs[0]), "the order is the same in each epoch"


def test_update_ends_early_once_the_policy_has_moved_far(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of()
    seen = minibatches_of(monkeypatch)
    calls = {}
    for target in (None, 1e-9):
        one = learner(spec, dataclasses.replace(PLAIN, epochs=5, learning_rate=0.05, target_kl=target))
        seen.clear()
        one.update(on_policy(one, spec, trajectories(spec, [40])), 0.0)
        calls[target] = len(seen)
    assert calls[None] == 5
    assert 1 <= calls[1e-9] < 5


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_smallest_batches_stay_finite(steps: int) -> None:
    """A minibatch of one step has no deviation to divide by."""
    spec = spec_of()
    one = learner(spec, dataclasses.replace(PLAIN, minibatch_size=2))
    assert_finite(one, one.update(trajectories(spec, [1] * steps), 0.0))


# ---------------------------------------------------------------- normalisation


@pytest.mark.parametrize("observation", ["box", "bits", "one_hot"])
def test_normalisation_follows_the_observations(observation: Observation) -> None:
    spec = spec_of(observation)
    one = learner(spec, dataclasses.replace(PLAIN, normalize_observations=True))
    seen = []
    for i in range(3):
        batch = trajectories(spec, [30, 20], seed=i)
        seen.append(spec.encode(batch.observations))
        one.update(batch, 0.0)
    everything = np.concatenate(seen)
    mean, scale = one.network.shape.split(one.parameters())[:2]
    np.testing.assert_allclose(mean, everything.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scale, 1 / np.sqrt(everything.var(axis=0) + 1e-8), rtol=1e-5)


@pytest.mark.parametrize(("observation", "normalised"), [("box", True), ("bits", False), ("one_hot", False)])
def test_only_floats_are_normalised_by_default(observation: Observation, normalised: bool) -> None:
    spec = spec_of(observation)
    one = learner(spec, PPOConfig(hidden_sizes=(4,)))
    one.update(trajectories(spec, [9]), 0.0)
    assert one.network.normalizes == normalised


def test_behaviour_log_probs_belong_to_the_normalisation_that_acted() -> None:
    """So the steps of a batch that the very policy played all weigh the same, and the mean advantage is 0."""
    spec = spec_of()
    one = learner(spec, dataclasses.replace(PLAIN, normalize_observations=True, epochs=1, minibatch_size=10**6))
    for i in range(3):
        metrics = one.update(played(one, spec, trajectories(spec, [60], seed=i)), 0.0)
        assert metrics["policy_loss"] == pytest.approx(0, abs=1e-5)


# ---------------------------------------------------------------------- metrics


def test_explained_variance() -> None:
    """1 minus the variance of the error over that of the returns: near 0 for a value that knows nothing."""
    spec = spec_of()
    config = dataclasses.replace(PLAIN, gamma=0.0, epochs=30, learning_rate=0.02, final_learning_rate=0.02)
    one = learner(spec, config)
    batch = trajectories(spec, [1] * 200)
    batch = dataclasses.replace(batch, rewards=batch.observations[:, 0].copy())
    explained = [one.update(batch, 0.0)["explained_variance"] for _ in range(15)]
    with torch.no_grad():
        error = batch.rewards - one.network.value(inputs_for(batch, spec)).numpy()
    assert explained[-1] > 0.9
    assert one.update(batch, 0.0)["explained_variance"] == pytest.approx(
        1 - error.var() / batch.rewards.var(), rel=1e-3
    )


def test_missing_gpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == CPU
    with pytest.raises(ValueError, match="no GPU"):
        pick_device("cuda")

"""The NumPy policy: the same as torch's, the same in any batch, and drawing what it says."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch

from aiotrain.learn.minibatch import Inputs
from aiotrain.learn.networks import ActorCritic
from aiotrain.play.policy import NumpyPolicy, PolicyShape
from sample_data import weights_for

SHAPES = [
    PolicyShape(3, (), 2, "discrete"),
    PolicyShape(52, (64, 64), 145, "discrete"),
    PolicyShape(7, (33, 5, 18), 4, "discrete"),
    PolicyShape(1, (16,), 1, "gaussian"),
    PolicyShape(17, (64, 64), 6, "gaussian"),
]


def numpy_policy(shape: PolicyShape, seed: int = 0) -> NumpyPolicy:
    policy = NumpyPolicy(shape)
    policy.parameters[:] = weights_for(shape, seed)
    policy.refresh()
    return policy


def torch_policy(shape: PolicyShape, normalizes: bool) -> ActorCritic:
    """A network with biases, and a normalisation if there is to be one, that are not those of the start."""
    generator = torch.Generator().manual_seed(1)
    network = ActorCritic(shape, generator)
    with torch.no_grad():
        for parameter in network.actor.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        if network.log_std is not None:
            network.log_std.add_(0.3 * torch.randn(shape.outputs, generator=generator))
        if normalizes:
            network.normalizes = True
            network.input_mean.add_(0.2 * torch.randn(shape.inputs, generator=generator))
            network.input_scale.mul_(torch.rand(shape.inputs, generator=generator) + 0.5)
    return network


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("deviation", [1.0, 100.0], ids=["plain", "clipped"])
@pytest.mark.parametrize("normalizes", [True, False], ids=["normalized", "as it is"])
def test_log_probs_are_torchs(shape: PolicyShape, deviation: float, normalizes: bool) -> None:
    network = torch_policy(shape, normalizes)
    policy = NumpyPolicy(shape)
    policy.parameters[:] = network.flat_parameters()
    policy.refresh()
    rng = np.random.default_rng(2)
    inputs = (deviation * rng.standard_normal((50, shape.inputs))).astype(np.float32)
    actions, log_probs = policy.act(inputs, np.stack([policy.noise(rng, 1)[0] for _ in inputs]))
    with torch.no_grad():
        seen = Inputs(network.normalize(torch.from_numpy(inputs)), None, torch.arange(50))
        expected = network.policy(seen).log_prob(torch.from_numpy(np.asarray(actions)))
    np.testing.assert_allclose(log_probs, expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("alike", [None, False], ids=["as BLAS rounds here", "as if BLAS rounded rows by their place"])
def test_a_row_is_the_same_in_any_batch(
    shape: PolicyShape, alike: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if alike is not None:
        monkeypatch.setattr("aiotrain.play.policy.rounds_rows_alike", lambda inputs, outputs: alike)
    policy = numpy_policy(shape)
    rng = np.random.default_rng(3)
    inputs = rng.standard_normal((33, shape.inputs)).astype(np.float32)
    noise = policy.noise(rng, 33)
    alone = [policy.act(inputs[i : i + 1], noise[i : i + 1]) for i in range(33)]
    for size in range(1, 34):
        for start in (0, 33 - size):
            actions, log_probs = policy.act(inputs[start : start + size], noise[start : start + size])
            for i in range(size):
                assert np.array_equal(actions[i], alone[start + i][0][0]), f"row {i} of {size}: another action"
                assert log_probs[i] == alone[start + i][1][0], f"row {i} of {size}: another log-probability"


def test_actions_come_as_often_as_their_probabilities_say() -> None:
    shape, draws = PolicyShape(3, (8,), 5, "discrete"), 50_000
    policy = numpy_policy(shape)
    inputs = np.repeat(np.array([[0.5, -1.0, 0.2]], np.float32), draws, axis=0)
    actions, log_probs = policy.act(inputs, policy.noise(np.random.default_rng(4), draws))
    logits = policy.head(inputs[:1])[0].astype(float)
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(np.exp(log_probs), probabilities[actions], rtol=1e-5)
    expected = draws * probabilities
    chi_square = float(((np.bincount(actions, minlength=5) - expected) ** 2 / expected).sum())
    assert chi_square < 18.5, f"chi-square of {chi_square:.1f} with 4 degrees of freedom (99.9% lie below 18.5)"


def test_gaussian_actions_have_the_mean_and_deviation_of_the_policy() -> None:
    shape, draws = PolicyShape(2, (4,), 3, "gaussian"), 50_000
    policy = numpy_policy(shape)
    inputs = np.repeat(np.array([[0.3, 0.1]], np.float32), draws, axis=0)
    actions, _ = policy.act(inputs, policy.noise(np.random.default_rng(5), draws))
    deviation = np.exp(shape.split(policy.parameters)[-1])
    np.testing.assert_allclose(actions.mean(axis=0), policy.head(inputs[:1])[0], atol=float(0.02 * deviation.max()))
    np.testing.assert_allclose(actions.std(axis=0), deviation, rtol=0.02)


@pytest.mark.parametrize("deviation", [0.3, 30.0])
def test_barred_actions_are_never_drawn_and_the_others_as_torch_says(deviation: float) -> None:
    shape, rows = PolicyShape(9, (16,), 12, "discrete"), 20_000
    network = torch_policy(shape, False)
    policy = NumpyPolicy(shape)
    policy.parameters[:] = network.flat_parameters()
    policy.refresh()
    rng = np.random.default_rng(6)
    inputs = (deviation * rng.standard_normal((rows, 9))).astype(np.float32)
    masks = (rng.random((rows, 12)) < rng.random((rows, 1))).astype(np.int8)
    masks[np.arange(rows), rng.integers(0, 12, rows)] = 1
    noise = policy.noise(rng, rows)
    noise[::3], noise[1::3] = 0, np.nextafter(np.float32(1), np.float32(0))
    actions, log_probs = policy.act(inputs, noise, masks)
    assert masks[np.arange(rows), actions].all()
    with torch.no_grad():
        seen = Inputs(torch.from_numpy(inputs), torch.from_numpy(masks != 0), torch.arange(rows))
        policy_of_torch = network.policy(seen)
        expected = policy_of_torch.log_prob(torch.from_numpy(actions))
        reference = torch.distributions.Categorical(
            logits=network.actor(torch.from_numpy(inputs)).masked_fill(torch.from_numpy(masks == 0), -math.inf)
        )
    np.testing.assert_allclose(log_probs, expected.numpy(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(policy_of_torch.entropy(), reference.entropy(), rtol=1e-4, atol=1e-5)
    alone, alone_log_probs = zip(
        *(policy.act(inputs[i : i + 1], noise[i : i + 1], masks[i : i + 1]) for i in range(50)), strict=True
    )
    np.testing.assert_array_equal(np.concatenate(alone), actions[:50])
    np.testing.assert_array_equal(np.concatenate(alone_log_probs), log_probs[:50])


@pytest.mark.parametrize("noise", [0.0, float(np.nextafter(np.float32(1), np.float32(0)))])
def test_extreme_random_numbers_draw_possible_actions(noise: float) -> None:
    shape = PolicyShape(1, (), 4, "discrete")
    policy = NumpyPolicy(shape)
    *_, bias = shape.split(policy.parameters)
    bias[:] = [-200, 0, 1, -200]  # the first and the last cannot happen
    policy.refresh()
    actions, log_probs = policy.act(np.zeros((1, 1), np.float32), np.array([noise], np.float32))
    assert actions[0] in (1, 2)
    assert np.isfinite(log_probs).all()


@pytest.mark.parametrize("kind", ["discrete", "gaussian"])
def test_split_covers_the_vector_once(kind: Literal["discrete", "gaussian"]) -> None:
    shape = PolicyShape(3, (5, 4), 2, kind)
    vector = np.zeros(shape.size, np.float32)
    for view in shape.split(vector):
        view += 1
    assert (vector == 1).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_greedy_parameters_leave_nothing_to_chance(shape: PolicyShape) -> None:
    policy, greedy = numpy_policy(shape), NumpyPolicy(shape)
    greedy.parameters[:] = shape.greedy(policy.parameters)
    greedy.refresh()
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((200, shape.inputs)).astype(np.float32)
    expected = policy.head(inputs)
    for _ in range(5):
        actions, _ = greedy.act(inputs, policy.noise(rng, 200))
        np.testing.assert_array_equal(actions, expected if shape.kind == "gaussian" else expected.argmax(axis=1))

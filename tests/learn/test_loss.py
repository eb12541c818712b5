"""The loss against formulas written out in NumPy, and the gradients by hand against autograd's of the loss."""

from __future__ import annotations

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from learners import (
    ALL_KINDS,
    PLAIN,
    everything,
    inputs_for,
    learner,
    log_softmax,
    minibatches_of,
    numpy_policy,
    on_policy,
    played,
    spec_of_kind,
)

from aiotrain.learn import ppo
from aiotrain.learn.cpu_gradients import differentiating_by_hand
from aiotrain.learn.minibatch import Bits, Inputs, Minibatch
from aiotrain.learn.networks import ActorCritic, in_one_vector
from aiotrain.learn.ppo import TERMS, differentiate, importance_weights, loss
from aiotrain.learn.settings import PPOConfig
from aiotrain.play.policy import PolicyShape
from envs import Action, Observation
from sample_data import spec_of, trajectories

Kind = Literal["discrete", "masked", "gaussian"]


@pytest.mark.parametrize("action", ["discrete", "gaussian", None], ids=str)
def test_loss_is_the_formula(action: Action | None) -> None:
    spec = spec_of_kind("box", action)
    config = dataclasses.replace(PLAIN, clip_range=0.1, entropy_coef=0.03, value_coef=0.7)
    one = learner(spec, config)
    rng = np.random.default_rng(1)
    steps = 20
    batch = on_policy(one, spec, trajectories(spec, [steps]))
    old = batch.log_probs + rng.normal(0, 0.3, steps).astype(np.float32)
    a, returns = rng.standard_normal((2, steps)).astype(np.float32)
    actions = torch.from_numpy(batch.actions)
    if action != "gaussian":
        actions = actions.long()
    inputs = inputs_for(batch, spec)
    minibatch = Minibatch(inputs, actions, *(torch.as_tensor(each) for each in (old, a, returns)))
    with torch.no_grad():
        total, terms = loss(one.network, minibatch, config)
        values = one.network.value(inputs).numpy()

    policy = numpy_policy(one)
    head = policy.head(spec.encode(batch.observations)).astype(float)
    if action != "gaussian":
        table = log_softmax(np.where(batch.masks, head, -np.inf) if action is None else head)
        new = table[np.arange(steps), batch.actions]
        entropy = -(np.exp(table) * np.where(np.isfinite(table), table, 0)).sum(axis=1).mean()
    else:
        log_std = policy.shape.split(policy.parameters)[-1].astype(float)
        z = (batch.actions - head) / np.exp(log_std)
        new = (-0.5 * z**2 - log_std - 0.5 * math.log(2 * math.pi)).sum(axis=1)
        entropy = (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()
    ratio = np.exp(new - old)
    surrogate = np.minimum(ratio * a, np.clip(ratio, 0.9, 1.1) * a)
    value_loss = 0.5 * ((values - returns) ** 2).mean()
    kl = (ratio - 1 - (new - old)).mean()
    clipped = (np.abs(ratio - 1) > 0.1).mean()
    expected = [-surrogate.mean(), value_loss, entropy, kl, clipped]
    np.testing.assert_allclose(terms.numpy() / steps, expected, rtol=1e-4, atol=1e-5, err_msg=", ".join(TERMS))
    assert float(total) == pytest.approx(-surrogate.mean() + 0.7 * value_loss - 0.03 * entropy, rel=1e-4, abs=1e-5)


def test_gaussian_is_torchs() -> None:
    network = ActorCritic(PolicyShape(2, (4,), 3, "gaussian"), torch.Generator().manual_seed(0))
    log_std = dict(network.named_parameters())["log_std"]
    with torch.no_grad():
        log_std.copy_(torch.tensor([-1.0, 0.2, 0.5]))
        inputs, actions = torch.randn(5, 2), torch.randn(5, 3)
        policy = network.policy(Inputs(inputs, None, torch.arange(5)))
        expected = torch.distributions.Normal(network.actor(inputs), log_std.exp())
    torch.testing.assert_close(policy.entropy(), expected.entropy().sum(-1))
    torch.testing.assert_close(policy.log_prob(actions), expected.log_prob(actions).sum(-1))


# ------------------------------------------------------------- gradients by hand


def network_and_minibatch(
    kind: Kind, inputs: int, hidden: tuple[int, ...], outputs: int, distinct: int, steps: int, bits: bool, seed: int
) -> tuple[ActorCritic, Minibatch]:
    """Return a random network in double precision, and a minibatch whose ratios lie on both sides of the clipping."""
    generator = torch.Generator().manual_seed(seed)
    shape = PolicyShape(inputs, hidden, outputs, "gaussian" if kind == "gaussian" else "discrete")
    network = ActorCritic(shape, generator).double()
    for parameter in network.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    in_one_vector(network)
    rows = torch.cat([torch.arange(distinct), torch.randint(0, distinct, (steps,), generator=generator)])
    observed: torch.Tensor | Bits = torch.randn(distinct, inputs, generator=generator).double()
    if bits:
        observed = Bits(torch.randint(0, 2, (distinct, inputs), generator=generator, dtype=torch.int8).numpy())
    allowed = None
    if kind == "gaussian":
        actions = torch.randn(len(rows), outputs, generator=generator).double()
    else:
        actions = torch.randint(0, outputs, (len(rows),), generator=generator)
        if kind == "masked":
            allowed = torch.rand(distinct, outputs, generator=generator) < 0.4
            allowed[rows, actions] = True
    seen = Inputs(observed, allowed, rows)
    noise, advantage, returns = torch.randn(3, len(rows), generator=generator).double()
    with torch.no_grad():
        old = network.policy(seen).log_prob(actions) + 0.2 * noise
    return network, Minibatch(seen, actions, old, advantage, returns)


@given(
    st.sampled_from(["discrete", "masked", "gaussian"]),
    st.integers(1, 9),
    st.lists(st.integers(1, 7), max_size=3),
    st.integers(1, 6),
    st.integers(1, 11),
    st.integers(0, 30),
    st.booleans(),
    st.sampled_from([1, 2]),
    st.integers(0, 2**32),
)
def test_gradients_by_hand_are_autograds_of_the_loss(
    kind: Kind,
    inputs: int,
    hidden: list[int],
    outputs: int,
    distinct: int,
    steps: int,
    bits: bool,
    threads: int,
    seed: int,
) -> None:
    """In double precision, with observations that several steps saw."""
    network, minibatch = network_and_minibatch(kind, inputs, tuple(hidden), outputs, distinct, steps, bits, seed)
    config = PPOConfig(clip_range=0.1, entropy_coef=0.03, value_coef=0.7)
    found = []
    with differentiating_by_hand(threads) as by_hand:
        for way in (differentiate, by_hand):
            for parameter in network.parameters():
                parameter.grad.fill_(torch.nan)  # type: ignore[union-attr]  # what is there before must not count
            with torch.no_grad():
                terms = way(network, minibatch, config)
            gradients = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}  # type: ignore[union-attr]
            found.append(gradients | dict(zip(TERMS, terms, strict=True)))
    expected, got = found
    for name, each in expected.items():
        torch.testing.assert_close(got[name], each, rtol=1e-9, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kind", ["discrete", "masked", "gaussian"])
def test_random_minibatches_are_clipped_on_both_sides(kind: Kind) -> None:
    """So the test above sees every branch of the loss."""
    network, minibatch = network_and_minibatch(kind, 3, (8, 6), 4, 11, 30, False, seed=1)
    with torch.no_grad():
        ratio = (network.policy(minibatch.inputs).log_prob(minibatch.actions) - minibatch.old_log_probs).exp()
    for sign in (1, -1):
        towards = minibatch.advantages * sign > 0
        for name, where in (("below", ratio < 0.9), ("inside", (ratio - 1).abs() < 0.1), ("above", ratio > 1.1)):
            assert (where & towards).any(), f"no ratio {name} the clipping with an advantage of sign {sign}"


@pytest.mark.parametrize(("observation", "action"), ALL_KINDS)
def test_a_learner_learns_the_same_by_autograd(
    observation: Observation, action: Action | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU; with as many bits as are multiplied by their ones, and few."""
    spec = spec_of_kind(observation, action)
    config = PPOConfig(hidden_sizes=(8,), minibatch_size=16)
    learned = []
    for by_hand in (True, False):
        if not by_hand:
            monkeypatch.setattr(ppo, "differentiating_by_hand", lambda _: nullcontext(differentiate))
        one = learner(spec, config)
        for number in range(3):
            metrics = one.update(on_policy(one, spec, trajectories(spec, [9, 4, 17], seed=number)), 0.1)
        learned.append((everything(one), list(metrics.values())))
    for by_hand_found, by_autograd in zip(*learned, strict=True):
        np.testing.assert_allclose(by_hand_found, by_autograd, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("observation", "action"), ALL_KINDS)
def test_two_threads_learn_the_same_to_the_bit(
    observation: Observation, action: Action | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiotrain.learn.minibatch.MANY_BITS", 1)
    spec = spec_of_kind(observation, action)
    submitted, submit = [], ThreadPoolExecutor.submit

    def counted(*given: Any) -> Any:
        submitted.append(given)
        return submit(*given)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", counted)
    found = []
    for threads in (1, 2):
        assert not submitted
        one = learner(spec, threads=threads)
        batch = on_policy(one, spec, trajectories(spec, [9, 11]))
        found.append([one.update(batch, 0.1 * number) for number in range(3)])
        found[-1].append({name: array.tobytes() for name, array in one.tensors().items()})
    assert len(submitted) == 3 * PLAIN.epochs
    assert found[0] == found[1]


# ----------------------------------------------------- steps of an older policy


def test_importance_weights_are_bounded_ratios() -> None:
    got = importance_weights(torch.tensor([-1.0, -2.0, 0.0]), torch.tensor([-1.0, -1.0, -5.0]))
    torch.testing.assert_close(got, torch.tensor([1.0, math.exp(-1), 10.0]))


def test_what_was_played_under_masks_has_the_same_log_probabilities_in_learning() -> None:
    spec = spec_of_kind("box", None)
    one = learner(spec, dataclasses.replace(PLAIN, epochs=1, minibatch_size=10**6))
    batch = played(one, spec, trajectories(spec, [60]))
    np.testing.assert_allclose(on_policy(one, spec, batch).log_probs, batch.log_probs, atol=1e-5)
    metrics = one.update(batch, 0.0)
    assert metrics["policy_loss"] == pytest.approx(0, abs=1e-5), "some steps weigh as if an older policy had played"
    assert 0 < metrics["entropy"] < math.log(9)


@pytest.mark.parametrize("action", ["discrete", "gaussian"])
def test_steps_of_an_older_policy_are_weighted_and_clipping_starts_from_the_present_one(
    action: Action, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of("box", action)
    one = learner(spec, dataclasses.replace(PLAIN, epochs=1, minibatch_size=64))
    batch = on_policy(one, spec, trajectories(spec, [9, 11]))
    shift = np.random.default_rng(2).normal(0, 0.5, batch.steps).astype(np.float32)
    state = one.state_dict()
    seen = minibatches_of(monkeypatch)
    for acted in (batch.log_probs, batch.log_probs + shift):
        one.load_state_dict(state)  # with the random generator: the same minibatch
        one.update(dataclasses.replace(batch, log_probs=acted), 0.0)
    current, lagging = seen
    torch.testing.assert_close(lagging.old_log_probs, current.old_log_probs)
    assert sorted(current.old_log_probs.tolist()) == pytest.approx(sorted(batch.log_probs.tolist()), abs=1e-5)
    generator = torch.Generator().set_state(torch.from_numpy(state["generator"]))
    order = torch.randperm(batch.steps, generator=generator)
    expected = current.advantages * torch.from_numpy(np.exp(-shift))[order]
    torch.testing.assert_close(lagging.advantages, expected, rtol=1e-4, atol=1e-5)

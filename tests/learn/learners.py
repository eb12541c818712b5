"""Learners and batches for the tests of the learner, and a way to look at its minibatches."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from aiotrain.learn import ppo
from aiotrain.learn.minibatch import Inputs, Minibatch, inputs_of
from aiotrain.learn.networks import ActorCritic
from aiotrain.learn.ppo import Learner
from aiotrain.learn.settings import PPOConfig
from aiotrain.play.policy import NumpyPolicy, PolicyShape
from aiotrain.play.spaces import EnvSpec
from aiotrain.transport.trajectories import Trajectories
from envs import Action, Observation
from sample_data import spec_of

CPU = torch.device("cpu")
PLAIN = PPOConfig(scale_rewards=False, normalize_observations=False, hidden_sizes=(8,))
KINDS: list[tuple[Observation, Action]] = [("box", "discrete"), ("bits", "gaussian"), ("one_hot", "shifted")]
ALL_KINDS: list[tuple[Observation, Action | None]] = [*KINDS, ("bits", None)]
"""Observation and action of each kind of environment; None: 9 actions with masks."""


def masked(spec: EnvSpec) -> EnvSpec:
    """Return the same environment with 9 actions, some of which are masked."""
    return dataclasses.replace(spec, outputs=9, has_action_mask=True)


def spec_of_kind(observation: Observation, action: Action | None) -> EnvSpec:
    """Return the toy environment of one of ALL_KINDS."""
    return masked(spec_of(observation)) if action is None else spec_of(observation, action)


def learner(spec: EnvSpec, config: PPOConfig = PLAIN, seed: int = 0, threads: int = 1) -> Learner:
    return Learner(spec, PolicyShape.of(spec, config.hidden_sizes), config, seed=seed, device=CPU, threads=threads)


def everything(learner: Learner) -> npt.NDArray[np.float32]:
    """Return all parameters of policy and value network in one vector."""
    return np.concatenate([tensor.ravel() for tensor in learner.tensors().values()])


def inputs_for(batch: Trajectories, spec: EnvSpec, normalize: Callable[[Tensor], Tensor] | None = None) -> Inputs:
    """Return the inputs of the steps of ``batch``, without its final observations."""
    return inputs_of(batch, spec, CPU, normalize).first(batch.steps)


def on_policy(learner: Learner, spec: EnvSpec, batch: Trajectories) -> Trajectories:
    """Return ``batch`` with the log-probabilities that the learner's policy gives its actions."""
    with torch.no_grad():
        actions = torch.from_numpy(batch.actions)
        policy = learner.network.policy(inputs_for(batch, spec, learner.network.normalize))
        log_probs = policy.log_prob(actions.long() if spec.action_kind == "discrete" else actions)
    return dataclasses.replace(batch, log_probs=log_probs.numpy())


def played(learner: Learner, spec: EnvSpec, batch: Trajectories) -> Trajectories:
    """Return ``batch`` with what a worker does there by the learner's parameters, and its log-probabilities."""
    policy = numpy_policy(learner)
    noise = policy.noise(np.random.default_rng(0), batch.steps)
    masks = batch.masks if spec.has_action_mask else None
    actions, log_probs = policy.act(spec.encode(batch.observations), noise, masks)
    return dataclasses.replace(batch, actions=actions.astype(batch.actions.dtype), log_probs=log_probs)


def numpy_policy(learner: Learner) -> NumpyPolicy:
    """Return the policy that workers act by with the learner's parameters."""
    policy = NumpyPolicy(learner.network.shape)
    policy.parameters[:] = learner.parameters()
    policy.refresh()
    return policy


def log_softmax(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    normal: npt.NDArray[Any] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normal


def minibatches_of(monkeypatch: pytest.MonkeyPatch) -> list[Minibatch]:
    """Return a list to which learners append every minibatch that they learn from."""
    seen: list[Minibatch] = []
    by_hand = ppo.differentiating_by_hand

    @contextmanager
    def noting(threads: int) -> Iterator[Callable[[ActorCritic, Minibatch, PPOConfig], Tensor]]:
        with by_hand(threads) as differentiate:

            def noted(network: ActorCritic, minibatch: Minibatch, config: PPOConfig) -> Tensor:
                seen.append(minibatch)
                return differentiate(network, minibatch, config)

            yield noted

    monkeypatch.setattr(ppo, "differentiating_by_hand", noting)
    return seen


def share_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let learners take every observation for distinct from all others."""

    def unshared(*given: Any) -> Inputs:
        inputs = inputs_of(*given)
        allowed = None if inputs.allowed is None else inputs.allowed[inputs.rows]
        return Inputs(inputs.distinct[inputs.rows], allowed, torch.arange(len(inputs.rows)))

    monkeypatch.setattr(ppo, "inputs_of", unshared)


def assert_finite(learner: Learner, metrics: dict[str, float]) -> None:
    assert np.isfinite(everything(learner)).all(), "some parameters are not finite"
    assert all(math.isfinite(value) for value in metrics.values()), metrics

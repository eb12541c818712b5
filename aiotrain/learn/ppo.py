"""Proximal policy optimisation (Schulman et al., 2017): advantages, loss and update, in reading order.

N is the number of steps in a batch or minibatch, M that of a batch's trajectories. Everything is deterministic for a
given seed, device and sequence of batches, and draws nothing from torch's global generator.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import os
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aiotrain.learn.cpu_gradients import differentiating_by_hand
from aiotrain.learn.minibatch import Minibatch, inputs_of
from aiotrain.learn.networks import ActorCritic, in_one_vector
from aiotrain.learn.rewards import counted, has_no_future, padded, scaled
from aiotrain.learn.running_statistics import RunningMoments
from aiotrain.learn.settings import PPOConfig
from aiotrain.play.policy import FloatArray, PolicyShape
from aiotrain.play.spaces import EnvSpec
from aiotrain.transport.trajectories import Trajectories

__all__ = [
    "TERMS",
    "Learner",
    "advantages",
    "differentiate",
    "importance_weights",
    "loss",
    "pick_device",
    "use_deterministic_algorithms",
]

TERMS = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")
"""What is reported of the loss, in this order."""

_ADAM_EPSILON = 1e-5
_LARGEST_WEIGHT = 10.0  # many versions of lag would let one step outweigh all others


# ------------------------------------------------------------------- advantages


def advantages(
    rewards: FloatArray,
    values: FloatArray,
    final_values: FloatArray,
    lengths: npt.NDArray[Any],
    terminated: npt.NDArray[np.bool_],
    gamma: float,
    gae_lambda: float,
) -> FloatArray:
    """Return generalised advantage estimates ``[N]`` (Schulman et al., 2016).

    The estimate is the sum over k of (gamma · lambda)^k · delta_{t+k}, with delta_t = r_t + gamma · V_{t+1} - V_t.

    ``rewards`` and ``values`` ``[N]`` hold the steps of all trajectories one after the other, ``lengths`` ``[M]`` how
    many each has. Where a trajectory is cut, by truncation or the end of its slot, the value ``final_values`` ``[M]``
    of its last observation stands for the future; where it ``terminated`` ``[M]``, there is no future.
    """
    padded_rewards, there = padded(rewards, lengths)
    padded_values, _ = padded(values, lengths)
    next_values = np.zeros_like(padded_values)
    next_values[:, :-1] = padded_values[:, 1:]
    next_values[np.arange(len(lengths)), lengths - 1] = np.where(terminated, 0.0, final_values)
    deltas = (padded_rewards + gamma * next_values - padded_values) * there
    result = np.empty_like(deltas)
    running = np.zeros(len(lengths))
    for t in reversed(range(deltas.shape[1])):
        running = deltas[:, t] + gamma * gae_lambda * running  # zero until the trajectory's last step is reached
        result[:, t] = running
    return result[there].astype(np.float32)


# ------------------------------------------------------------------------- loss


def importance_weights(old_log_probs: Tensor, behaviour_log_probs: Tensor) -> Tensor:
    """Return the weights ``[N]`` of steps that an older policy may have played: pi_old(a|s) / pi_behaviour(a|s).

    These make the objective the decoupled one of Hilton, Cobbe and Schulman (2022): clipping limits the distance from
    the policy that the update begins with, whichever policy acted. Without it, a policy lag of 1 costs a third to a
    half of the episodes.
    """
    return (old_log_probs - behaviour_log_probs).exp().clamp(max=_LARGEST_WEIGHT)


def loss(network: ActorCritic, minibatch: Minibatch, config: PPOConfig) -> tuple[Tensor, Tensor]:
    """Return the loss to minimise (Schulman et al., 2017, equation 9), and the sums ``[5]`` of TERMS over the steps.

    The advantages of ``minibatch`` carry the importance weights.
    """
    clip = config.clip_range
    policy, values = network.policy(minibatch.inputs), network.value(minibatch.inputs)
    log_ratio = policy.log_prob(minibatch.actions) - minibatch.old_log_probs
    ratio = log_ratio.exp()
    surrogate = ratio * minibatch.advantages
    clipped = ratio.clamp(1 - clip, 1 + clip) * minibatch.advantages
    policy_loss = -torch.minimum(surrogate, clipped)
    value_loss = 0.5 * (values - minibatch.returns).square()
    entropy = policy.entropy()
    total = policy_loss + config.value_coef * value_loss - config.entropy_coef * entropy

    kl = ratio - 1 - log_ratio  # never negative, and unbiased without lag: Schulman (2020), "Approximating KL"
    is_clipped = (ratio - 1).abs() > clip
    terms = [policy_loss, value_loss, entropy, kl, is_clipped]
    return total.mean(), torch.stack([term.detach().sum() for term in terms])


def differentiate(network: ActorCritic, minibatch: Minibatch, config: PPOConfig) -> Tensor:
    """Overwrite the gradients of ``network`` with those of the loss; return the sums ``[5]`` of TERMS over the steps.

    Autograd works on any device. On a CPU, `cpu_gradients.differentiating_by_hand` does the same faster.
    """
    network.zero_grad(set_to_none=False)
    with torch.enable_grad():
        total, terms = loss(network, minibatch, config)
    total.backward()  # type: ignore[no-untyped-call]
    return terms


# ----------------------------------------------------------------------- update


def _between(start: float, end: float | None, progress: float) -> float:
    """Return a setting on its straight way from ``start`` to ``end``; None: it stays."""
    return start if end is None else start + (end - start) * progress


class Learner:
    """Policy, value network and optimiser; `update` learns from one batch.

    With more than one of ``threads``, on a CPU, the value network learns beside the policy: the same, bit for bit.
    """

    def __init__(
        self, spec: EnvSpec, shape: PolicyShape, config: PPOConfig, *, seed: int, device: torch.device, threads: int = 1
    ) -> None:
        self.device = device
        self._spec, self._config, self._threads = spec, config, threads
        self._generator = torch.Generator().manual_seed(seed)
        self.network = ActorCritic(shape, self._generator).to(device)
        self._vector, self._gradient = in_one_vector(self.network)
        self._optimizer = torch.optim.Adam([self._vector], lr=config.learning_rate, eps=_ADAM_EPSILON, fused=True)
        normalize = config.normalize_observations
        if normalize is None:
            normalize = spec.observation_kind == "box" and np.dtype(spec.observation_dtype).kind == "f"
        self._input_moments = RunningMoments() if normalize else None
        self._return_moments = RunningMoments()

    @torch.no_grad()
    def update(self, batch: Trajectories, progress: float) -> dict[str, float]:
        """Learn from ``batch``; return TERMS, ``explained_variance`` and ``learning_rate`` by name.

        ``progress`` is the share of the budget that is used up, 0 to 1.
        """
        config = self._config
        learning_rate = _between(config.learning_rate, config.final_learning_rate, progress)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        entropy_coef = _between(config.entropy_coef, config.final_entropy_coef, progress)
        steps, explained_variance = self._steps_of(batch)
        terms = self._descend(steps, dataclasses.replace(config, entropy_coef=entropy_coef))
        if self._input_moments is not None:  # now only: the batch's log-probabilities belong to the old normalisation
            self._input_moments.add(self._spec.encode(batch.observations))
            self.network.normalize_by(self._input_moments)
        metrics = dict(zip(TERMS, terms.tolist(), strict=True))
        return metrics | {"explained_variance": explained_variance, "learning_rate": learning_rate}

    def _steps_of(self, batch: Trajectories) -> tuple[Minibatch, float]:
        """Return all steps of ``batch`` with their weighted advantages, and the variance that the values explain."""
        config, device = self._config, self.device
        normalize = None if self._input_moments is None else self.network.normalize
        inputs = inputs_of(batch, self._spec, device, normalize)
        values, final_values = np.split(self.network.value(inputs).cpu().numpy(), [batch.steps])
        rewards, lengths = counted(batch, config.horizons), batch.headers["length"]
        if config.scale_rewards:
            rewards = scaled(rewards, lengths, config.gamma, self._return_moments)
        over = has_no_future(batch.headers, config.horizons)
        estimates = advantages(rewards, values, final_values, lengths, over, config.gamma, config.gae_lambda)
        normalized = torch.from_numpy((estimates - estimates.mean()) / (estimates.std() + 1e-8)).to(device)
        returns = estimates + values

        inputs = inputs.first(batch.steps)
        actions = torch.from_numpy(batch.actions).to(device)
        if self._spec.action_kind == "discrete":
            actions = actions.long()
        old_log_probs = self.network.policy(inputs).log_prob(actions)
        weights = importance_weights(old_log_probs, torch.from_numpy(batch.log_probs).to(device))
        steps = Minibatch(inputs, actions, old_log_probs, normalized * weights, torch.from_numpy(returns).to(device))
        unexplained = float(np.var(estimates)) / max(float(np.var(returns)), 1e-12)
        return steps, 1.0 - unexplained

    def _descend(self, steps: Minibatch, config: PPOConfig) -> Tensor:
        """Take a gradient step for each minibatch of each epoch; return the means ``[5]`` of TERMS."""
        count = len(steps.actions)
        minibatches = math.ceil(count / config.minibatch_size)
        by_hand = self.device.type == "cpu"
        means = []
        with differentiating_by_hand(self._threads) if by_hand else nullcontext(differentiate) as overwrite_gradients:
            for _ in range(config.epochs):
                order = torch.randperm(count, generator=self._generator).to(self.device)
                terms = []
                for places in order.tensor_split(minibatches):
                    terms.append(overwrite_gradients(self.network, steps.at(places), config))
                    self._gradient.mul_((config.max_grad_norm / (self._gradient.norm() + 1e-6)).clamp(max=1))
                    self._optimizer.step()
                means.append(torch.stack(terms).sum(0) / count)
                if config.target_kl is not None and float(means[-1][TERMS.index("approx_kl")]) > config.target_kl:
                    break
        return torch.stack(means).mean(0)

    def parameters(self) -> FloatArray:
        """Return the policy's parameters ``[shape.size]``, float32, for publishing."""
        return self.network.flat_parameters()

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return everything in policy and value network by name, for a file."""
        return {name: tensor.cpu().numpy() for name, tensor in self.network.state_dict().items()}

    def snapshot(self) -> dict[str, Any]:
        """Return a copy of all that was learned, as arrays: networks, optimiser, scales of rewards and inputs.

        To go back to with `go_back_to`: the random generator goes on.
        """
        adam = self._optimizer.state.get(self._vector, {})  # empty before the first step
        return copy.deepcopy(
            {
                "network": self.tensors(),
                "optimizer": {name: tensor.cpu().numpy() for name, tensor in adam.items()},
                "input_moments": None if self._input_moments is None else self._input_moments.state_dict(),
                "return_moments": self._return_moments.state_dict(),
            }
        )

    def go_back_to(self, snapshot: Mapping[str, Any]) -> None:
        """Forget all that is not in ``snapshot``. Raises KeyError, RuntimeError, TypeError or ValueError."""
        state = copy.deepcopy(dict(snapshot))
        self.network.load_state_dict({name: torch.from_numpy(array) for name, array in dict(state["network"]).items()})
        adam = {name: torch.from_numpy(array) for name, array in dict(state["optimizer"]).items()}
        if adam and [adam[name].shape for name in ("step", "exp_avg", "exp_avg_sq")] != [(), *[self._vector.shape] * 2]:
            raise ValueError("the optimiser's moments do not have the shape of the parameters")
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": {0: adam} if adam else {}, "param_groups": groups})
        if self._input_moments is not None:
            self._input_moments.load_state_dict(dict(state["input_moments"]), (self._spec.inputs,))
            self.network.normalizes = self._input_moments.count > 0
        self._return_moments.load_state_dict(dict(state["return_moments"]))

    def state_dict(self) -> dict[str, Any]:
        """Return a snapshot and the state of the random generator, for a checkpoint.

        To go on from with `load_state_dict`: the updates that follow are the same, bit for bit.
        """
        return {**self.snapshot(), "generator": self._generator.get_state().numpy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly as the learner that gave ``state``. Raises KeyError, RuntimeError, TypeError or ValueError."""
        self.go_back_to(state)
        self._generator.set_state(torch.from_numpy(state["generator"]))


# ----------------------------------------------------------------------- device


def pick_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return the device that ``wanted`` means here. Raises ValueError for cuda where there is none."""
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ValueError("device: cuda is asked for, but torch finds no GPU; use auto or cpu")
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


def use_deterministic_algorithms() -> None:
    """Have torch compute the same bits each time on a GPU, for the whole process; on a CPU, it does so anyway."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which cuBLAS reads when it is used first
    torch.use_deterministic_algorithms(True)

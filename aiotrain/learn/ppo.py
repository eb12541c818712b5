"""Proximal policy optimisation (Schulman et al., 2017): advantages, loss and update, in reading order.

N is the number of steps in a batch, M that of its trajectories. Everything is deterministic for a given seed, device
and sequence of batches, and draws nothing from torch's global generator.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from aiotrain.learn.networks import ActorCritic, Bits, in_one_vector
from aiotrain.learn.running_statistics import RunningMoments
from aiotrain.learn.settings import PPOConfig
from aiotrain.play.policy import PolicyShape
from aiotrain.play.spaces import EnvSpec
from aiotrain.transport.trajectories import Trajectories

__all__ = ["Learner", "advantages", "pick_device", "use_deterministic_algorithms"]

FloatArray = npt.NDArray[np.float32]

_ADAM_EPSILON = 1e-5
_LARGEST_WEIGHT = 10.0  # of a step that an older policy played; many versions of lag would let one step outweigh all
_MANY_BITS = 128  # inputs from which on products with the ones alone are faster (python -m bench.learner)
_SMALLEST_DEVIATION = 1e-6  # of returns: less is none at all, and no measure of the rewards' scale


def pick_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device that ``wanted`` means here. Raises ValueError for cuda where there is none."""
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ValueError("device: cuda is asked for, but torch finds no GPU; use auto or cpu")
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


def use_deterministic_algorithms() -> None:
    """Have torch compute the same bits each time on a GPU, for the whole process; on a CPU, it does here anyway."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which cuBLAS reads when it is used first
    torch.use_deterministic_algorithms(True)


# ------------------------------------------------------------------- advantages


def _padded(flat: FloatArray, lengths: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Steps ``[N]`` as ``[M, T]``, zero beyond each trajectory's end, and where there are steps."""
    there = np.arange(lengths.max()) < lengths[:, None]
    padded = np.zeros(there.shape)
    padded[there] = flat
    return padded, there


def advantages(
    rewards: FloatArray,
    values: FloatArray,
    final_values: FloatArray,
    lengths: npt.NDArray[Any],
    terminated: npt.NDArray[np.bool_],
    gamma: float,
    gae_lambda: float,
) -> FloatArray:
    """Generalised advantage estimates ``[N]`` (Schulman et al., 2016).

    ``rewards`` and ``values`` ``[N]`` hold the steps of all trajectories one after the other, ``lengths`` ``[M]`` how
    many each has. Where a trajectory is cut, by truncation or the end of its slot, the value ``final_values`` ``[M]``
    of what was seen last takes the place of the future; where it ``terminated``, there is none.
    """
    padded_rewards, there = _padded(rewards, lengths)
    padded_values, _ = _padded(values, lengths)
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


def _discounted_returns_so_far(rewards: FloatArray, lengths: npt.NDArray[Any], gamma: float) -> npt.NDArray[np.float64]:
    """For each step, the discounted sum of the rewards up to it; its deviation is a measure of the rewards' scale."""
    padded, there = _padded(rewards, lengths)
    for t in range(1, padded.shape[1]):
        padded[:, t] += gamma * padded[:, t - 1]
    result: npt.NDArray[np.float64] = padded[there]
    return result


def _counts(headers: npt.NDArray[np.void], horizons: Sequence[int]) -> FloatArray:
    """For each step ``[N]``, how many of ``horizons`` it lies within: so many times its reward counts."""
    lengths = headers["length"]
    ends = np.cumsum(lengths)
    step = np.arange(ends[-1]) + np.repeat(headers["episode_steps"] - ends, lengths)
    counts: FloatArray = np.sum([step < horizon for horizon in horizons], 0, np.float32)
    return counts


# ---------------------------------------------------------------------- update


def _side_by_side(observations: npt.NDArray[Any], masks: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """The bytes of ``observations`` ``[N, *shape]`` and of ``masks`` ``[N, actions]``, a row each."""
    flat = np.ascontiguousarray(observations).reshape(len(observations), -1)
    return np.hstack([flat.view(np.uint8), masks.view(np.uint8)])


def _between(start: float, end: float | None, progress: float) -> float:
    """A setting on its straight way from ``start`` to ``end``; None: it stays."""
    return start if end is None else start + (end - start) * progress


class Learner:
    """Policy, value network and optimiser; ``update`` learns from one batch.

    With more than one of ``threads``, on a CPU, the value network learns beside the policy: the same, bit for bit.
    """

    def __init__(
        self, spec: EnvSpec, shape: PolicyShape, config: PPOConfig, *, seed: int, device: torch.device, threads: int = 1
    ) -> None:
        self.device = device
        self._spec = spec
        self._config = config
        self._generator = torch.Generator().manual_seed(seed)
        self.network = ActorCritic(shape, self._generator).to(device)
        self._vector = in_one_vector(list(self.network.parameters()))
        self._optimizer = torch.optim.Adam([self._vector], lr=config.learning_rate, eps=_ADAM_EPSILON, fused=True)
        normalize = config.normalize_observations
        if normalize is None:
            normalize = spec.observation_kind == "box" and np.dtype(spec.observation_dtype).kind == "f"
        self._input_moments = RunningMoments() if normalize else None
        self._takes_bits = (
            spec.observation_kind == "bits" and spec.inputs >= _MANY_BITS and device.type == "cpu" and not normalize
        )
        self._return_moments = RunningMoments()
        self._entropy_coef = config.entropy_coef
        self._has_two_threads = threads > 1 and device.type == "cpu"

    def parameters(self) -> FloatArray:
        """The policy's parameters, flat, for publishing."""
        return self.network.flat_parameters()

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Everything in policy and value network by name, for a file."""
        return {name: tensor.cpu().numpy() for name, tensor in self.network.state_dict().items()}

    def state(self) -> dict[str, Any]:
        """A copy of all that was learned, as arrays, for `load`: networks, optimiser, scales of rewards and inputs."""
        adam = self._optimizer.state.get(self._vector, {})  # empty before the first step
        return copy.deepcopy(
            {
                "network": self.tensors(),
                "optimizer": {name: tensor.cpu().numpy() for name, tensor in adam.items()},
                "input_moments": None if self._input_moments is None else self._input_moments.state_dict(),
                "return_moments": self._return_moments.state_dict(),
            }
        )

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave, but for the random generator. Raises KeyError, RuntimeError or ValueError."""
        state = copy.deepcopy(dict(state))
        self.network.load_state_dict({name: torch.from_numpy(array) for name, array in state["network"].items()})
        adam = {name: torch.from_numpy(array) for name, array in state["optimizer"].items()}
        if adam and [adam[name].shape for name in ("step", "exp_avg", "exp_avg_sq")] != [(), *[self._vector.shape] * 2]:
            raise ValueError("the optimiser's moments do not have the shape of the parameters")
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": {0: adam} if adam else {}, "param_groups": groups})
        if self._input_moments is not None:
            self._input_moments.load_state_dict(state["input_moments"], (self._spec.inputs,))
            self.network.normalizes = self._input_moments.count > 0
        self._return_moments.load_state_dict(state["return_moments"])

    def state_dict(self) -> dict[str, Any]:
        """`state`, and that of the random generator: the learner as a checkpoint holds it."""
        return {**self.state(), "generator": self._generator.get_state().numpy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly as the learner would have that gave ``state``. Raises KeyError, RuntimeError or ValueError."""
        self.load(state)
        self._generator.set_state(torch.from_numpy(state["generator"]))

    @torch.no_grad()
    def update(self, batch: Trajectories, progress: float) -> dict[str, float]:
        """Learn from ``batch``; ``progress`` is the share of the budget that is used up, 0 to 1. Returns metrics."""
        config = self._config
        learning_rate = _between(config.learning_rate, config.final_learning_rate, progress)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._entropy_coef = _between(config.entropy_coef, config.final_entropy_coef, progress)

        observations = np.concatenate([batch.observations, batch.final_observations])
        masks = np.concatenate([batch.masks, np.zeros((len(batch.headers), batch.masks.shape[1]), np.int8)])
        first, rows = self._distinct(_side_by_side(observations, masks) if batch.masks.size else observations)
        allowed = torch.from_numpy(masks[first] != 0).to(self.device) if batch.masks.size else None
        inputs = self._inputs(observations[first])
        values, final_values = np.split(self.network.value(inputs).cpu().numpy()[rows], [batch.steps])
        estimates = advantages(
            self._scaled_rewards(batch),
            values,
            final_values,
            batch.headers["length"],
            self._has_no_future(batch.headers),
            config.gamma,
            config.gae_lambda,
        )
        actions = torch.from_numpy(batch.actions).to(self.device)
        if self._spec.action_kind == "discrete":
            actions = actions.long()
        advantage = torch.from_numpy((estimates - estimates.mean()) / (estimates.std() + 1e-8)).to(self.device)
        returns = torch.from_numpy(estimates + values).to(self.device)

        # Steps that an older policy played are weighted, and what is clipped is the distance from the policy that is
        # updated here: the decoupled objective of Hilton, Cobbe and Schulman (2022), without which a policy lag of 1
        # costs a third to a half of the episodes.
        row_of_step = torch.from_numpy(rows[: batch.steps])
        policy = self.network.distribution(self.network.actor.activations(inputs)[-1], allowed)
        old_log_probs = policy.log_prob(row_of_step.to(self.device), actions)
        acted = torch.from_numpy(batch.log_probs).to(self.device)
        advantage *= (old_log_probs - acted).exp().clamp(max=_LARGEST_WEIGHT)

        minibatches = math.ceil(batch.steps / config.minibatch_size)
        terms = []
        with ThreadPoolExecutor(1, "aiotrain-critic") if self._has_two_threads else nullcontext() as beside:
            for _ in range(config.epochs):
                order = torch.randperm(batch.steps, generator=self._generator)
                terms_of_epoch = []
                for steps in order.tensor_split(minibatches):
                    needed, rows_of_steps = torch.unique(row_of_step[steps], return_inverse=True)
                    steps, needed = steps.to(self.device), needed.to(self.device)
                    allowed_there = None if allowed is None else allowed.index_select(0, needed)
                    whole = (actions, old_log_probs, advantage, returns)
                    minibatch = (each.index_select(0, steps) for each in whole)
                    terms_of_epoch.append(
                        self._differentiate(
                            beside, inputs[needed], allowed_there, rows_of_steps.to(self.device), *minibatch
                        )
                    )
                    self._step()
                terms.append(torch.stack(terms_of_epoch).sum(0) / batch.steps)
                if config.target_kl is not None and float(terms[-1][3]) > config.target_kl:
                    break

        if self._input_moments is not None:
            self._renew_normalisation(batch.observations)
        names = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")
        metrics = dict(zip(names, torch.stack(terms).mean(0).tolist(), strict=True))
        unexplained = float(np.var(estimates)) / max(float(np.var(estimates + values)), 1e-12)
        return metrics | {"explained_variance": 1.0 - unexplained, "learning_rate": learning_rate}

    def _distinct(self, observations: npt.NDArray[Any]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Where each distinct one of ``observations`` ``[N, *shape]`` is first, and for each the number of its equal.

        What policy and value network make of an observation, and how what they make depends on their parameters, need
        only be computed once for all steps that saw the same: in CAGE 2, three to thirty of a hundred in a minibatch.
        """
        if self.device.type != "cpu":  # where to add up what several steps contribute would have no fixed order
            everything = np.arange(len(observations))
            return everything, everything
        flat = np.ascontiguousarray(observations).reshape(len(observations), -1)
        _, first, rows = np.unique(
            flat.view(f"V{flat.shape[1] * flat.itemsize}")[:, 0], return_index=True, return_inverse=True
        )
        return first, rows

    def _differentiate(
        self,
        beside: Executor | None,
        inputs: Tensor | Bits,
        allowed: Tensor | None,
        rows: Tensor,
        actions: Tensor,
        old_log_probs: Tensor,
        advantage: Tensor,
        returns: Tensor,
    ) -> Tensor:
        """Overwrite all gradients with those of a minibatch's loss, and return its terms, summed, for the report.

        ``inputs`` ``[U, inputs]`` are distinct, with the actions ``allowed`` ``[U, actions]`` if not all are, and
        ``rows`` ``[N]`` tell which of them each step saw. The loss is the mean of
        -min(ratio · advantage, clipped ratio · advantage) + value_coef · error² / 2 - entropy_coef · entropy.
        """
        valued = None if beside is None else beside.submit(self._differentiate_values, inputs, rows, returns)
        config, network, count = self._config, self.network, len(rows)
        acted = network.actor.activations(inputs)
        policy = network.distribution(acted[-1], allowed)
        log_ratio = policy.log_prob(rows, actions) - old_log_probs
        ratio = log_ratio.exp()
        surrogate = ratio * advantage
        clipped = ratio.clamp(1 - config.clip_range, 1 + config.clip_range) * advantage
        of_log_prob = torch.where(surrogate <= clipped, surrogate, 0) / -count  # dratio / dlog p = ratio
        network.actor.backward(inputs, acted, policy.backward(rows, actions, of_log_prob, -self._entropy_coef / count))

        excess = ratio - 1
        return torch.stack(
            [
                -torch.minimum(surrogate, clipped).sum(),
                self._differentiate_values(inputs, rows, returns) if valued is None else valued.result(),
                policy.entropy.index_select(0, rows).sum(),
                (excess - log_ratio).sum(),  # KL, never negative, unbiased without lag: Schulman (2020), note on KL
                (excess.abs() > config.clip_range).sum(),
            ]
        )

    @torch.no_grad()  # which holds for a thread
    def _differentiate_values(self, inputs: Tensor | Bits, rows: Tensor, returns: Tensor) -> Tensor:
        """The part of `_differentiate` that is the value network's; returns the sum of error² / 2."""
        critic = self.network.critic
        valued = critic.activations(inputs)
        error = valued[-1].view(-1).index_select(0, rows) - returns
        scale = self._config.value_coef / len(rows)
        of_values = error.new_zeros(len(inputs)).index_add_(0, rows, error, alpha=scale)
        critic.backward(inputs, valued, of_values[:, None])
        return 0.5 * error.square().sum()

    def _step(self) -> None:
        """Clip the gradients by their common norm and step along them."""
        gradient = self._vector.grad
        assert gradient is not None
        gradient.mul_((self._config.max_grad_norm / (gradient.norm() + 1e-6)).clamp(max=1))
        self._optimizer.step()

    def _inputs(self, observations: npt.NDArray[Any]) -> Tensor | Bits:
        """Observations as the network's inputs ``[N, inputs]``, moved to the device in their own, smaller dtype."""
        if self._takes_bits:
            return Bits(observations.reshape(len(observations), -1))
        stored = torch.from_numpy(np.ascontiguousarray(observations)).to(self.device)
        if self._spec.observation_kind == "one_hot":
            dense = functional.one_hot(stored.long() - self._spec.observation_start, self._spec.inputs).float()
        else:
            dense = stored.reshape(len(stored), self._spec.inputs).float()
        return self.network.normalize(dense)

    def _has_no_future(self, headers: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
        """Which trajectories ``[M]`` nothing can follow that counts."""
        over: npt.NDArray[np.bool_] = headers["terminated"]
        if self._config.horizons:
            over = over | (headers["episode_steps"] >= max(self._config.horizons))
        return over

    def _scaled_rewards(self, batch: Trajectories) -> FloatArray:
        rewards = batch.rewards
        if self._config.horizons:
            rewards = rewards * _counts(batch.headers, self._config.horizons)
        rewards = rewards + batch.bonuses
        if not self._config.scale_rewards:
            return rewards
        returns = _discounted_returns_so_far(rewards, batch.headers["length"], self._config.gamma)
        self._return_moments.add(returns)
        deviation = math.sqrt(float(self._return_moments.variance))
        return rewards / np.float32(deviation) if deviation > _SMALLEST_DEVIATION else rewards

    def _renew_normalisation(self, observations: npt.NDArray[Any]) -> None:
        """After the update, because the behaviour log-probs of its batch belong to the old normalisation."""
        assert self._input_moments is not None
        self._input_moments.add(self._spec.encode(observations))
        self.network.normalizes = True
        self.network.input_mean.copy_(torch.from_numpy(self._input_moments.mean))
        self.network.input_scale.copy_(torch.from_numpy(1 / np.sqrt(self._input_moments.variance + 1e-8)))

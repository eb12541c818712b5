"""Proximal policy optimisation (Schulman et al., 2017), from the network to the update, in reading order.

N is the number of steps in a batch, M that of its trajectories. Everything is deterministic for a given seed, device
and sequence of batches, and draws nothing from torch's global generator.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from aiotrain.config import PPOConfig
from aiotrain.policy import INPUT_CLIP, PolicyShape
from aiotrain.ring import Trajectories
from aiotrain.spaces import EnvSpec

__all__ = ["Learner", "advantages", "pick_device"]

FloatArray = npt.NDArray[np.float32]

# Orthogonal initialisation with these gains: Andrychowicz et al. (2021), "What matters in on-policy reinforcement
# learning?": small last weights of the policy make the first actions nearly uniform.
_HIDDEN_GAIN = math.sqrt(2)
_POLICY_GAIN = 0.01
_VALUE_GAIN = 1.0
_ADAM_EPSILON = 1e-5
_SMALLEST_DEVIATION = 1e-6  # of returns: less is none at all, and no measure of the rewards' scale


def pick_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device that ``wanted`` means here. Raises ValueError for cuda where there is none."""
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ValueError("device: cuda is asked for, but torch finds no GPU; use auto or cpu")
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


# ---------------------------------------------------------------------- network


class _Tanh(torch.autograd.Function):
    """tanh by way of the logistic function, tanh(x) = 2 σ(2x) - 1, which torch computes four times as fast on a CPU.

    The absolute error is below 3e-7.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        outputs = torch.sigmoid(2 * inputs).mul_(2).sub_(1)
        ctx.save_for_backward(outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (outputs,) = ctx.saved_tensors
        derived: Tensor = torch.ops.aten.tanh_backward(gradients[0], outputs)
        return derived


class _Categorical(torch.autograd.Function):
    """Log-probability of an action and entropy, for logits; its own derivative takes half of autograd's time.

    With p the probabilities and H the entropy: dlog p_a / dz = 1_a - p and dH / dz = -p (log p + H).
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        log_probs = functional.log_softmax(logits, dim=-1)
        probabilities = log_probs.exp()
        entropy = -torch.linalg.vecdot(probabilities, log_probs)
        ctx.save_for_backward(log_probs, probabilities, entropy, actions)
        return log_probs.gather(-1, actions[:, None]).squeeze(-1), entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        of_log_prob, of_entropy = (gradient[:, None] for gradient in gradients)
        log_probs, probabilities, entropy, actions = ctx.saved_tensors
        of_logits = (log_probs + entropy[:, None]).mul_(-of_entropy).sub_(of_log_prob).mul_(probabilities)
        return of_logits.scatter_add_(-1, actions[:, None], of_log_prob), None


class Tanh(nn.Module):
    """The units of the hidden layers."""

    def forward(self, inputs: Tensor) -> Tensor:
        """tanh of each number."""
        outputs: Tensor = _Tanh.apply(inputs)  # type: ignore[no-untyped-call]
        return outputs


def _perceptron(sizes: list[int], last_gain: float, generator: torch.Generator) -> nn.Sequential:
    """Dense layers with tanh between them."""
    layers: list[nn.Module] = []
    for index, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        last = index == len(sizes) - 2
        dense: nn.Linear = nn.utils.skip_init(nn.Linear, fan_in, fan_out)  # type: ignore[no-untyped-call]
        nn.init.orthogonal_(dense.weight, last_gain if last else _HIDDEN_GAIN, generator=generator)
        nn.init.zeros_(dense.bias)
        layers += [dense] if last else [dense, Tanh()]
    return nn.Sequential(*layers)


class ActorCritic(nn.Module):
    """Policy and value network, apart from each other; both see the same normalised inputs."""

    input_mean: Tensor
    input_scale: Tensor

    def __init__(self, shape: PolicyShape, generator: torch.Generator) -> None:
        super().__init__()
        self.shape = shape
        sizes = [shape.inputs, *shape.hidden]
        self.actor = _perceptron([*sizes, shape.outputs], _POLICY_GAIN, generator)
        self.critic = _perceptron([*sizes, 1], _VALUE_GAIN, generator)
        self.log_std = nn.Parameter(torch.zeros(shape.outputs)) if shape.kind == "gaussian" else None
        self.register_buffer("input_mean", torch.zeros(shape.inputs))
        self.register_buffer("input_scale", torch.ones(shape.inputs))
        self.normalizes = False

    def normalize(self, inputs: Tensor) -> Tensor:
        """Inputs ``[N, inputs]`` as the layers take them: as they are until there is something to normalise by."""
        if not self.normalizes:
            return inputs
        return ((inputs - self.input_mean) * self.input_scale).clamp(-INPUT_CLIP, INPUT_CLIP)

    def value(self, normalized: Tensor) -> Tensor:
        """Value estimates ``[N]``, in units of the scaled reward."""
        value: Tensor = self.critic(normalized).squeeze(-1)
        return value

    def log_prob_and_entropy(self, normalized: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of ``actions`` and the entropies of the distributions they come from, ``[N]`` each."""
        head = self.actor(normalized)
        if self.log_std is not None:
            deviation = (actions - head) * torch.exp(-self.log_std)
            constant = self.log_std.sum() + 0.5 * math.log(2 * math.pi) * self.shape.outputs
            entropy = (constant + 0.5 * self.shape.outputs).expand(len(head))
            return -0.5 * (deviation * deviation).sum(-1) - constant, entropy
        log_prob, entropy = _Categorical.apply(head, actions)  # type: ignore[no-untyped-call]
        return log_prob, entropy

    def flat_parameters(self) -> FloatArray:
        """The policy's parameters ``[shape.size]`` as policy.PolicyShape lays them out."""
        vector = np.empty(self.shape.size, np.float32)
        tensors = [self.input_mean, self.input_scale]
        for layer in self.actor:
            if isinstance(layer, nn.Linear):
                tensors += [layer.weight.T, layer.bias]
        if self.log_std is not None:
            tensors.append(self.log_std)
        for view, tensor in zip(self.shape.split(vector), tensors, strict=True):
            view[...] = tensor.detach().cpu().numpy()
        return vector


# ------------------------------------------------------------------- advantages


@dataclass
class RunningMoments:
    """Mean and variance of all that was added, by merging (Chan, Golub & LeVeque, 1979)."""

    count: float = 0.0
    mean: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(()))
    variance: npt.NDArray[np.float64] = field(default_factory=lambda: np.ones(()))

    def add(self, values: npt.NDArray[Any]) -> None:
        """Add ``values`` ``[N, …]``."""
        count = len(values)
        mean, variance = values.mean(axis=0, dtype=np.float64), values.var(axis=0, dtype=np.float64)
        total = self.count + count
        delta = mean - self.mean
        squares = self.variance * self.count + variance * count + delta**2 * self.count * count / total
        self.mean = self.mean + delta * count / total
        self.variance = squares / total
        self.count = total


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


# ---------------------------------------------------------------------- update


class Learner:
    """Policy, value network and optimiser; ``update`` learns from one batch."""

    def __init__(
        self, spec: EnvSpec, shape: PolicyShape, config: PPOConfig, *, seed: int, device: torch.device
    ) -> None:
        self.device = device
        self._spec = spec
        self._config = config
        self._generator = torch.Generator().manual_seed(seed)
        self.network = ActorCritic(shape, self._generator).to(device)
        # One fused kernel instead of a dozen small ones for each tensor: half the time of a small gradient step.
        self._optimizer = torch.optim.Adam(
            self.network.parameters(), lr=config.learning_rate, eps=_ADAM_EPSILON, fused=True
        )
        normalize = config.normalize_observations
        if normalize is None:
            normalize = spec.observation_kind == "box" and np.dtype(spec.observation_dtype).kind == "f"
        self._input_moments = RunningMoments() if normalize else None
        self._return_moments = RunningMoments()

    def parameters(self) -> FloatArray:
        """The policy's parameters, flat, for publishing."""
        return self.network.flat_parameters()

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Everything in policy and value network by name, for a file."""
        return {name: tensor.cpu().numpy() for name, tensor in self.network.state_dict().items()}

    def update(self, batch: Trajectories, progress: float) -> dict[str, float]:
        """Learn from ``batch``; ``progress`` is the share of the budget that is used up, 0 to 1. Returns metrics."""
        config = self._config
        learning_rate = config.learning_rate + (config.final_learning_rate - config.learning_rate) * progress
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate

        inputs = self.network.normalize(self._inputs(batch.observations))
        actions = torch.from_numpy(batch.actions).to(self.device)
        if self._spec.action_kind == "discrete":
            actions = actions.long()
        old_log_probs = torch.from_numpy(batch.log_probs).to(self.device)
        with torch.no_grad():
            values = self.network.value(inputs).cpu().numpy()
            final_values = self.network.value(self.network.normalize(self._inputs(batch.final_observations)))
        estimates = advantages(
            self._scaled_rewards(batch),
            values,
            final_values.cpu().numpy(),
            batch.headers["length"],
            batch.headers["terminated"],
            config.gamma,
            config.gae_lambda,
        )
        returns = torch.from_numpy(estimates + values).to(self.device)
        advantage = torch.from_numpy((estimates - estimates.mean()) / (estimates.std() + 1e-8)).to(self.device)

        sums = torch.zeros(5, device=self.device)
        steps_learned = 0
        minibatches = math.ceil(batch.steps / config.minibatch_size)
        for _ in range(config.epochs):
            # One shuffle of everything is cheaper than picking each minibatch's rows on their own.
            order = torch.randperm(batch.steps, generator=self._generator).to(self.device)
            shuffled = [whole.index_select(0, order) for whole in (inputs, actions, old_log_probs, advantage, returns)]
            kl_of_epoch = torch.zeros((), device=self.device)
            for minibatch in zip(*(whole.tensor_split(minibatches) for whole in shuffled), strict=True):
                loss, terms = self._loss(*minibatch)
                self._optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(self.network.parameters(), config.max_grad_norm)
                self._optimizer.step()
                sums += terms * len(minibatch[0])
                kl_of_epoch += terms[3] * len(minibatch[0])
                steps_learned += len(minibatch[0])
            if config.target_kl is not None and float(kl_of_epoch) / batch.steps > config.target_kl:
                break

        if self._input_moments is not None:
            self._renew_normalisation(batch.observations)
        names = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")
        metrics = dict(zip(names, (sums / steps_learned).tolist(), strict=True))
        unexplained = float(np.var(estimates)) / max(float(np.var(estimates + values)), 1e-12)
        return metrics | {"explained_variance": 1.0 - unexplained, "learning_rate": learning_rate}

    def _loss(
        self, inputs: Tensor, actions: Tensor, old_log_probs: Tensor, advantage: Tensor, returns: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss of a minibatch, and its terms for the report."""
        config = self._config
        log_probs, entropy = self.network.log_prob_and_entropy(inputs, actions)
        log_ratio = log_probs - old_log_probs
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - config.clip_range, 1 + config.clip_range)
        policy_loss = -torch.minimum(ratio * advantage, clipped * advantage).mean()
        value_loss = 0.5 * functional.mse_loss(self.network.value(inputs), returns)
        mean_entropy = entropy.mean()
        loss = policy_loss + config.value_coef * value_loss - config.entropy_coef * mean_entropy
        with torch.no_grad():
            approx_kl = (ratio - 1 - log_ratio).mean()  # unbiased and never negative: Schulman (2020), note on KL
            clip_fraction = ((ratio - 1).abs() > config.clip_range).float().mean()
            terms = torch.stack([policy_loss, value_loss, mean_entropy, approx_kl, clip_fraction])
        return loss, terms

    def _inputs(self, observations: npt.NDArray[Any]) -> Tensor:
        """Observations as the network's inputs ``[N, inputs]``, moved to the device in their own, smaller dtype."""
        stored = torch.from_numpy(np.ascontiguousarray(observations)).to(self.device)
        if self._spec.observation_kind == "one_hot":
            return functional.one_hot(stored.long() - self._spec.observation_start, self._spec.inputs).float()
        return stored.reshape(len(stored), self._spec.inputs).float()

    def _scaled_rewards(self, batch: Trajectories) -> FloatArray:
        rewards = batch.rewards + batch.bonuses
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

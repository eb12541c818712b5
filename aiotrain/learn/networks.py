"""Policy and value network in torch, and the distributions over actions that the policy's outputs stand for.

N is the number of steps, U that of distinct observations among them.
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from aiotrain.play.policy import INPUT_CLIP, PolicyShape

__all__ = ["ActorCritic", "Bits", "in_one_vector"]

FloatArray = npt.NDArray[np.float32]

# Orthogonal initialisation with these gains: Andrychowicz et al. (2021), "What matters in on-policy reinforcement
# learning?": small last weights of the policy make the first actions nearly uniform.
_HIDDEN_GAIN = math.sqrt(2)
_POLICY_GAIN = 0.01
_VALUE_GAIN = 1.0
_BARRED = -1e9  # for the logit of an action that is masked: its probability is 0, and 0 times its logarithm no NaN


class Bits:
    """A matrix ``[N, inputs]`` of zeros and ones on the CPU, kept as the places of its ones.

    A product with it takes as long as it has ones, which in what CAGE 2 shows are one in eight.
    """

    def __init__(self, dense: npt.NDArray[np.int8]) -> None:
        self._dense = dense
        self._of_rows = _ones(dense)

    def __len__(self) -> int:
        return len(self._dense)

    def __getitem__(self, rows: Tensor) -> Bits:
        return Bits(self._dense[rows.numpy()])

    def times(self, weight: Tensor) -> Tensor:
        """The product ``[N, outputs]`` with ``weight.T``, of a ``weight`` ``[outputs, inputs]``."""
        columns, starts = self._of_rows
        return functional.embedding_bag(columns, weight.T.contiguous(), starts, mode="sum")

    def transposed_times(self, other: Tensor) -> Tensor:
        """The product ``[inputs, outputs]`` of the transposed matrix with ``other`` ``[N, outputs]``."""
        rows, starts = self._of_columns
        return functional.embedding_bag(rows, other, starts, mode="sum")

    @functools.cached_property
    def _of_columns(self) -> tuple[Tensor, Tensor]:
        return _ones(np.ascontiguousarray(self._dense.T))


def _ones(matrix: npt.NDArray[np.int8]) -> tuple[Tensor, Tensor]:
    """The columns of a matrix's ones, row after row, and where each row's begin."""
    rows, columns = np.divmod(np.flatnonzero(matrix.view(np.bool_)), matrix.shape[1])
    return torch.from_numpy(columns), torch.from_numpy(np.searchsorted(rows, np.arange(len(matrix))))


def _affine(inputs: Tensor | Bits, weight: Tensor, bias: Tensor, factor: int = 1) -> Tensor:
    """``factor * (inputs @ weight.T + bias)``."""
    if isinstance(inputs, Bits):
        return inputs.times(weight).add_(bias).mul_(factor)
    return torch.addmm(bias, inputs, weight.T, beta=factor, alpha=factor)


class Perceptron(nn.Sequential):
    """Dense layers with tanh between them.

    Called, it is a module like any other. ``activations`` and ``backward`` compute the same without autograd, which
    takes as long again as the products of matrices in layers as small as these.
    """

    def __init__(self, sizes: list[int], last_gain: float, generator: torch.Generator) -> None:
        layers: list[nn.Module] = []
        for index, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
            last = index == len(sizes) - 2
            dense: nn.Linear = nn.utils.skip_init(nn.Linear, fan_in, fan_out)  # type: ignore[no-untyped-call]
            nn.init.orthogonal_(dense.weight, last_gain if last else _HIDDEN_GAIN, generator=generator)
            nn.init.zeros_(dense.bias)
            layers += [dense] if last else [dense, nn.Tanh()]
        super().__init__(*layers)
        self._dense = [(layer.weight, layer.bias) for layer in layers if isinstance(layer, nn.Linear)]

    def activations(self, inputs: Tensor | Bits) -> list[Tensor]:
        """What each hidden layer makes of ``inputs`` ``[N, inputs]``, and the outputs ``[N, outputs]``."""
        *hidden, (last_weight, last_bias) = self._dense
        activations: list[Tensor] = []
        below = inputs
        for weight, bias in hidden:
            # tanh(x) = 2 σ(2x) - 1, to 3e-7: on a CPU, torch's σ takes a fifth of the time of its tanh.
            below = _affine(below, weight, bias, factor=2).sigmoid_().mul_(2).sub_(1)
            activations.append(below)
        return [*activations, _affine(below, last_weight, last_bias)]

    def backward(self, inputs: Tensor | Bits, activations: list[Tensor], gradient: Tensor) -> None:
        """Overwrite the parameters' gradients, given the ``gradient`` ``[N, outputs]`` of the outputs.

        ``activations`` are those of ``inputs``.
        """
        for index in reversed(range(len(self._dense))):
            weight, bias = self._dense[index]
            torch.sum(gradient, 0, out=bias.grad)
            if index > 0:
                below = activations[index - 1]
                torch.mm(gradient.T, below, out=weight.grad)
                gradient = torch.ops.aten.tanh_backward(gradient @ weight, below)
            elif isinstance(inputs, Bits):
                assert weight.grad is not None
                weight.grad.copy_(inputs.transposed_times(gradient).T)
            else:
                torch.mm(gradient.T, inputs, out=weight.grad)


class Categorical:
    """Distributions over actions, by ``logits`` ``[U, actions]``, a row for each distinct observation.

    Where ``allowed`` ``[U, actions]`` is False, the action has probability 0.
    """

    def __init__(self, logits: Tensor, allowed: Tensor | None = None) -> None:
        if allowed is not None:
            logits = logits.where(allowed, _BARRED)
        self._log_probs = functional.log_softmax(logits, dim=-1)
        self._probs = self._log_probs.exp()
        self.entropy = -torch.linalg.vecdot(self._probs, self._log_probs)  # [U]

    def log_prob(self, rows: Tensor, actions: Tensor) -> Tensor:
        """Log-probabilities ``[N]`` of ``actions`` ``[N]`` by the distributions in ``rows`` ``[N]``."""
        return self._log_probs.view(-1).index_select(0, rows * self._log_probs.shape[1] + actions)

    def backward(self, rows: Tensor, actions: Tensor, of_log_prob: Tensor, of_entropy: float) -> Tensor:
        """Gradient ``[U, actions]`` of the logits, given that of each log-probability ``[N]`` and of each entropy.

        With p the probabilities and H the entropy: dlog p_a / dz = 1_a - p and dH / dz = -p (log p + H).
        """
        times = self.entropy.new_zeros(len(self.entropy)).index_add_(0, rows, torch.ones_like(of_log_prob))
        total = self.entropy.new_zeros(len(self.entropy)).index_add_(0, rows, of_log_prob)
        of_logits: Tensor = self._log_probs + self.entropy[:, None]
        of_logits.mul_((-of_entropy * times)[:, None]).sub_(total[:, None]).mul_(self._probs)
        of_logits.view(-1).index_add_(0, rows * of_logits.shape[1] + actions, of_log_prob)
        return of_logits


class Gaussian:
    """Normal distributions, by ``means`` ``[U, outputs]``, a row for each distinct observation, and ``log_std``."""

    def __init__(self, means: Tensor, log_std: nn.Parameter) -> None:
        self._means, self._log_std = means, log_std
        self._constant = log_std.sum() + 0.5 * math.log(2 * math.pi) * len(log_std)
        self.entropy = (self._constant + 0.5 * len(log_std)).expand(len(means))  # [U]

    def _deviation(self, rows: Tensor, actions: Tensor) -> Tensor:
        return (actions - self._means[rows]) * torch.exp(-self._log_std)

    def log_prob(self, rows: Tensor, actions: Tensor) -> Tensor:
        """Log-probabilities ``[N]`` of ``actions`` ``[N, outputs]`` by the distributions in ``rows`` ``[N]``."""
        return -0.5 * self._deviation(rows, actions).square().sum(-1) - self._constant

    def backward(self, rows: Tensor, actions: Tensor, of_log_prob: Tensor, of_entropy: float) -> Tensor:
        """Gradient ``[U, outputs]`` of the means, as of a Categorical's logits; overwrites that of ``log_std``."""
        deviation = self._deviation(rows, actions)
        torch.sum((deviation.square() - 1) * of_log_prob[:, None] + of_entropy, 0, out=self._log_std.grad)
        of_means = deviation * torch.exp(-self._log_std) * of_log_prob[:, None]
        return torch.zeros_like(self._means).index_add_(0, rows, of_means)


class ActorCritic(nn.Module):
    """Policy and value network, apart from each other; both see the same normalised inputs."""

    input_mean: Tensor
    input_scale: Tensor

    def __init__(self, shape: PolicyShape, generator: torch.Generator) -> None:
        super().__init__()
        self.shape = shape
        sizes = [shape.inputs, *shape.hidden]
        self.actor = Perceptron([*sizes, shape.outputs], _POLICY_GAIN, generator)
        self.critic = Perceptron([*sizes, 1], _VALUE_GAIN, generator)
        self.log_std = nn.Parameter(torch.zeros(shape.outputs)) if shape.kind == "gaussian" else None
        self.register_buffer("input_mean", torch.zeros(shape.inputs))
        self.register_buffer("input_scale", torch.ones(shape.inputs))
        self.normalizes = False

    def normalize(self, inputs: Tensor) -> Tensor:
        """Inputs ``[N, inputs]`` as the layers take them: as they are until there is something to normalise by."""
        if not self.normalizes:
            return inputs
        return ((inputs - self.input_mean) * self.input_scale).clamp(-INPUT_CLIP, INPUT_CLIP)

    def value(self, normalized: Tensor | Bits) -> Tensor:
        """Value estimates ``[N]``, in units of the scaled reward."""
        return self.critic.activations(normalized)[-1][:, 0]

    def distribution(self, head: Tensor, allowed: Tensor | None = None) -> Categorical | Gaussian:
        """What the actor's outputs ``[U, outputs]`` stand for; ``allowed`` as of a Categorical."""
        return Categorical(head, allowed) if self.log_std is None else Gaussian(head, self.log_std)

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


def in_one_vector(parameters: list[nn.Parameter]) -> nn.Parameter:
    """Make ``parameters`` and their gradients views into one vector, which is clipped and stepped as a whole."""
    vector = nn.Parameter(torch.cat([parameter.detach().ravel() for parameter in parameters]))
    vector.grad = torch.zeros_like(vector)
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        parameter.data = vector.detach()[start:end].view_as(parameter)
        parameter.grad = vector.grad[start:end].view_as(parameter)
        start = end
    return vector

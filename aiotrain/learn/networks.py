"""Policy and value network in torch."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn

from aiotrain.learn.distributions import Categorical, Gaussian
from aiotrain.learn.minibatch import Bits, Inputs
from aiotrain.learn.running_statistics import RunningMoments
from aiotrain.play.policy import INPUT_CLIP, FloatArray, PolicyShape

__all__ = ["ActorCritic", "Perceptron", "in_one_vector"]

# Orthogonal initialisation with these gains: Andrychowicz et al. (2021), "What matters in on-policy reinforcement
# learning?": small last weights of the policy make the first actions nearly uniform.
_HIDDEN_GAIN = math.sqrt(2)
_POLICY_GAIN = 0.01
_VALUE_GAIN = 1.0


class Perceptron(nn.Sequential):
    """Dense layers with tanh between them."""

    def __init__(self, sizes: list[int], last_gain: float, generator: torch.Generator) -> None:
        layers: list[nn.Module] = []
        for index, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
            last = index == len(sizes) - 2
            dense: nn.Linear = nn.utils.skip_init(nn.Linear, fan_in, fan_out)  # type: ignore[no-untyped-call]
            nn.init.orthogonal_(dense.weight, last_gain if last else _HIDDEN_GAIN, generator=generator)
            nn.init.zeros_(dense.bias)
            layers += [dense] if last else [dense, nn.Tanh()]
        super().__init__(*layers)
        self.dense = [(layer.weight, layer.bias) for layer in layers if isinstance(layer, nn.Linear)]

    def forward(self, inputs: Tensor | Bits) -> Tensor:
        """Return the outputs ``[N, outputs]`` for ``inputs`` ``[N, inputs]``."""
        return self.activations(inputs)[-1]

    def activations(self, inputs: Tensor | Bits) -> list[Tensor]:
        """Return the activations ``[N, units]`` of each hidden layer, and the outputs ``[N, outputs]``."""
        *hidden, (last_weight, last_bias) = self.dense
        # tanh(x) = 2 σ(2x) - 1, to 3e-7: on a CPU, torch's σ takes a fifth of the time of its tanh.
        by_sigmoid = last_weight.is_cpu and not torch.is_grad_enabled()
        activations: list[Tensor] = []
        below = inputs
        for weight, bias in hidden:
            if by_sigmoid:
                below = _affine(below, weight, bias, factor=2).sigmoid_().mul_(2).sub_(1)
            else:
                below = _affine(below, weight, bias).tanh()
            activations.append(below)
        return [*activations, _affine(below, last_weight, last_bias)]


def _affine(inputs: Tensor | Bits, weight: Tensor, bias: Tensor, factor: int = 1) -> Tensor:
    """Return ``factor * (inputs @ weight.T + bias)``."""
    if isinstance(inputs, Bits):
        return inputs.times(weight).add_(bias).mul_(factor)
    return torch.addmm(bias, inputs, weight.T, beta=factor, alpha=factor)


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
        """Return inputs ``[N, inputs]`` as the layers take them: unchanged until there are moments to normalise by."""
        if not self.normalizes:
            return inputs
        return ((inputs - self.input_mean) * self.input_scale).clamp(-INPUT_CLIP, INPUT_CLIP)

    def normalize_by(self, moments: RunningMoments) -> None:
        """Normalise by ``moments`` of the inputs from now on."""
        self.normalizes = True
        self.input_mean.copy_(torch.from_numpy(moments.mean))
        self.input_scale.copy_(torch.from_numpy(1 / np.sqrt(moments.variance + 1e-8)))

    def policy(self, inputs: Inputs) -> Categorical | Gaussian:
        """Return the distributions over actions in each of the N steps of ``inputs``."""
        return self.distribution(self.actor(inputs.distinct), inputs)

    def distribution(self, outputs: Tensor, inputs: Inputs) -> Categorical | Gaussian:
        """Return the distributions that the actor's ``outputs`` ``[U, outputs]`` for ``inputs`` stand for."""
        if self.log_std is None:
            return Categorical(outputs, inputs.rows, inputs.allowed)
        return Gaussian(outputs, inputs.rows, self.log_std)

    def value(self, inputs: Inputs) -> Tensor:
        """Return the value estimates ``[N]`` of the steps of ``inputs``, in units of the scaled reward."""
        values: Tensor = self.critic(inputs.distinct)
        return values.view(-1).index_select(0, inputs.rows)

    def flat_parameters(self) -> FloatArray:
        """Return the policy's parameters ``[shape.size]`` as `PolicyShape` lays them out."""
        vector = np.empty(self.shape.size, np.float32)
        tensors = [self.input_mean, self.input_scale]
        for weight, bias in self.actor.dense:
            tensors += [weight.T, bias]
        if self.log_std is not None:
            tensors.append(self.log_std)
        for view, tensor in zip(self.shape.split(vector), tensors, strict=True):
            view[...] = tensor.detach().cpu().numpy()
        return vector


def in_one_vector(network: nn.Module) -> tuple[nn.Parameter, Tensor]:
    """Make all parameters of ``network``, and their gradients, views into two vectors, and return these.

    So the gradients are clipped, and the parameters stepped, as a whole.
    """
    parameters = list(network.parameters())
    vector = nn.Parameter(torch.cat([parameter.detach().ravel() for parameter in parameters]))
    vector.grad = gradient = torch.zeros_like(vector)
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        parameter.data = vector.detach()[start:end].view_as(parameter)
        parameter.grad = gradient[start:end].view_as(parameter)
        start = end
    return vector, gradient

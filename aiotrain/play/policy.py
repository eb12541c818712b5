"""The policy without torch: its shape, how its parameters lie in one flat vector, and acting in NumPy.

The learner fills the vector, workers read it. Bit for bit the same action comes out whatever other environments act in
the same batch: each environment brings its own random number, and rows are multiplied so that each is rounded as it
would be alone (see `rounds_rows_alike`).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from aiotrain.play.spaces import EnvSpec

__all__ = ["INPUT_CLIP", "FloatArray", "NumpyPolicy", "PolicyShape"]

_ROWS = 4
_PROBED_ROWS = 36
_HALF_LOG_TAU = 0.5 * float(np.log(2 * np.pi))
_SHARPENED = 2.0**64
INPUT_CLIP = 10.0  # normalised inputs beyond ten standard deviations are noise or a fault

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PolicyShape:
    """A multilayer perceptron with tanh units, and where its parameters lie in the flat float32 vector.

    In order: input mean ``[inputs]``, input scale ``[inputs]`` (1 / standard deviation), then for each layer its weight
    ``[in, out]`` and bias ``[out]``, then for a Gaussian policy the log of its standard deviation ``[outputs]``.
    """

    inputs: int
    hidden: tuple[int, ...]
    outputs: int
    kind: Literal["discrete", "gaussian"]

    @classmethod
    def of(cls, spec: EnvSpec, hidden: Sequence[int]) -> PolicyShape:
        """Return the policy for the environment ``spec`` with ``hidden`` units in its layers."""
        return cls(spec.inputs, tuple(hidden), spec.outputs, spec.action_kind)

    @property
    def layers(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of each layer."""
        sizes = [self.inputs, *self.hidden, self.outputs]
        return list(itertools.pairwise(sizes))

    @property
    def size(self) -> int:
        """Parameters altogether."""
        dense = sum(fan_in * fan_out + fan_out for fan_in, fan_out in self.layers)
        return 2 * self.inputs + dense + (self.outputs if self.kind == "gaussian" else 0)

    def split(self, vector: FloatArray) -> list[FloatArray]:
        """Return views into ``vector``, in the order given above."""
        shapes: list[tuple[int, ...]] = [(self.inputs,), (self.inputs,)]
        for fan_in, fan_out in self.layers:
            shapes += [(fan_in, fan_out), (fan_out,)]
        if self.kind == "gaussian":
            shapes.append((self.outputs,))
        views, start = [], 0
        for shape in shapes:
            end = start + int(np.prod(shape))
            views.append(vector[start:end].reshape(shape))
            start = end
        return views

    def greedy(self, vector: FloatArray) -> FloatArray:
        """Return ``vector`` changed so that the most probable action is drawn, or the Gaussian's mean.

        Logits are multiplied by 2**64, which rounds nothing: all but the highest have probability 0, equal ones the
        same as before. So whatever draws actions from parameters plays greedily with these.
        """
        vector = vector.copy()
        views = self.split(vector)
        if self.kind == "gaussian":
            views[-1][...] = -np.inf
        else:
            for view in views[-2:]:
                view *= np.float32(_SHARPENED)
        return vector


@functools.cache
def rounds_rows_alike(inputs: int, outputs: int) -> bool:
    """Return whether BLAS rounds each row of a product ``[N, inputs] @ [inputs, outputs]`` as in any other batch.

    OpenBLAS does on CPUs with AVX-512 if N is a multiple of four. On CPUs with AVX2 alone, a row's place decides.
    """
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((_PROBED_ROWS, inputs), np.float32)
    weight = generator.standard_normal((inputs, outputs), np.float32)
    padded = np.zeros((_PROBED_ROWS, _ROWS, inputs), np.float32)
    padded[:, 0] = rows
    alone = np.array([(each @ weight)[0] for each in padded])
    return all(
        np.array_equal(rows[first : first + size] @ weight, alone[first : first + size])
        for size in range(_ROWS, _PROBED_ROWS + 1, _ROWS)
        for first in (0, _PROBED_ROWS - size)
    )


def _multiply(rows: FloatArray, weight: FloatArray) -> FloatArray:
    product: FloatArray = rows @ weight
    return product


def _multiply_rows(rows: FloatArray, weight: FloatArray) -> FloatArray:
    """Multiply row by row, as a stack of matrices of one row each."""
    product: FloatArray = (rows[:, None] @ weight)[:, 0]
    return product


class NumpyPolicy:
    """Draws actions for a batch of observations. ``parameters`` may be overwritten in place at any time between calls;
    ``refresh`` must follow."""

    def __init__(self, shape: PolicyShape) -> None:
        self.shape = shape
        self._multiply = [_multiply if rounds_rows_alike(*layer) else _multiply_rows for layer in shape.layers]
        self.parameters: FloatArray = np.zeros(shape.size, np.float32)
        self.refresh()

    def greedy(self) -> NumpyPolicy:
        """Return the policy that takes the most probable action, or the Gaussian's mean; see `PolicyShape.greedy`."""
        greedy = NumpyPolicy(self.shape)
        greedy.parameters[:] = self.shape.greedy(self.parameters)
        greedy.refresh()
        return greedy

    def refresh(self) -> None:
        """Take over what was written to ``parameters``."""
        mean, scale, *rest = self.shape.split(self.parameters)
        self._log_std = rest.pop() if self.shape.kind == "gaussian" else None
        self._std = None if self._log_std is None else np.exp(self._log_std)
        # With mean 0 and scale 1, as long as nothing is normalised, the inputs are taken as they are.
        self.normalizes = bool((mean != 0).any() or (scale != 1).any())
        self._mean, self._scale = mean, scale
        self._layers = list(zip(rest[0::2], rest[1::2], strict=True))

    def head(self, inputs: FloatArray) -> FloatArray:
        """Return logits or means ``[N, outputs]`` for ``inputs`` ``[N, inputs]``."""
        count = len(inputs)
        if count % _ROWS and _multiply in self._multiply:
            padded = np.zeros((count + -count % _ROWS, self.shape.inputs), np.float32)
            padded[:count] = inputs
            inputs = padded
        if self.normalizes:
            inputs = np.clip((inputs - self._mean) * self._scale, -INPUT_CLIP, INPUT_CLIP)
        hidden, (last_weight, last_bias) = inputs, self._layers[-1]
        for multiply, (weight, bias) in zip(self._multiply, self._layers[:-1], strict=False):
            hidden = multiply(hidden, weight)
            hidden += bias
            np.tanh(hidden, out=hidden)
        head = self._multiply[-1](hidden, last_weight)
        head += last_bias
        return head[:count]

    def noise(self, generator: np.random.Generator, steps: int) -> npt.NDArray[Any]:
        """Return the random float32 numbers for ``steps`` steps: ``[steps]`` uniform or ``[steps, outputs]`` normal."""
        if self.shape.kind == "discrete":
            return generator.random(steps, np.float32)
        return generator.standard_normal((steps, self.shape.outputs), np.float32)

    def act(
        self, inputs: FloatArray, noise: npt.NDArray[Any], masks: npt.NDArray[Any] | None = None
    ) -> tuple[npt.NDArray[Any], FloatArray]:
        """Actions and their log-probabilities ``[N]`` for ``inputs`` ``[N, inputs]``.

        ``noise`` is ``[N]`` uniform in [0, 1) for a discrete policy (the distribution function is inverted: one number
        a step instead of one an action), ``[N, outputs]`` standard normal for a Gaussian one. Where ``masks``
        ``[N, outputs]`` of a discrete policy is 0, the action has probability 0; each row has another number in it.
        """
        head = self.head(inputs)
        if self._log_std is not None and self._std is not None:
            actions = head + self._std * noise
            return actions, -(0.5 * noise * noise + self._log_std + _HALF_LOG_TAU).sum(axis=1)
        if masks is not None:
            head[masks == 0] = -np.inf
        # Ufuncs by their own methods: for one row, the array's methods take longer to be called than to compute.
        head -= np.maximum.reduce(head, axis=1, keepdims=True)
        cumulative = np.add.accumulate(np.exp(head), axis=1)
        total = cumulative[:, -1]
        # Below the total even where rounding lifts the product to it: an action is drawn where the sum grows.
        passed = np.minimum(noise * total, np.nextafter(total, np.float32(0)))
        chosen = np.add.reduce(cumulative <= passed[:, None], axis=1, dtype=np.intp)
        return chosen, head[np.arange(len(chosen)), chosen] - np.log(total)

"""The policy of an exported agent. What is below the line is copied into the agent's file."""

from __future__ import annotations

import base64
from math import inf
from typing import Any, Final

import numpy as np

from aiotrain.play.policy import INPUT_CLIP

# `agent_file` writes the run's values in place of these.
GREEDY: Final[bool] = False
LAYERS: Final[tuple[int, ...]] = ()
GAUSSIAN: Final[bool] = False
NORMALIZED: Final[bool] = False
WEIGHTS: Final[str] = ""

# ---- copied ----


class Policy:
    """The trained network, a multilayer perceptron with tanh units, and how an action is chosen by it."""

    def __init__(self, seed: int | None, greedy: bool) -> None:
        self._generator = np.random.default_rng(seed)
        self._greedy = greedy
        self._mean, self._scale, *rest = _weights()
        self._std = np.exp(rest.pop()) if GAUSSIAN else None
        self._layers = [(rest[i], rest[i + 1]) for i in range(0, len(rest), 2)]

    def head(self, inputs: Any) -> Any:
        """Logits of the actions, or means of the Gaussian, float32 [outputs], for ``inputs`` [inputs]."""
        hidden = np.asarray(inputs, np.float32)
        if NORMALIZED:
            hidden = np.clip((hidden - self._mean) * self._scale, -INPUT_CLIP, INPUT_CLIP)
        for weight, bias in self._layers[:-1]:
            hidden = np.tanh(hidden @ weight + bias)
        weight, bias = self._layers[-1]
        return hidden @ weight + bias

    def act(self, inputs: Any, mask: Any = None) -> Any:
        """The number of an action, or an action of the Gaussian [outputs]. Where ``mask`` [outputs] is 0, none is."""
        head = self.head(inputs)
        if self._std is not None:
            return head if self._greedy else head + self._std * self._generator.standard_normal(len(head), np.float32)
        if mask is not None:
            head[np.asarray(mask) == 0] = -inf
        if self._greedy:
            return int(head.argmax())
        # The distribution function is inverted. Kept below the total, the number never falls on a barred last action.
        cumulative = np.cumsum(np.exp(head - head.max()))
        total = cumulative[-1:]
        drawn = np.minimum(self._generator.random(1, np.float32) * total, np.nextafter(total, np.float32(0)))
        return int((cumulative <= drawn).sum())


def _weights() -> list[Any]:
    """Mean [inputs] and 1 / deviation [inputs] of the inputs; each layer's weight [in, out] and bias [out]; of a
    Gaussian, the log of its deviation [outputs]."""
    vector = np.frombuffer(base64.b64decode(WEIGHTS), "<f4").astype(np.float32)
    shapes: list[tuple[int, ...]] = [(LAYERS[0],), (LAYERS[0],)]
    for i in range(len(LAYERS) - 1):
        shapes += [(LAYERS[i], LAYERS[i + 1]), (LAYERS[i + 1],)]
    if GAUSSIAN:
        shapes.append((LAYERS[-1],))
    arrays, start = [], 0
    for shape in shapes:
        size = int(np.prod(shape))
        arrays.append(vector[start : start + size].reshape(shape))
        start += size
    return arrays

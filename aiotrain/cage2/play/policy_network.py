"""A small policy network in compiled code: from bits to an action and its log-probability, on one core.

Compiled loops such as ``rollout.play_episodes`` call these functions. They work on a ``Network``, whose weights lie in
tiles for vector instructions, and they allocate nothing.

**A row's result depends on that row only.** One kernel computes rows in groups of four, and computes a last, incomplete
group in full. Each row has its own sums in a fixed order, and no flag lets the compiler change that order. An episode
is therefore the same whatever is played with it, on machines with the same vector units.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numba import float32
from numpy.typing import NDArray

from aiotrain.cage2.engine.compilation import compiled_helper
from aiotrain.cage2.play import simd

TILE: Final = 2 * simd.LANES
"""Outputs of a layer that are computed together. With four rows, these are eight sums, which hide add latency."""

GROUP: Final = 16
"""Rows that go through a layer together, a multiple of four. A tile of weights is loaded once for all of them."""

_ROWS: Final = 4
_MASKED: Final = np.float32(-np.inf)


class Network(NamedTuple):
    """A multilayer perceptron with tanh units, and the buffers that it computes in, for compiled code."""

    sizes: NDArray[np.int64]
    """[layers + 1]: inputs, units of each hidden layer, outputs."""
    weights: NDArray[np.float32]
    """Tiles of each layer, [1 + inputs, TILE] each: bias, then weights; zeros after the last output."""
    activations: NDArray[np.float32]
    """[2 * GROUP * width]: rows of ``width`` numbers. A layer reads one half and writes the other."""
    probabilities: NDArray[np.float32]
    """[width]: unnormalised probabilities of one row."""
    cumulative: NDArray[np.float32]
    """[width]: their cumulative sums."""
    bits: NDArray[np.int64]
    """[inputs]: the indices of the inputs of a row that are 1."""


def allocate_network(layers: Sequence[tuple[int, int]]) -> Network:
    """Allocate a network of zeros.

    Args:
        layers: (inputs, outputs) of each layer, at least one.

    """
    tiles = [-(-fan_out // TILE) for _, fan_out in layers]
    width = TILE * max(tiles)
    weights = _aligned(sum(count * TILE * (1 + fan_in) for count, (fan_in, _) in zip(tiles, layers, strict=True)))
    fan_in, actions = layers[-1]
    last_bias = weights[len(weights) - TILE * (1 + fan_in) :][:TILE]
    last_bias[actions - TILE * (tiles[-1] - 1) :] = -np.inf  # probability 0 after the last action
    return Network(
        np.array([layers[0][0], *(fan_out for _, fan_out in layers)], np.int64),
        weights,
        _aligned(2 * GROUP * width),
        _aligned(width),
        _aligned(width),
        np.zeros(layers[0][0], np.int64),
    )


def _aligned(size: int) -> NDArray[np.float32]:
    """Return zeros that begin at a multiple of 64 bytes, so that no vector spans two cache lines."""
    memory = np.zeros(size + 15, np.float32)
    skipped = -memory.ctypes.data // 4 % 16
    return memory[skipped : skipped + size]


def set_weights(network: Network, parameters: NDArray[np.float32]) -> None:
    """Overwrite a network's weights.

    Args:
        network: The network.
        parameters: float32, for each layer its weight [inputs, outputs] and bias [outputs], one after the other.

    """
    start = put = 0
    for fan_in, fan_out in itertools.pairwise(network.sizes.tolist()):
        weight = parameters[start : start + fan_in * fan_out].reshape(fan_in, fan_out)
        bias = parameters[start + fan_in * fan_out :][:fan_out]
        start += (fan_in + 1) * fan_out
        for first in range(0, fan_out, TILE):
            columns = slice(first, min(first + TILE, fan_out))
            tile = network.weights[put : put + TILE * (1 + fan_in)].reshape(1 + fan_in, TILE)
            tile[0, : columns.stop - first] = bias[columns]
            tile[1:, : columns.stop - first] = weight[:, columns]
            put += tile.size


@compiled_helper
def first_layer(network: Any, row: Any, count: Any) -> None:
    """Compute the first layer of one row: the bias plus the weights of the inputs ``network.bits[:count]``."""
    bits, weights, activations = network.bits, network.weights, network.activations
    put = row * len(network.probabilities)
    tile = TILE * (1 + network.sizes[0])
    for at in range(0, tile * -(-network.sizes[1] // TILE), tile):
        a0 = simd.load(weights, at)
        a1 = simd.load(weights, at + simd.LANES)
        for i in range(count):
            source = at + TILE * (1 + bits[i])
            a0 = simd.add(a0, simd.load(weights, source))
            a1 = simd.add(a1, simd.load(weights, source + simd.LANES))
        simd.store(activations, put, a0)
        simd.store(activations, put + simd.LANES, a1)
        put += TILE


@compiled_helper
def later_layers(network: Any, rows: Any) -> Any:
    """Compute the other layers of ``rows`` rows. Return where in ``activations`` the logits of the first row begin."""
    sizes, activations, width = network.sizes, network.activations, len(network.probabilities)
    source, target = 0, GROUP * width
    at = TILE * (1 + sizes[0]) * -(-sizes[1] // TILE)
    for layer in range(1, len(sizes) - 1):
        fan_in = sizes[layer]
        for row in range(rows):
            for place in range(source + row * width, source + row * width + fan_in, simd.LANES):
                simd.store(activations, place, simd.tanh(simd.load(activations, place)))
        for column in range(0, sizes[layer + 1], TILE):
            for row in range(0, rows, _ROWS):
                _multiply_tile(network, source + row * width, fan_in, at, target + row * width + column)
            at += TILE * (1 + fan_in)
        source, target = target, source
    return source


@compiled_helper
def _multiply_tile(network: Any, source: Any, fan_in: Any, at: Any, put: Any) -> None:
    """Compute TILE outputs of _ROWS rows, from the tile of weights at ``at``."""
    weights, x, width = network.weights, network.activations, len(network.probabilities)
    first0, first1, first2, first3 = source, source + width, source + 2 * width, source + 3 * width
    a0 = b0 = c0 = d0 = simd.load(weights, at)
    a1 = b1 = c1 = d1 = simd.load(weights, at + simd.LANES)
    for i in range(fan_in):
        at += TILE
        w0 = simd.load(weights, at)
        w1 = simd.load(weights, at + simd.LANES)
        a = simd.broadcast_at(x, first0 + i)
        a0 = simd.multiply_add(a, w0, a0)
        a1 = simd.multiply_add(a, w1, a1)
        b = simd.broadcast_at(x, first1 + i)
        b0 = simd.multiply_add(b, w0, b0)
        b1 = simd.multiply_add(b, w1, b1)
        c = simd.broadcast_at(x, first2 + i)
        c0 = simd.multiply_add(c, w0, c0)
        c1 = simd.multiply_add(c, w1, c1)
        d = simd.broadcast_at(x, first3 + i)
        d0 = simd.multiply_add(d, w0, d0)
        d1 = simd.multiply_add(d, w1, d1)
    simd.store(x, put, a0)
    simd.store(x, put + simd.LANES, a1)
    simd.store(x, put + width, b0)
    simd.store(x, put + width + simd.LANES, b1)
    simd.store(x, put + 2 * width, c0)
    simd.store(x, put + 2 * width + simd.LANES, c1)
    simd.store(x, put + 3 * width, d0)
    simd.store(x, put + 3 * width + simd.LANES, d1)


@compiled_helper
def mask_logits(network: Any, at: Any, mask: Any) -> None:
    """Give probability 0 to the actions that are 0 in ``mask``, int8 [actions]. ``at``: see `sample`."""
    logits = network.activations[at : at + len(mask)]
    for action in range(len(mask)):
        logits[action] = logits[action] if mask[action] != 0 else _MASKED


@compiled_helper
def sample(network: Any, at: Any, noise: Any) -> Any:
    """Draw an action by inverting the distribution function at ``noise``.

    Args:
        network: A network that holds a row of logits at ``at`` of its ``activations``.
        at: What `later_layers` returned, plus ``len(network.probabilities)`` for each further row.
        noise: float32, uniform in [0, 1).

    Returns:
        The action (int64) and its log-probability (float32).

    """
    logits, probabilities, cumulative = network.activations, network.probabilities, network.cumulative
    actions = network.sizes[-1]
    most = simd.load(logits, at)
    for place in range(simd.LANES, actions, simd.LANES):
        most = simd.maximum(most, simd.load(logits, at + place))
    top = simd.max_of_lanes(most)
    total = simd.broadcast(float32(0))
    for place in range(0, actions, simd.LANES):
        probability = simd.exp(simd.subtract(simd.load(logits, at + place), simd.broadcast(top)))
        sums = simd.prefix_sums(probability)
        simd.store(probabilities, place, probability)
        simd.store(cumulative, place, simd.add(total, sums))
        total = simd.add(total, simd.broadcast_last(sums))
    passed = simd.multiply(simd.broadcast(noise), total)
    count = simd.broadcast(float32(0))
    for place in range(0, actions, simd.LANES):
        count = simd.add(count, simd.less_equal(simd.load(cumulative, place), passed))
    chosen = min(int(simd.sum_of_lanes(count)), actions - 1)
    while chosen > 0 and probabilities[chosen] == 0:  # rounding drew an action of probability 0
        chosen -= 1
    return chosen, logits[at + chosen] - top - float32(math.log(simd.max_of_lanes(total)))

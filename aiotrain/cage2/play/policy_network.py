"""A small policy network in compiled code: bits in, an action and its log-probability out, one core.

The parts here are for compiled loops to call (``rollout.play_episodes`` does). They act on a ``Network``, whose weights
lie in tiles for vector instructions, and they allocate nothing.

**A row's bits depend on nothing but the row.** Rows are computed in fours by one kernel, and what does not fill a four
is computed all the same; each row has its own sums, in one order, without flags that would let the compiler change it.
So an episode is the same in any company, on machines whose vector units are alike.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numba import float32
from numpy.typing import NDArray

from aiotrain.cage2.engine.chance import part
from aiotrain.cage2.play.simd import (
    LANES,
    add,
    at_most,
    exponential,
    larger,
    largest_across,
    load,
    multiply,
    multiply_add,
    running_sums,
    spread,
    spread_at,
    spread_last,
    store,
    subtract,
    sum_across,
    tanh,
)

__all__ = ["GROUP", "Network", "add_bits", "allocate_network", "bar", "fill", "finish", "sample"]

TILE: Final = 2 * LANES
"""Outputs of a layer that are computed together: with four rows, eight sums, as many as hide an addition's latency."""

GROUP: Final = 16
"""Rows that go through a layer together, a multiple of four: a tile of weights is fetched once for all of them."""

_ROWS: Final = 4
_BARRED: Final = np.float32(-np.inf)


class Network(NamedTuple):
    """A multilayer perceptron with tanh units and the memory that it works in, as compiled code takes it."""

    sizes: NDArray[np.int64]
    """[layers + 1]: inputs, units of each hidden layer, outputs."""
    weights: NDArray[np.float32]
    """Of each layer its tiles, each [1 + inputs, TILE]: bias, then weights, then zeros where outputs end."""
    activations: NDArray[np.float32]
    """[2 * GROUP * width]: rows of ``width`` numbers; a layer reads one half and writes the other."""
    shares: NDArray[np.float32]
    """[width]: unnormalised probabilities of one row."""
    cumulative: NDArray[np.float32]
    """[width]: their sums up to and with each."""
    bits: NDArray[np.int64]
    """[inputs]: which inputs of a row are 1."""


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
    last_bias[actions - TILE * (tiles[-1] - 1) :] = -np.inf  # after the last action: probability 0
    return Network(
        np.array([layers[0][0], *(fan_out for _, fan_out in layers)], np.int64),
        weights,
        _aligned(2 * GROUP * width),
        _aligned(width),
        _aligned(width),
        np.zeros(layers[0][0], np.int64),
    )


def _aligned(size: int) -> NDArray[np.float32]:
    """Zeros that begin at a multiple of 64 bytes, so that no vector lies across two cache lines."""
    memory = np.zeros(size + 15, np.float32)
    skipped = -memory.ctypes.data // 4 % 16
    return memory[skipped : skipped + size]


def fill(network: Network, parameters: NDArray[np.float32]) -> None:
    """Overwrite a network's weights.

    Args:
        network: the network.
        parameters: float32, of each layer its weight [inputs, outputs] and bias [outputs], one after the other.

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


@part
def add_bits(network: Any, row: Any, count: Any) -> None:
    """The first layer of one row: bias plus the weights of the inputs that are 1, ``network.bits[:count]``."""
    bits, weights, activations = network.bits, network.weights, network.activations
    put = row * len(network.shares)
    tile = TILE * (1 + network.sizes[0])
    for at in range(0, tile * -(-network.sizes[1] // TILE), tile):
        a0 = load(weights, at)
        a1 = load(weights, at + LANES)
        for i in range(count):
            source = at + TILE * (1 + bits[i])
            a0 = add(a0, load(weights, source))
            a1 = add(a1, load(weights, source + LANES))
        store(activations, put, a0)
        store(activations, put + LANES, a1)
        put += TILE


@part
def finish(network: Any, rows: Any) -> Any:
    """The other layers of ``rows`` rows; returns where in ``activations`` the logits of the first one begin."""
    sizes, activations, width = network.sizes, network.activations, len(network.shares)
    source, target = 0, GROUP * width
    at = TILE * (1 + sizes[0]) * -(-sizes[1] // TILE)
    for layer in range(1, len(sizes) - 1):
        fan_in = sizes[layer]
        for row in range(rows):
            for place in range(source + row * width, source + row * width + fan_in, LANES):
                store(activations, place, tanh(load(activations, place)))
        for column in range(0, sizes[layer + 1], TILE):
            for row in range(0, rows, _ROWS):
                _multiply_tile(network, source + row * width, fan_in, at, target + row * width + column)
            at += TILE * (1 + fan_in)
        source, target = target, source
    return source


@part
def _multiply_tile(network: Any, source: Any, fan_in: Any, at: Any, put: Any) -> None:
    """TILE outputs of _ROWS rows, from the tile of weights at ``at``."""
    weights, x, width = network.weights, network.activations, len(network.shares)
    first0, first1, first2, first3 = source, source + width, source + 2 * width, source + 3 * width
    a0 = b0 = c0 = d0 = load(weights, at)
    a1 = b1 = c1 = d1 = load(weights, at + LANES)
    for i in range(fan_in):
        at += TILE
        w0 = load(weights, at)
        w1 = load(weights, at + LANES)
        a = spread_at(x, first0 + i)
        a0 = multiply_add(a, w0, a0)
        a1 = multiply_add(a, w1, a1)
        b = spread_at(x, first1 + i)
        b0 = multiply_add(b, w0, b0)
        b1 = multiply_add(b, w1, b1)
        c = spread_at(x, first2 + i)
        c0 = multiply_add(c, w0, c0)
        c1 = multiply_add(c, w1, c1)
        d = spread_at(x, first3 + i)
        d0 = multiply_add(d, w0, d0)
        d1 = multiply_add(d, w1, d1)
    store(x, put, a0)
    store(x, put + LANES, a1)
    store(x, put + width, b0)
    store(x, put + width + LANES, b1)
    store(x, put + 2 * width, c0)
    store(x, put + 2 * width + LANES, c1)
    store(x, put + 3 * width, d0)
    store(x, put + 3 * width + LANES, d1)


@part
def bar(network: Any, at: Any, mask: Any) -> None:
    """Give probability 0 to the actions whose number in ``mask``, int8 [actions], is 0; ``at`` as of ``sample``."""
    logits = network.activations[at : at + len(mask)]
    for action in range(len(mask)):
        logits[action] = logits[action] if mask[action] != 0 else _BARRED


@part
def sample(network: Any, at: Any, noise: Any) -> Any:
    """Draw an action where the distribution function passes ``noise``, uniform in [0, 1).

    Args:
        network: with a row of logits at ``at`` of its ``activations``.
        at: as ``finish`` returned it, and ``len(network.shares)`` further for each row.
        noise: float32.

    Returns:
        The action (int64) and its log-probability (float32).

    """
    logits, shares, cumulative = network.activations, network.shares, network.cumulative
    actions = network.sizes[-1]
    most = load(logits, at)
    for place in range(LANES, actions, LANES):
        most = larger(most, load(logits, at + place))
    top = largest_across(most)
    total = spread(float32(0))
    for place in range(0, actions, LANES):
        share = exponential(subtract(load(logits, at + place), spread(top)))
        sums = running_sums(share)
        store(shares, place, share)
        store(cumulative, place, add(total, sums))
        total = add(total, spread_last(sums))
    passed = multiply(spread(noise), total)
    count = spread(float32(0))
    for place in range(0, actions, LANES):
        count = add(count, at_most(load(cumulative, place), passed))
    chosen = min(int(sum_across(count)), actions - 1)
    while chosen > 0 and shares[chosen] == 0:  # drawn by rounding alone
        chosen -= 1
    return chosen, logits[at + chosen] - top - float32(math.log(largest_across(total)))

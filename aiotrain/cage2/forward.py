"""A small policy network in compiled code: bits in, an action and its log-probability out, one core.

The parts here are for compiled loops to call (``rollout.play_episodes`` does). They act on a ``Network``, whose weights
lie in tiles for vector instructions, and they allocate nothing.

**A row's bits depend on nothing but the row.** Rows are computed in fours by one kernel, and what does not fill a four
is computed all the same; each row has its own sums, in one order, without flags that would let the compiler change it.
So an episode is the same in any company, on machines whose vector units are alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from llvmlite import binding, ir
from numba import float32, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model
from numpy.typing import NDArray

from aiotrain.cage2.engine.chance import compiled, part

__all__ = ["GROUP", "Network", "add_bits", "allocate_network", "fill", "finish", "sample"]

LANES: Final = 16 if binding.get_host_cpu_features().get("avx512f") else 8
"""Numbers in a vector. Correct anywhere; these are fastest with and without AVX-512."""

TILE: Final = 2 * LANES
"""Outputs of a layer that are computed together: with four rows, eight sums, as many as hide an addition's latency."""

GROUP: Final = 32
"""Rows that go through a layer together, a multiple of four: a tile of weights is fetched once for all of them."""

_ROWS: Final = 4


class Network(NamedTuple):
    """A multilayer perceptron with tanh units and the memory that it works in, as compiled code takes it."""

    sizes: NDArray[np.int64]
    """[layers + 1]: inputs, units of each hidden layer, outputs."""
    weights: NDArray[np.float32]
    """Of each layer its tiles, each [1 + inputs, TILE]: bias, then weights. Where there is no output, zeros; no action, minus infinity."""
    activations: NDArray[np.float32]
    """[2 * GROUP * width]: rows of ``width`` numbers; a layer reads one half and writes the other."""
    shares: NDArray[np.float32]
    """[width]: unnormalised probabilities of one row."""
    cumulative: NDArray[np.float32]
    """[width / LANES]: their sums up to the end of each vector."""
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
    last_bias[actions - TILE * (tiles[-1] - 1) :] = -np.inf  # no action: its probability is 0
    return Network(
        np.array([layers[0][0], *(fan_out for _, fan_out in layers)], np.int64),
        weights,
        _aligned(2 * GROUP * width),
        _aligned(width),
        _aligned(width // LANES),
        np.zeros(layers[0][0], np.int64),
    )


def _aligned(size: int) -> NDArray[np.float32]:
    """Zeros that begin at a multiple of 64 bytes, so that no vector lies across two cache lines."""
    memory = np.zeros(size + 15, np.float32)
    skipped = -memory.ctypes.data // 4 % 16
    return memory[skipped : skipped + size]


@compiled
def fill(network: Network, parameters: NDArray[np.float32]) -> None:
    """Take over parameters.

    Args:
        network: whose ``weights`` are overwritten.
        parameters: float32, of each layer its weight [inputs, outputs] and bias [outputs], one after the other.

    """
    start = 0
    put = 0
    for layer in range(len(network.sizes) - 1):
        fan_in = network.sizes[layer]
        fan_out = network.sizes[layer + 1]
        for first in range(0, fan_out, TILE):
            count = min(TILE, fan_out - first)
            for row in range(-1, fan_in):
                source = start + (row if row >= 0 else fan_in) * fan_out + first
                for column in range(count):
                    network.weights[put + column] = parameters[source + column]
                put += TILE
        start += (fan_in + 1) * fan_out


class _Vector(types.Type):
    """LANES float32 numbers in a register. Numba knows no such type; LLVM does."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


_vector: Final = _Vector()
_VECTOR: Final = ir.VectorType(ir.FloatType(), LANES)
_INTS: Final = ir.VectorType(ir.IntType(32), LANES)


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _VECTOR)


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def _broadcast(builder: Any, number: Any) -> Any:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    one = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(_INTS, None))


@intrinsic
def load(_: Any, array: Any, index: Any) -> Any:
    """LANES numbers of ``array`` [size] from ``index`` on. Like all of these, it checks no bounds."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature.args[0], *arguments)
        loaded = builder.load(builder.bitcast(address, _VECTOR.as_pointer()))
        loaded.align = 4
        return loaded

    return _vector(array, types.int64), generate


@intrinsic
def store(_: Any, array: Any, index: Any, vector: Any) -> Any:
    """Write ``vector`` to ``array`` [size] from ``index`` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature.args[0], *arguments[:2])
        stored = builder.store(arguments[2], builder.bitcast(address, _VECTOR.as_pointer()))
        stored.align = 4
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), generate


@intrinsic
def spread(_: Any, number: Any) -> Any:
    """``number`` in every lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _broadcast(builder, arguments[0])

    return _vector(types.float32), generate


@intrinsic
def spread_at(_: Any, array: Any, index: Any) -> Any:
    """The number at ``index`` of ``array`` in every lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _broadcast(builder, builder.load(_address(context, builder, signature.args[0], *arguments)))

    return _vector(array, types.int64), generate


@intrinsic
def multiply_add(_: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, rounded once where the machine has an instruction for it, and then always."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function_type = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        name = f"llvm.fmuladd.v{LANES}f32"
        return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), arguments)

    return _vector(a, b, c), generate


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _smaller(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)


def _lanewise(operation: Callable[[Any, Any, Any], Any]) -> Any:
    @intrinsic
    def lanewise(_: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return operation(builder, *arguments)

        return _vector(a, b), generate

    return lanewise


def _across(operation: Callable[[Any, Any, Any], Any]) -> Any:
    """All lanes in one: the upper half onto the lower, and again."""

    @intrinsic
    def across(_: Any, vector: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            folded, half = arguments[0], LANES // 2
            while half:
                lanes = [min(lane + half, LANES - 1) for lane in range(LANES)]
                folded = operation(builder, folded, builder.shuffle_vector(folded, folded, ir.Constant(_INTS, lanes)))
                half //= 2
            return builder.extract_element(folded, ir.Constant(ir.IntType(32), 0))

        return types.float32(vector), generate

    return across


add = _lanewise(lambda builder, a, b: builder.fadd(a, b))
multiply = _lanewise(lambda builder, a, b: builder.fmul(a, b))
subtract = _lanewise(lambda builder, a, b: builder.fsub(a, b))
divide = _lanewise(lambda builder, a, b: builder.fdiv(a, b))
larger = _lanewise(_larger)  # b where a is NaN
smaller = _lanewise(_smaller)
sum_across = _across(lambda builder, a, b: builder.fadd(a, b))
largest_across = _across(_larger)


@intrinsic
def _power_of_two(_: Any, shifted: Any) -> Any:
    """2**n for ``shifted`` = n + _SHIFT with n in -127..127; 0 for n = -127."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.add(builder.bitcast(arguments[0], _INTS), ir.Constant(_INTS, [127] * LANES))
        return builder.bitcast(builder.shl(bits, ir.Constant(_INTS, [23] * LANES)), _VECTOR)

    return _vector(shifted), generate


_ONE: Final = np.float32(1)
_MINUS_TWO: Final = np.float32(-2)
_SHIFT: Final = np.float32(1.5 * 2**23)  # adding it rounds to an integer, which then stands in the lowest bits
_LOG2_E: Final = np.float32(1 / math.log(2))
_LN2_HIGH: Final = np.float32(0.693359375)  # nine bits, so that n times this is exact
_LN2_LOW: Final = np.float32(math.log(2) - 0.693359375)
_LIMIT: Final = np.float32(127 * math.log(2))
_1, _2, _3, _4, _5, _6 = (np.float32(1 / math.factorial(k)) for k in range(1, 7))


@part
def exponential(x: Any) -> Any:
    """e**x = 2**n e**r, |r| <= ln(2) / 2, by the Taylor series to r**6: relative error below 3e-7 in -87..87.

    From e**-88 down it is 0, from e**88 up it stays; of NaN 0.
    """
    x = smaller(larger(x, spread(-_LIMIT)), spread(_LIMIT))
    shifted = multiply_add(x, spread(_LOG2_E), spread(_SHIFT))
    n = subtract(shifted, spread(_SHIFT))
    r = multiply_add(n, spread(-_LN2_LOW), multiply_add(n, spread(-_LN2_HIGH), x))
    y = multiply_add(spread(_6), r, spread(_5))
    y = multiply_add(y, r, spread(_4))
    y = multiply_add(y, r, spread(_3))
    y = multiply_add(y, r, spread(_2))
    y = multiply_add(y, r, spread(_1))
    y = multiply_add(y, r, spread(_ONE))
    return multiply(y, _power_of_two(shifted))


@part
def tanh(x: Any) -> Any:
    """1 - 2 / (1 + e**2x): absolute error below 2e-7."""
    return multiply_add(
        spread(_MINUS_TWO), divide(spread(_ONE), add(spread(_ONE), exponential(add(x, x)))), spread(_ONE)
    )


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
    vectors = -(-actions // LANES)
    most = load(logits, at)
    for vector in range(1, vectors):
        most = larger(most, load(logits, at + vector * LANES))
    top = largest_across(most)
    total = float32(0)
    for vector in range(vectors):
        share = exponential(subtract(load(logits, at + vector * LANES), spread(top)))
        store(shares, vector * LANES, share)
        total += sum_across(share)
        cumulative[vector] = total
    passed = noise * total
    vector = 0
    while vector < vectors - 1 and cumulative[vector] <= passed:
        vector += 1
    reached = cumulative[vector - 1] if vector else float32(0)
    chosen = 0
    # Rounding may leave no share that passes: then it is the last that is possible at all.
    for action in range(vector * LANES, min((vector + 1) * LANES, actions)):
        reached += shares[action]
        if shares[action] > 0:
            chosen = action
        if reached > passed:
            break
    return chosen, logits[at + chosen] - top - float32(math.log(total))

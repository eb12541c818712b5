"""Vectors of float32 numbers in registers, for compiled code: Numba knows no such type, LLVM does.

None of these checks bounds. No operation lets the compiler reorder a sum, so that the same numbers give the same bits
wherever they stand in a batch; machines whose vectors differ in length may differ in the last bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic, models, register_model

from aiotrain.cage2.engine.chance import part

__all__ = [
    "LANES",
    "add",
    "at_most",
    "divide",
    "exponential",
    "larger",
    "largest_across",
    "load",
    "lowest_bit",
    "multiply",
    "multiply_add",
    "running_sums",
    "smaller",
    "spread",
    "spread_at",
    "spread_last",
    "store",
    "subtract",
    "sum_across",
    "tanh",
]

LANES: Final = 16 if binding.get_host_cpu_features().get("avx512f") else 8
"""Numbers in a vector. Either is correct anywhere; these are fastest with and without AVX-512."""


def _intrinsic(define: Callable[..., Any]) -> Any:
    """An operation that compiled code may call with all but the first argument of ``define``."""
    return intrinsic(define)


class _Vector(types.Type):
    """LANES float32 numbers."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


_vector: Final[Any] = _Vector()
_VECTOR: Final = ir.VectorType(ir.FloatType(), LANES)
_INTS: Final = ir.VectorType(ir.IntType(32), LANES)


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _VECTOR)  # type: ignore[no-untyped-call]


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def _broadcast(builder: Any, number: Any) -> Any:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    one = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(_INTS, None))


@_intrinsic
def load(_: Any, array: Any, index: Any) -> Any:
    """LANES numbers of ``array`` [size] from ``index`` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature.args[0], *arguments)
        loaded = builder.load(builder.bitcast(address, _VECTOR.as_pointer()))
        loaded.align = 4
        return loaded

    return _vector(array, types.int64), generate


@_intrinsic
def store(_: Any, array: Any, index: Any, vector: Any) -> Any:
    """Write ``vector`` to ``array`` [size] from ``index`` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature.args[0], *arguments[:2])
        stored = builder.store(arguments[2], builder.bitcast(address, _VECTOR.as_pointer()))
        stored.align = 4
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), generate


@_intrinsic
def spread(_: Any, number: Any) -> Any:
    """``number`` in every lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _broadcast(builder, arguments[0])

    return _vector(types.float32), generate


@_intrinsic
def spread_at(_: Any, array: Any, index: Any) -> Any:
    """The number at ``index`` of ``array`` in every lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _broadcast(builder, builder.load(_address(context, builder, signature.args[0], *arguments)))

    return _vector(array, types.int64), generate


@_intrinsic
def multiply_add(_: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, rounded once where the machine has an instruction for it, and then always."""
    name = f"llvm.fmuladd.v{LANES}f32"

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function_type = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        function = builder.module.globals.get(name) or ir.Function(builder.module, function_type, name)
        return builder.call(function, arguments)

    return _vector(a, b, c), generate


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _smaller(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)


def _lanewise(operation: Callable[[Any, Any, Any], Any]) -> Any:
    @_intrinsic
    def lanewise(_: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return operation(builder, *arguments)

        return _vector(a, b), generate

    return lanewise


def _across(operation: Callable[[Any, Any, Any], Any]) -> Any:
    """All lanes in one: the upper half onto the lower, and again."""

    @_intrinsic
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


def _at_most(builder: Any, a: Any, b: Any) -> Any:
    ones = ir.Constant(_VECTOR, [1.0] * LANES)
    return builder.select(builder.fcmp_ordered("<=", a, b), ones, ir.Constant(_VECTOR, None))


@_intrinsic
def lowest_bit(_: Any, number: Any) -> Any:
    """The place of the lowest bit that is set in ``number``, uint64 and not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@_intrinsic
def running_sums(_: Any, vector: Any) -> Any:
    """In each lane the sum of the lanes up to and with it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, distance = arguments[0], 1
        while distance < LANES:
            lanes = [LANES if lane < distance else lane - distance for lane in range(LANES)]
            behind = builder.shuffle_vector(sums, ir.Constant(_VECTOR, None), ir.Constant(_INTS, lanes))
            sums = builder.fadd(sums, behind)
            distance *= 2
        return sums

    return _vector(vector), generate


@_intrinsic
def spread_last(_: Any, vector: Any) -> Any:
    """The last lane in every lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.shuffle_vector(arguments[0], arguments[0], ir.Constant(_INTS, [LANES - 1] * LANES))

    return _vector(vector), generate


add = _lanewise(lambda builder, a, b: builder.fadd(a, b))
multiply = _lanewise(lambda builder, a, b: builder.fmul(a, b))
subtract = _lanewise(lambda builder, a, b: builder.fsub(a, b))
divide = _lanewise(lambda builder, a, b: builder.fdiv(a, b))
larger = _lanewise(_larger)  # b where a is NaN
smaller = _lanewise(_smaller)
at_most = _lanewise(_at_most)  # 1 or 0
sum_across = _across(lambda builder, a, b: builder.fadd(a, b))
largest_across = _across(_larger)


@_intrinsic
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

"""SIMD vectors of float32 numbers for compiled code. LLVM has such a type, Numba has not.

No operation checks bounds. No operation lets the compiler reorder a sum, so that a row's result does not depend on its
place in a batch. Results may differ in the last bits between machines whose vectors differ in length.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.extending import models, register_model

from aiotrain.cage2.engine.compilation import compiled_helper, intrinsic

LANES: Final = 16 if binding.get_host_cpu_features().get("avx512f") else 8
"""Numbers in a vector. Both lengths are correct on any machine; 16 is faster with AVX-512, 8 without."""


class _Vector(types.Type):
    """The type of LANES float32 numbers."""

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


def _splat(builder: Any, number: Any) -> Any:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    one = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(_INTS, None))


@intrinsic
def load(_: Any, array: Any, index: Any) -> Any:
    """Read LANES numbers of ``array`` [size] from ``index`` on."""

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
def broadcast(_: Any, number: Any) -> Any:
    """Return a vector with ``number`` in every lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(builder, arguments[0])

    return _vector(types.float32), generate


@intrinsic
def broadcast_at(_: Any, array: Any, index: Any) -> Any:
    """Return a vector with the number at ``index`` of ``array`` in every lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(builder, builder.load(_address(context, builder, signature.args[0], *arguments)))

    return _vector(array, types.int64), generate


@intrinsic
def multiply_add(_: Any, a: Any, b: Any, c: Any) -> Any:
    """Return ``a * b + c``, always rounded once on machines with an instruction for it."""
    name = f"llvm.fmuladd.v{LANES}f32"

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function_type = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        function = builder.module.globals.get(name) or ir.Function(builder.module, function_type, name)
        return builder.call(function, arguments)

    return _vector(a, b, c), generate


def _maximum(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _minimum(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)


def _lanewise(operation: Callable[[Any, Any, Any], Any]) -> Any:
    @intrinsic
    def lanewise(_: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return operation(builder, *arguments)

        return _vector(a, b), generate

    return lanewise


def _over_lanes(operation: Callable[[Any, Any, Any], Any]) -> Any:
    """Return an operation that reduces all lanes to one number, by folding the upper half onto the lower repeatedly."""

    @intrinsic
    def over_lanes(_: Any, vector: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            folded, half = arguments[0], LANES // 2
            while half:
                lanes = [min(lane + half, LANES - 1) for lane in range(LANES)]
                folded = operation(builder, folded, builder.shuffle_vector(folded, folded, ir.Constant(_INTS, lanes)))
                half //= 2
            return builder.extract_element(folded, ir.Constant(ir.IntType(32), 0))

        return types.float32(vector), generate

    return over_lanes


def _less_equal(builder: Any, a: Any, b: Any) -> Any:
    ones = ir.Constant(_VECTOR, [1.0] * LANES)
    return builder.select(builder.fcmp_ordered("<=", a, b), ones, ir.Constant(_VECTOR, None))


@intrinsic
def prefix_sums(_: Any, vector: Any) -> Any:
    """Return in each lane the sum of the lanes up to and including it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, distance = arguments[0], 1
        while distance < LANES:
            lanes = [LANES if lane < distance else lane - distance for lane in range(LANES)]
            behind = builder.shuffle_vector(sums, ir.Constant(_VECTOR, None), ir.Constant(_INTS, lanes))
            sums = builder.fadd(sums, behind)
            distance *= 2
        return sums

    return _vector(vector), generate


@intrinsic
def broadcast_last(_: Any, vector: Any) -> Any:
    """Return a vector with the last lane of ``vector`` in every lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.shuffle_vector(arguments[0], arguments[0], ir.Constant(_INTS, [LANES - 1] * LANES))

    return _vector(vector), generate


add = _lanewise(lambda builder, a, b: builder.fadd(a, b))
multiply = _lanewise(lambda builder, a, b: builder.fmul(a, b))
subtract = _lanewise(lambda builder, a, b: builder.fsub(a, b))
divide = _lanewise(lambda builder, a, b: builder.fdiv(a, b))
maximum = _lanewise(_maximum)  # b where a is NaN
minimum = _lanewise(_minimum)
less_equal = _lanewise(_less_equal)  # 1 or 0
sum_of_lanes = _over_lanes(lambda builder, a, b: builder.fadd(a, b))
max_of_lanes = _over_lanes(_maximum)


@intrinsic
def _exp2(_: Any, shifted: Any) -> Any:
    """Return 2**n for ``shifted`` = n + _SHIFT with n in -127..127; 0 for n = -127."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.add(builder.bitcast(arguments[0], _INTS), ir.Constant(_INTS, [127] * LANES))
        return builder.bitcast(builder.shl(bits, ir.Constant(_INTS, [23] * LANES)), _VECTOR)

    return _vector(shifted), generate


_ONE: Final = np.float32(1)
_MINUS_TWO: Final = np.float32(-2)
_SHIFT: Final = np.float32(1.5 * 2**23)  # adding it rounds to an integer, which the lowest bits then hold
_LOG2_E: Final = np.float32(1 / math.log(2))
_LN2_HIGH: Final = np.float32(0.693359375)  # nine bits, so that n times this is exact
_LN2_LOW: Final = np.float32(math.log(2) - 0.693359375)
_LIMIT: Final = np.float32(127 * math.log(2))
_1, _2, _3, _4, _5, _6 = (np.float32(1 / math.factorial(k)) for k in range(1, 7))


@compiled_helper
def exp(x: Any) -> Any:
    """Return e**x as 2**n e**r with |r| <= ln(2) / 2, by the Taylor series to r**6.

    The relative error is below 3e-7 for x in -87..87. The result is 0 for x below -88 and for NaN, and constant for x
    above 88.
    """
    x = minimum(maximum(x, broadcast(-_LIMIT)), broadcast(_LIMIT))
    shifted = multiply_add(x, broadcast(_LOG2_E), broadcast(_SHIFT))
    n = subtract(shifted, broadcast(_SHIFT))
    r = multiply_add(n, broadcast(-_LN2_LOW), multiply_add(n, broadcast(-_LN2_HIGH), x))
    y = multiply_add(broadcast(_6), r, broadcast(_5))
    y = multiply_add(y, r, broadcast(_4))
    y = multiply_add(y, r, broadcast(_3))
    y = multiply_add(y, r, broadcast(_2))
    y = multiply_add(y, r, broadcast(_1))
    y = multiply_add(y, r, broadcast(_ONE))
    return multiply(y, _exp2(shifted))


@compiled_helper
def tanh(x: Any) -> Any:
    """Return tanh(x) as 1 - 2 / (1 + e**2x), with an absolute error below 2e-7."""
    return multiply_add(
        broadcast(_MINUS_TWO), divide(broadcast(_ONE), add(broadcast(_ONE), exp(add(x, x)))), broadcast(_ONE)
    )

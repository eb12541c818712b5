"""How functions are compiled with Numba."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from llvmlite import ir
from numba import extending, njit, types

__all__ = ["compiled", "compiled_helper", "intrinsic", "lowest_bit"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile ``function`` at its first call, without the interpreter lock, and cache the result on disk.

    Numba keeps the cache beside the function's file, in the user's cache folder, or where NUMBA_CACHE_DIR says. If it
    can write to none of these, every process compiles for itself.
    """
    try:
        compiled_function = njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:
        compiled_function = njit(nogil=True, error_model="numpy")(function)
    return cast(_Function, compiled_function)


def compiled_helper(function: _Function) -> _Function:
    """Compile ``function`` into the compiled functions that call it. It has no cache of its own."""
    return cast(_Function, njit(error_model="numpy")(function))


def intrinsic(define: Callable[..., Any]) -> Any:
    """Return an operation in LLVM's language. Compiled code calls it with all but the first argument of ``define``."""
    return extending.intrinsic(define)


@intrinsic
def lowest_bit(_: Any, number: Any) -> Any:
    """Return the place (int64) of the lowest bit that is set in ``number``, uint64 and not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate

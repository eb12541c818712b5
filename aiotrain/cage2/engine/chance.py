"""Random draws of the compiled engine: `word` returns 64 random bits, and the other functions derive draws from it."""

from typing import Any

import numpy as np
from numba import uint64

from aiotrain.cage2.engine.compilation import compiled_helper
from aiotrain.cage2.engine.tables import BIT_COUNT


@compiled_helper
def _rotate(x: Any, k: Any) -> Any:
    return (x << uint64(k)) | (x >> uint64(64 - k))


@compiled_helper
def word(state: Any, index: Any, tape: Any) -> Any:
    """Return the next 64 random bits: from xoshiro256++ (Blackman and Vigna, 2019), or from the tape."""
    env = state[index]
    drawn = env.words
    env.words = drawn + 1
    if tape.shape[1] > 0:
        # After the end of the tape, words are zero. Who made the tape should compare ``words`` with its length.
        return tape[index, drawn] if drawn < tape.shape[1] else uint64(0)
    s = env.generator
    s0, s1, s2, s3 = s[0], s[1], s[2], s[3]
    word = _rotate(s0 + s3, 23) + s0
    shifted = s1 << uint64(17)
    s2 ^= s0
    s3 ^= s1
    s[1] = s1 ^ s2
    s[0] = s0 ^ s3
    s[2] = s2 ^ shifted
    s[3] = _rotate(s3, 45)
    return word


@compiled_helper
def draw(state: Any, index: Any, tape: Any, n: Any) -> Any:
    """Draw an integer in 0..n-1. Probabilities differ by less than n / 2**32, too little for any test of ours."""
    return np.int64(((word(state, index, tape) >> uint64(32)) * uint64(n)) >> uint64(32))


@compiled_helper
def happens(state: Any, index: Any, tape: Any, odds: Any) -> Any:
    """Draw u in [0, 1) with 53 bits, as CybORG does. Return whether u is below ``odds`` / 2**53."""
    return (word(state, index, tape) >> uint64(11)) < uint64(odds)


@compiled_helper
def _size(hosts: Any) -> Any:
    return np.int64(BIT_COUNT[hosts & 255]) + np.int64(BIT_COUNT[hosts >> 8])


@compiled_helper
def choose(state: Any, index: Any, tape: Any, candidates: Any) -> Any:
    """Draw a member of a non-empty set of hosts.

    RedMeanderAgent takes the first candidate in a shuffle of all hosts. The candidates do not depend on the shuffle, so
    that a uniform draw has the same distribution.
    """
    left = np.int64(candidates)
    for _ in range(draw(state, index, tape, _size(left))):
        left &= left - 1
    return _size((left - 1) & ~left)

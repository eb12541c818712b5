"""Who attacks: the red agents that the engine plays, and which of them plays an episode where it is drawn."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import numpy as np

from aiotrain.cage2.scenario import RED_AGENTS
from aiotrain.errors import unknown_name

__all__ = ["MIXED", "SHARES", "compiled_red_agent", "drawn_red_agent", "shares_of"]

MIXED: Final = "mixed"
"""In place of a red agent's name: in each episode one of ``RED_AGENTS``, drawn anew."""

SHARES: Final = (0.475, 0.475, 0.05)
"""Of the episodes, what each of ``RED_AGENTS`` plays: little of the one from which there is little to learn."""


def shares_of(red_agent: str | type, shares: Sequence[float]) -> tuple[float, ...] | None:
    """``shares`` if red agents are drawn, else None.

    Raises ValueError unless they are a number from 0 on for each of ``RED_AGENTS``, and not all 0.
    """
    if red_agent != MIXED:
        return None
    if len(shares) != len(RED_AGENTS) or not all(0 <= share < math.inf for share in shares) or not any(shares):
        raise ValueError(
            f"there must be {len(RED_AGENTS)} shares, numbers from 0 on, for {', '.join(RED_AGENTS)}, and not all "
            f"0; not {', '.join(f'{share:g}' for share in shares)}"
        )
    return tuple(shares)


def drawn_red_agent(seed: int | None, shares: Sequence[float], generator: np.random.Generator | None = None) -> int:
    """The number in ``RED_AGENTS`` of who plays the episode with this seed: by chance, in ``shares`` of their sum.

    The chance is SplitMix64 (Steele, Lea and Flood, 2014) of the seed; without one, of a number from ``generator``.
    """
    if seed is None:
        assert generator is not None
        seed = int(generator.integers(2**63))
    mixed = (seed + 0x9E3779B97F4A7C15) % 2**64
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % 2**64
    bounds = list(accumulate(shares))
    return bisect(bounds, (mixed ^ mixed >> 31) / 2**64 * bounds[-1], hi=len(bounds) - 1)


def compiled_red_agent(red_agent: str | type) -> str:
    """What the engine is to be given for ``red_agent``; for MIXED, whom each episode then replaces.

    Raises ValueError, with the nearest names, for an agent that the engine does not play.
    """
    if isinstance(red_agent, type) or ":" in red_agent:
        raise ValueError(
            f"the compiled simulator plays {', '.join(RED_AGENTS)} only; for {red_agent}, choose the simulator cyborg"
        )
    if red_agent == MIXED:
        return RED_AGENTS[0]
    if red_agent not in RED_AGENTS:
        raise ValueError(unknown_name("red agent", red_agent, (*RED_AGENTS, MIXED)))
    return red_agent

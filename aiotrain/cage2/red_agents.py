"""Choice of the red agent: by name, or drawn for each episode."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from aiotrain.cage2.scenario import RED_AGENTS
from aiotrain.errors import unknown_name

__all__ = ["MIXED", "SHARES", "compiled_red_agent", "drawn_red_agent", "shares_of"]

MIXED: Final = "mixed"
"""Given as the red agent: each episode draws one of ``RED_AGENTS``."""

SHARES: Final = (0.475, 0.475, 0.05)
"""Default probability of each of ``RED_AGENTS``. SleepAgent is rare, because there is little to learn from it."""


def shares_of(red_agent: str | type, shares: Sequence[float]) -> tuple[float, ...] | None:
    """Return ``shares`` if ``red_agent`` is MIXED, else None.

    Raises ValueError unless there is one finite number of at least 0 for each of ``RED_AGENTS``, and one is above 0.
    """
    if red_agent != MIXED:
        return None
    if len(shares) != len(RED_AGENTS) or not all(0 <= share < math.inf for share in shares) or not any(shares):
        raise ValueError(
            f"there must be {len(RED_AGENTS)} shares, numbers from 0 on, for {', '.join(RED_AGENTS)}, and not all "
            f"0; not {', '.join(f'{share:g}' for share in shares)}"
        )
    return tuple(shares)


def drawn_red_agent(seed: int, shares: Sequence[float]) -> int:
    """Draw the number in ``RED_AGENTS`` of the agent that plays the episode with this seed.

    The uniform number is SplitMix64 (Steele, Lea and Flood, 2014) of the seed. Probabilities are in proportion to
    ``shares``.
    """
    mixed = (seed + 0x9E3779B97F4A7C15) % 2**64
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % 2**64
    bounds = list(accumulate(shares))
    return bisect(bounds, (mixed ^ mixed >> 31) / 2**64 * bounds[-1], hi=len(bounds) - 1)


def compiled_red_agent(red_agent: str | type) -> str:
    """Return the red agent with which the compiled engine begins; with MIXED, each episode then replaces it.

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

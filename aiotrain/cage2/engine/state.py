"""The state of a batch of environments: one NumPy record for each, allocated once."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from aiotrain.cage2.engine.tables import NUM_HOSTS
from aiotrain.cage2.scenario import (
    B_LINE_AGENT,
    EPISODE_STEPS,
    HOST_TYPES,
    LONGEST_EPISODE,
    NUM_BITS,
    RED_AGENTS,
    RULES,
    Rules,
)
from aiotrain.errors import unknown_name

COMPILED_WITH: Final = ("scenario", "play/simd", "play/policy_network", "blue_view", "blue_memory")
"""Files of ``aiotrain.cage2`` outside the engine whose code or tables are compiled into its callers."""


def _fingerprint() -> str:
    """Return a hash of the engine's sources, and of all others that are compiled together with them."""
    engine = Path(__file__).parent
    digest = hashlib.sha256()
    for path in [*sorted(engine.glob("*.py")), *(engine.parent / f"{name}.py" for name in COMPILED_WITH)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


SOURCES: Final = "sources_" + _fingerprint()
"""Name of an unused field, which makes caches of compiled code depend on the sources.

Numba caches a compiled function by its argument types and by the age of its own file only. A field name made from the
sources gives changed rules a new type. No cache can then restore old rules, even if it belongs to another file.
"""

STATE: Final = np.dtype(
    [
        # Set by the caller, and kept at a reset.
        ("red", np.uint8),
        ("rules", np.uint8),
        ("order", np.uint8, (5,)),
        ("max_steps", np.uint32),
        # The random generator (xoshiro256++), and the number of words drawn since the reset.
        ("generator", np.uint64, (4,)),
        ("words", np.uint32),
        # The episode so far.
        ("steps", np.uint32),
        ("return_tenths", np.int32),
        ("fixes", np.uint32),
        ("compliant_fixes", np.uint32),
        # Costs that last until a Restore, in tenths a step.
        ("burden", np.int32),
        # Sets of hosts.
        ("held", np.uint16),
        ("privileged", np.uint16),
        ("files", np.uint16),
        ("broken_mail", np.uint16),
        # For each host: decoys, and the open ports that red remembers, as sets of exploits; red's user-level sessions
        # that a Remove ends, and those that it does not end.
        ("decoys", np.uint8, (NUM_HOSTS,)),
        ("remembered", np.uint8, (NUM_HOSTS,)),
        ("removable", np.uint16, (NUM_HOSTS,)),
        ("durable", np.uint16, (NUM_HOSTS,)),
        # OTService.
        ("ot_known", np.uint8),
        ("ot_down", np.uint8),
        ("ot_immune", np.uint8),
        # B_lineAgent.
        ("stage", np.uint8),
        ("target", np.uint8),
        ("server_attacked", np.uint8),
        # RedMeanderAgent: sets of subnets and of hosts.
        ("known_subnets", np.uint8),
        ("swept", np.uint8),
        ("known_addresses", np.uint16),
        ("known_names", np.uint16),
        ("scanned", np.uint16),
        ("exploited", np.uint16),
        ("escalated", np.uint16),
        ("mapped", np.uint16),
        # The host whose activity bits may be set, and what blue sees.
        ("active", np.uint8),
        ("observation", np.int8, (NUM_BITS,)),
        (SOURCES, np.uint8),
    ],
    align=True,
)
"""One environment.

Callers may read ``observation`` (int8 [52]), ``held`` (the set of hosts with a session of red, User0 included),
``privileged`` (the set of hosts where red is root or SYSTEM), ``steps``, ``return_tenths``, ``fixes`` and
``compliant_fixes``. Before a reset, they may set ``red``, ``rules``, ``order`` and ``max_steps`` (0: no end).
"""

NO_TAPE: Final[NDArray[np.uint64]] = np.zeros((0, 0), np.uint64)
"""Given as ``tape``: every environment draws from its own generator."""


def allocate(
    num_envs: int,
    *,
    red_agent: str | Sequence[str] = B_LINE_AGENT,
    rules: Rules = "main",
    max_steps: int = EPISODE_STEPS,
) -> NDArray[Any]:
    """Allocate ``num_envs`` environments. Reset them before their first step.

    Args:
        num_envs: Number of environments, at least 1.
        red_agent: One of ``RED_AGENTS`` for all, or one for each environment.
        rules: One of ``RULES``.
        max_steps: Steps after which an episode is truncated, 0 to 65,535; 0: never.

    Returns:
        Records of dtype ``STATE``, shape [num_envs]. Their order is ``HOST_TYPES``.

    Raises:
        ValueError: An argument is invalid.

    """
    names = [red_agent] * num_envs if isinstance(red_agent, str) else list(red_agent)
    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, got {num_envs}")
    if len(names) != num_envs:
        raise ValueError(f"{len(names)} red agents were given for {num_envs} environments")
    for name in names:
        if name not in RED_AGENTS:
            raise ValueError(unknown_name("red agent", name, RED_AGENTS))
    if rules not in RULES:
        raise ValueError(unknown_name("rules", rules, RULES))
    if not 0 <= max_steps <= LONGEST_EPISODE:
        raise ValueError(f"max_steps must lie between 0 (no end) and {LONGEST_EPISODE}, not at {max_steps}")
    state = np.zeros(num_envs, STATE)
    state["red"] = [RED_AGENTS.index(name) for name in names]
    state["rules"] = RULES.index(rules)
    state["order"] = np.arange(5)
    state["max_steps"] = max_steps
    return state


def set_order(state: NDArray[Any], order: Sequence[str]) -> None:
    """Set the order by which fixes are judged.

    Args:
        state: Records of dtype ``STATE``: all of them, or a slice.
        order: The five names of ``HOST_TYPES``, most urgent first.

    Raises:
        ValueError: ``order`` is no permutation of ``HOST_TYPES``.

    """
    if sorted(order) != sorted(HOST_TYPES):
        raise ValueError(f"an order names each of {', '.join(HOST_TYPES)} once, not {', '.join(order)}")
    state["order"] = [HOST_TYPES.index(name) for name in order]

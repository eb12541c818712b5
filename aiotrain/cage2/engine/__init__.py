"""CAGE Challenge 2 compiled with Numba: the same episodes as CybORG's, many thousands of times faster.

The functions that end in ``_one`` are compiled and act on one record of a batch, so that another compiled
loop can call them (observe, decide, step, write) without going back to Python:

    state = allocate(1024, red_agent="RedMeanderAgent")
    reset_one(state, index, seed)                                # compiled; also callable from Python
    tenths = step_one(state, index, action, NO_TAPE)             # reward in tenths, at most 0
    state["observation"][index]                                  # int8 [52]

``reset_batch`` and ``step_batch`` do the same for all environments of a batch, without holding the
interpreter lock.

**One code path for play and for proof.** All chance comes from one function that returns 64 random bits. It
takes them from the environment's generator, or from a tape of recorded words when the caller passes one;
whatever is done with the bits is the same compiled code. A tape made from CybORG's own draws must reproduce
CybORG's episode exactly.

**What is left out.** Process identifiers: CybORG draws them from 32,767 numbers and could draw one again
that blue remembers as suspicious on that host, so that a later Remove would end a session or a decoy that
it should not. A blue agent that removes at every turn meets 0.0014 such coincidences in an episode of 100
steps, and for one to show another Remove has to follow: none was seen in 32,610 episodes, so fewer than 1
in 10,000 (95% confidence). Also left out is whatever cannot reach an observation or a reward: addresses,
ephemeral ports, blue's sessions.
"""

from aiotrain.cage2.engine.compilation import compiled
from aiotrain.cage2.engine.kernel import reset_batch, reset_one, restart_one, step_batch, step_one
from aiotrain.cage2.engine.predict_red import foresee_one
from aiotrain.cage2.engine.state import NO_TAPE, STATE, allocate, set_order
from aiotrain.cage2.scenario import RED_AGENTS, RULES

__all__ = [
    "NO_TAPE",
    "RED_AGENTS",
    "RULES",
    "STATE",
    "allocate",
    "compiled",
    "foresee_one",
    "reset_batch",
    "reset_one",
    "restart_one",
    "set_order",
    "step_batch",
    "step_one",
]

"""CAGE Challenge 2 compiled with Numba: the same episodes as CybORG's, many thousands of times faster.

Functions whose names end in ``_one`` are compiled and work on one record of a batch. Other compiled loops can call them
without going through Python:

    state = allocate(1024, red_agent="RedMeanderAgent")
    reset_one(state, index, seed)                                # compiled; also callable from Python
    tenths = step_one(state, index, action, NO_TAPE)             # reward in tenths, at most 0
    state["observation"][index]                                  # int8 [52]

``reset_batch`` and ``step_batch`` do the same for all environments of a batch, without the interpreter lock.

**Play and proof share their code.** One function returns 64 random bits, and all draws are made from them. The bits
come from the environment's generator, or from a tape of recorded words if the caller passes one. With a tape made from
CybORG's own draws, the engine must reproduce CybORG's episode exactly.

**What is left out.** The engine has no process identifiers. CybORG draws them from 32,767 numbers, and may draw one
again that blue remembers as suspicious on that host. A later Remove then ends a session or decoy that it should not. A
blue agent that removes at every step meets 0.0014 such coincidences in an episode of 100 steps, and another Remove must
follow for an effect. None had one in 32,610 episodes, so that fewer than 1 in 10,000 do (95% confidence). Addresses,
ephemeral ports and blue's sessions are left out too, because they reach neither an observation nor a reward.
"""

from aiotrain.cage2.engine.compilation import compiled
from aiotrain.cage2.engine.kernel import reset_batch, reset_one, restart_one, step_batch, step_one
from aiotrain.cage2.engine.predict_red import predict_red_one
from aiotrain.cage2.engine.state import NO_TAPE, STATE, allocate, set_order
from aiotrain.cage2.scenario import RED_AGENTS, RULES

__all__ = [
    "NO_TAPE",
    "RED_AGENTS",
    "RULES",
    "STATE",
    "allocate",
    "compiled",
    "predict_red_one",
    "reset_batch",
    "reset_one",
    "restart_one",
    "set_order",
    "step_batch",
    "step_one",
]

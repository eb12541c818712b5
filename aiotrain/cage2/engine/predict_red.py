"""Prediction of red's next action, for who watches an episode. The engine itself keeps no record of it.

Red's decision depends on its knowledge and its draws. Blue's action changes neither, so that red's action follows from
the record before the step. The decisions of ``red.py`` are repeated here, because shared code would slow them down.
"""

from typing import Any, Final

import numpy as np

from aiotrain.cage2.engine import tables
from aiotrain.cage2.engine.chance import choose, draw, happens
from aiotrain.cage2.engine.compilation import compiled, compiled_helper

IDLE: Final = -1
"""Returned instead of SWEEP ... IMPACT if red sleeps."""


@compiled
def predict_red_one(state: Any, index: Any, tape: Any) -> Any:
    """Return what red does in the next step.

    Args:
        state: Records of dtype ``STATE``, shape [num_envs]. Pass a copy, because the decision consumes draws.
        index: Number of the environment.
        tape: See `step_one`.

    Returns:
        Three int64: SWEEP, SCAN, EXPLOIT, ESCALATE, IMPACT or IDLE; the host, or of a SWEEP the subnet; of an EXPLOIT
        the bit of the attacked service, 0 if red remembers no port.

    """
    env = state[index]
    if env.red == tables.B_LINE:
        action, target = _b_line(state, index, tape)
    elif env.red == tables.MEANDER:
        action, target = _meander(state, index, tape)
    else:
        action, target = np.int64(IDLE), np.int64(0)
    return action, target, _service(state, index, tape, target) if action == tables.EXPLOIT else np.int64(0)


@compiled_helper
def _b_line(state: Any, index: Any, tape: Any) -> Any:
    """Return B_lineAgent's action, and its host or subnet."""
    env = state[index]
    action, role = np.int64(tables.STAGE_ACTION[env.stage]), tables.STAGE_ROLE[env.stage]
    if action == tables.SWEEP:
        return action, np.int64(tables.USER_SUBNET if env.stage == 0 else tables.ENTERPRISE_SUBNET)
    if role == 0:
        return action, np.int64(env.target) if env.target else tables.FIRST_USER_TARGET + draw(state, index, tape, 4)
    if role == 1:
        return action, np.int64(tables.ENTRY_SERVER[env.target])
    return action, np.int64(tables.ENTERPRISE2 if role == 2 else tables.OP_SERVER0)


@compiled_helper
def _meander(state: Any, index: Any, tape: Any) -> Any:
    """Return RedMeanderAgent's action, and its host or subnet."""
    env = state[index]
    if (env.escalated >> tables.OP_SERVER0) & 1 != 0:
        return np.int64(tables.IMPACT), np.int64(tables.OP_SERVER0)
    unswept = env.known_subnets & ~env.swept
    if unswept != 0:
        return np.int64(tables.SWEEP), np.int64(0 if unswept & 1 else (1 if unswept & 2 else 2))
    candidates = env.known_addresses & ~env.scanned
    if candidates != 0:
        return np.int64(tables.SCAN), choose(state, index, tape, candidates)
    candidates = env.known_names & ~env.escalated & ~(env.mapped & ~env.exploited)
    if candidates != 0:
        return np.int64(tables.ESCALATE), choose(state, index, tape, candidates)
    return np.int64(tables.EXPLOIT), choose(state, index, tape, env.known_addresses & ~env.exploited)


@compiled_helper
def _service(state: Any, index: Any, tape: Any, host: Any) -> Any:
    """Return the service that red attacks on a host, as its bit."""
    ports = state[index].remembered[host]
    if tables.NUM_OPTIONS[ports] > 1:
        other = tables.OTHER_OPTIONS[ports, draw(state, index, tape, tables.NUM_OPTIONS[ports] - 1)]
        if not happens(state, index, tape, tables.ODDS_OF_BEST):
            return np.int64(other)
    return np.int64(tables.BEST_OPTION[ports])

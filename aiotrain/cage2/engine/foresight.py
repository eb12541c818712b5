"""What red is about to do, for whoever watches an episode: the engine itself keeps no account of it.

Red decides by what it knows and by its draws, neither of which blue's action changes. So its action follows from the
record before the step.
"""

from typing import Any, Final

import numpy as np

from aiotrain.cage2.engine.chance import choose, compiled, part
from aiotrain.cage2.engine.red import b_line_host, choose_exploit
from aiotrain.cage2.engine.tables import (
    B_LINE,
    ENTERPRISE_SUBNET,
    ESCALATE,
    EXPLOIT,
    IMPACT,
    MEANDER,
    OP_SERVER0,
    SCAN,
    STAGE_ACTION,
    SWEEP,
    USER_SUBNET,
)

IDLE: Final = -1
"""In place of SWEEP ... IMPACT, where red sleeps."""


@compiled
def foresee_one(state: Any, index: Any, tape: Any) -> Any:
    """Tell what red will do in the step that comes.

    Args:
        state: records of dtype ``STATE``, shape [num_envs]: a copy, for the draws of the decision are used up.
        index: the environment.
        tape: as for ``step_one``.

    Returns:
        Three int64: SWEEP, SCAN, EXPLOIT, ESCALATE, IMPACT or IDLE; the host, of a SWEEP the subnet; of an EXPLOIT the
        service attacked, as its bit, 0 where red remembers no port.

    """
    env = state[index]
    if env.red == B_LINE:
        action = np.int64(STAGE_ACTION[env.stage])
        if action == SWEEP:
            return action, np.int64(USER_SUBNET if env.stage == 0 else ENTERPRISE_SUBNET), np.int64(0)
        host = b_line_host(state, index, tape)
    elif env.red == MEANDER:
        action, host = _meander(state, index, tape)
    else:
        action, host = np.int64(IDLE), np.int64(0)
    service = np.int64(choose_exploit(state, index, tape, host)) if action == EXPLOIT else np.int64(0)
    return action, host, service


@part
def _meander(state: Any, index: Any, tape: Any) -> Any:
    """Tell RedMeanderAgent's action and host, or subnet."""
    env = state[index]
    if (env.escalated >> OP_SERVER0) & 1 != 0:
        return np.int64(IMPACT), np.int64(OP_SERVER0)
    unswept = env.known_subnets & ~env.swept
    if unswept != 0:
        return np.int64(SWEEP), np.int64(0 if unswept & 1 else (1 if unswept & 2 else 2))
    candidates = env.known_addresses & ~env.scanned
    if candidates != 0:
        return np.int64(SCAN), choose(state, index, tape, candidates)
    candidates = env.known_names & ~env.escalated & ~(env.mapped & ~env.exploited)
    if candidates != 0:
        return np.int64(ESCALATE), choose(state, index, tape, candidates)
    return np.int64(EXPLOIT), choose(state, index, tape, env.known_addresses & ~env.exploited)

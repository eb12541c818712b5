"""Reset and step of the compiled engine, in the order in which CybORG plays a step.

Blue acts, red decides and acts, the reward follows from the state, and the observation shows what happened. Green is
idle in this scenario. All functions take the batch's records and an index. They allocate nothing, raise nothing and
check no arguments: an action must lie in 0..144, and an index within the batch.
"""

from typing import Any

import numpy as np
from numba import uint64
from numpy.typing import NDArray

from aiotrain.cage2.engine import tables
from aiotrain.cage2.engine.compilation import compiled, compiled_helper
from aiotrain.cage2.engine.red import play_b_line, play_meander
from aiotrain.cage2.scenario import NUM_BITS

_USER0_BIT = 1 << tables.USER0


@compiled_helper
def _count_fix(env: Any, host: Any) -> Any:
    """Judge a Remove or Restore by the order, before it acts."""
    taken = env.held & tables.ALL_BUT_USER0
    if taken == 0:
        return
    env.fixes += 1
    for place in range(5):
        kind = env.order[place]
        if (tables.TYPE_HOSTS[kind] & taken) != 0:
            if kind == tables.HOST_TYPE[host]:
                env.compliant_fixes += 1
            return


@compiled_helper
def _remove(env: Any, host: Any) -> Any:
    bit = 1 << host
    env.removable[host] = 0
    if (env.privileged & bit) == 0 and env.durable[host] == 0:
        env.held &= ~bit
    row = env.observation
    if (row[4 * host + 2] | row[4 * host + 3]) != 0:
        row[4 * host + 2] = 1
        row[4 * host + 3] = 0


@compiled_helper
def _restore(env: Any, host: Any) -> Any:
    bit = 1 << host
    env.decoys[host] = 0
    env.removable[host] = 0
    env.durable[host] = 0
    env.files &= ~bit
    # The backup of User0 contains the session from which red starts.
    lost = bit & tables.ALL_BUT_USER0
    if (env.privileged & lost) != 0:
        env.burden -= tables.COST[host]
    env.held &= ~lost
    env.privileged &= ~lost
    if host == tables.OP_SERVER0:
        # The backup does not tell which process belongs to OTService, so that stopping the service no longer ends it.
        env.ot_immune = 1
        if env.ot_down != 0:
            env.ot_down = 0
            env.burden -= tables.OT_SERVICE_COST
    if env.rules == tables.LEADERBOARD and (tables.SERVICES[host] & tables.HARAKA) != 0:
        # The backup corrupts the mail server's version, and the exploit fails for an unknown version.
        env.broken_mail |= bit
    row = env.observation
    row[4 * host + 2] = 0
    row[4 * host + 3] = 0


@compiled
def restart_one(state: Any, index: Any) -> None:
    """Begin an episode with the environment's generator as it is.

    Args:
        state: Records of dtype ``STATE``, shape [num_envs].
        index: Number of the environment.

    """
    env = state[index]
    env.words = 0
    env.steps = 0
    env.return_tenths = 0
    env.fixes = 0
    env.compliant_fixes = 0
    env.burden = 0
    env.held = _USER0_BIT
    env.privileged = _USER0_BIT
    env.files = 0
    env.broken_mail = 0
    for host in range(tables.NUM_HOSTS):
        env.decoys[host] = 0
        env.remembered[host] = 0
        env.removable[host] = 0
        env.durable[host] = 0
    env.ot_known = 0
    env.ot_down = 0
    env.ot_immune = 0
    env.stage = 0
    env.target = 0
    env.server_attacked = 0
    env.known_subnets = 1 << tables.USER_SUBNET
    env.swept = 0
    env.known_addresses = _USER0_BIT
    env.known_names = _USER0_BIT
    env.scanned = 0
    env.exploited = 0
    env.escalated = 0
    env.mapped = 0
    env.active = 0
    for i in range(NUM_BITS):
        env.observation[i] = 0


@compiled
def reset_one(state: Any, index: Any, seed: Any) -> None:
    """Seed an environment and begin an episode. The same seed and actions give the same episode on every machine.

    Args:
        state: Records of dtype ``STATE``, shape [num_envs].
        index: Number of the environment.
        seed: Any 64-bit integer. SplitMix64 (Steele, Lea and Flood, 2014) makes the generator's state from it.

    """
    env = state[index]
    x = uint64(seed)
    for i in range(4):
        x += uint64(0x9E3779B97F4A7C15)
        z = x
        z = (z ^ (z >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> uint64(27))) * uint64(0x94D049BB133111EB)
        env.generator[i] = z ^ (z >> uint64(31))
    restart_one(state, index)


@compiled
def step_one(state: Any, index: Any, action: Any, tape: Any) -> Any:
    """Play one step in one environment. Its record then holds the next observation.

    Episodes never terminate. The caller truncates them, for instance when ``steps`` reaches ``max_steps``.

    Args:
        state: Records of dtype ``STATE``, shape [num_envs].
        index: Number of the environment.
        action: Blue's action, 0..144 in the order of CybORG's challenge wrapper.
        tape: uint64 [num_envs, words]: random bits that replace the generator's, or ``NO_TAPE``.

    Returns:
        The reward in tenths, int64, at most 0. Divided by 10.0 it equals CybORG's float.

    """
    env = state[index]
    row = env.observation
    active = env.active
    row[4 * active] = 0
    row[4 * active + 1] = 0

    kind = tables.ACTION_KIND[action]
    host = np.int64(tables.ACTION_HOST[action])
    decoyed: Any = -1
    infected = False
    cost = 0
    if kind == tables.NOTHING:
        pass
    elif kind == tables.ANALYSE:
        infected = ((env.files >> host) & 1) != 0
    elif kind == tables.REMOVE:
        _count_fix(env, host)
        _remove(env, host)
    elif kind == tables.RESTORE:
        _count_fix(env, host)
        _restore(env, host)
        cost = tables.RESTORE_COST
    else:
        decoy = kind - tables.FIRST_DECOY
        taken = (tables.PORTS[host] | env.decoys[host]) & tables.DECOY_NEEDS[decoy]
        if taken == 0 and ((tables.DECOY_HOSTS[decoy] >> host) & 1) != 0:
            env.decoys[host] |= tables.DECOY_OPENS[decoy]
            decoyed = host

    if env.red == tables.B_LINE:
        play_b_line(state, index, tape, decoyed)
    elif env.red == tables.MEANDER:
        play_meander(state, index, tape, decoyed)

    if infected:
        row[4 * host + 2] = 1
        row[4 * host + 3] = 1
    tenths = -np.int64(env.burden) - cost
    env.steps += 1
    env.return_tenths += tenths
    return tenths


@compiled
def reset_batch(state: Any, seeds: NDArray[np.uint64]) -> None:
    """Seed and reset every environment of a batch.

    Args:
        state: Records of dtype ``STATE``, shape [num_envs].
        seeds: uint64 [num_envs].

    """
    for index in range(len(state)):
        reset_one(state, index, seeds[index])


@compiled
def step_batch(state: Any, actions: NDArray[np.int64], tenths: NDArray[np.int32], tape: Any) -> None:
    """Play one step in every environment of a batch.

    Args:
        state: Records of dtype ``STATE``, shape [num_envs].
        actions: int64 [num_envs], each 0..144.
        tenths: int32 [num_envs], overwritten with the rewards in tenths.
        tape: See `step_one`.

    """
    for index in range(len(state)):
        tenths[index] = step_one(state, index, actions[index], tape)

"""The compiled engine: one step of CAGE Challenge 2, in the order in which CybORG plays it.

Blue acts, red decides and acts, the reward is read off the state, and what happened is shown. Green is idle in this
scenario. All functions take the batch's records and an index, allocate nothing and raise nothing; they do not check
their arguments: an action must lie in 0..144 and an index within the batch.
"""

from typing import Any

import numpy as np
from numba import njit, uint64
from numpy.typing import NDArray

from aiotrain.cage2.engine.tables import (
    ACTION_HOST,
    ACTION_KIND,
    ALL_BUT_USER0,
    ANALYSE,
    B_LINE,
    BEST_OPTION,
    BIT_COUNT,
    COST,
    DECOY_HOSTS,
    DECOY_NEEDS,
    DECOY_OPENS,
    DEFENDER,
    ENTERPRISE,
    ENTERPRISE2,
    ENTRY_SERVER,
    ESCALATE,
    EXPLOIT,
    FIRST_DECOY,
    FIRST_USER_TARGET,
    HARAKA,
    HOST_TYPE,
    IDLE,
    IMPACT,
    LAST_STAGE,
    LEADERBOARD,
    LEARNED,
    MEANDER,
    MORE_PORTS,
    NOTHING,
    NUM_HOSTS,
    NUM_OPTIONS,
    OBSERVATION_SIZE,
    ODDS_OF_BEST,
    ODDS_OF_DETECTION,
    OP_SERVER0,
    OPERATIONAL,
    OT_SERVICE_COST,
    OTHER_OPTIONS,
    PORTS,
    REMOVE,
    RESTORE,
    RESTORE_COST,
    ROOT_SERVICES,
    SCAN,
    SERVICES,
    SSH,
    STAGE_ACTION,
    STAGE_AFTER_FAILURE,
    STAGE_ROLE,
    SUBNET,
    SUBNET_HOSTS,
    SWEEP,
    TYPE_HOSTS,
    USER0,
    USER_SUBNET,
)

_USER0_BIT = 1 << USER0
_OP_SERVER0_BIT = 1 << OP_SERVER0

compiled = njit(cache=True, nogil=True, error_model="numpy")
"""Compile at the first call and keep the result beside this file (or where NUMBA_CACHE_DIR says)."""

# ---------------------------------------------------------------------------------------------------- chance


@compiled
def _rotate(x: Any, k: Any) -> Any:
    return (x << uint64(k)) | (x >> uint64(64 - k))


@compiled
def _word(state: Any, index: Any, tape: Any) -> Any:
    """Return the next 64 random bits: xoshiro256++ (Blackman and Vigna, 2019), or what the tape says."""
    env = state[index]
    drawn = env.words
    env.words = drawn + 1
    if tape.shape[1] > 0:
        # Past the end of the tape the words are zero; whoever made the tape compares ``words`` with its length.
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


@compiled
def _draw(state: Any, index: Any, tape: Any, n: Any) -> Any:
    """Draw an integer in 0..n-1. Unequal by less than n / 2**32, which no test of ours can see."""
    return np.int64(((_word(state, index, tape) >> uint64(32)) * uint64(n)) >> uint64(32))


@compiled
def _happens(state: Any, index: Any, tape: Any, odds: Any) -> Any:
    """Draw u in [0, 1) with 53 bits, as CybORG does, and return whether it lies below ``odds`` / 2**53."""
    return (_word(state, index, tape) >> uint64(11)) < uint64(odds)


@compiled
def _size(hosts: Any) -> Any:
    return np.int64(BIT_COUNT[hosts & 255]) + np.int64(BIT_COUNT[hosts >> 8])


@compiled
def _choose(state: Any, index: Any, tape: Any, candidates: Any) -> Any:
    """Draw a member of a non-empty set of hosts.

    Meander takes the first candidate in a shuffle of all hosts. Its candidates do not depend on the shuffle, so a
    uniform draw among them has exactly that law.
    """
    left = np.int64(candidates)
    for _ in range(_draw(state, index, tape, _size(left))):
        left &= left - 1
    return _size((left - 1) & ~left)


# ------------------------------------------------------------------------------------------------------- red


@compiled
def _show(env: Any, host: Any, exploit: Any) -> Any:
    """Show a scan on a host, or an exploit, which also overwrites what was known of its compromise."""
    row = env.observation
    row[4 * host] = 1
    if exploit:
        row[4 * host + 1] = 1
        row[4 * host + 2] = 0
        row[4 * host + 3] = 1
    env.active = host


@compiled
def _reachable(env: Any, host: Any) -> Any:
    """Tell whether traffic from User0 reaches a host: the operational subnet only from an enterprise foothold."""
    return ((1 << host) & OPERATIONAL) == 0 or (env.held & ENTERPRISE) != 0


@compiled
def _sweep(env: Any, subnet: Any) -> Any:
    # The operational subnet is the only one that a sweep may find closed.
    if SUBNET_HOSTS[subnet] == OPERATIONAL and (env.held & ENTERPRISE) == 0:
        return False
    env.known_subnets |= 1 << subnet
    env.known_addresses |= SUBNET_HOSTS[subnet]
    return True


@compiled
def _scan(env: Any, host: Any, decoyed: Any) -> Any:
    """Scan a host; ``decoyed`` is the host on which blue placed a decoy in this step, or -1."""
    if _reachable(env, host):
        ports = PORTS[host] | env.decoys[host]
        if env.rules == LEADERBOARD:
            env.remembered[host] |= ports
        else:
            env.remembered[host] = ports
        # Blue's view of a scan of fewer than three ports is swallowed by the report of the new decoy.
        if BIT_COUNT[ports] + MORE_PORTS[host] >= 3 or decoyed != host:
            _show(env, host, False)
    return True  # a scan that cannot be routed succeeds too, with nothing found


@compiled
def _gain(env: Any, host: Any) -> Any:
    """Make red root or SYSTEM on a host where it was not."""
    env.privileged |= 1 << host
    env.burden += COST[host]


@compiled
def _exploit(state: Any, index: Any, tape: Any, host: Any, decoyed: Any) -> Any:
    env = state[index]
    ports = env.remembered[host]
    options = NUM_OPTIONS[ports]
    if options == 0:
        return False
    service = BEST_OPTION[ports]
    if options > 1:
        other = OTHER_OPTIONS[ports, _draw(state, index, tape, options - 1)]
        if not _happens(state, index, tape, ODDS_OF_BEST):
            service = other
    if not _reachable(env, host):
        return False
    genuine = (SERVICES[host] & service) != 0
    if not genuine and (env.decoys[host] & service) == 0:
        return False  # remembered, but no longer (or never) there: nothing to see
    bit = 1 << host
    if service == SSH:
        # Ten attempts at a login are seen whatever comes of them. The session's process is never reported.
        _show(env, host, True)
        if not genuine or host == DEFENDER:
            return False
        env.durable[host] += 1
    elif not genuine:
        # Two events on one port; the report of a decoy placed in this step makes them three, which reads as an
        # exploit.
        _show(env, host, decoyed == host)
        return False
    elif service == HARAKA and (env.broken_mail & bit) != 0:
        if decoyed != host:
            _show(env, host, False)
        return False
    else:
        env.files |= bit
        detected = _happens(state, index, tape, ODDS_OF_DETECTION)
        if detected:
            _show(env, host, True)
        elif decoyed != host:
            _show(env, host, False)
        if (ROOT_SERVICES[host] & service) != 0:
            if (env.privileged & bit) == 0:
                _gain(env, host)
        elif detected:
            env.removable[host] += 1
        else:
            env.durable[host] += 1
    env.held |= bit
    env.known_names |= bit
    return True


@compiled
def _escalate(state: Any, index: Any, tape: Any, host: Any) -> Any:
    env = state[index]
    bit = 1 << host
    if (env.held & bit) == 0:
        return False
    if (env.privileged & bit) == 0:
        # One of the sessions, those that a Remove would end counted first, becomes privileged. From then on until
        # a Restore the other sessions of the host change nothing.
        removable = env.removable[host]
        if _draw(state, index, tape, removable + env.durable[host]) < removable:
            env.removable[host] = removable - 1
        else:
            env.durable[host] -= 1
        env.files |= bit
        _gain(env, host)
    env.known_addresses |= LEARNED[host]
    env.known_subnets |= 1 << SUBNET[host]
    if host == OP_SERVER0:
        env.ot_known = 1
    return True


@compiled
def _impact(env: Any) -> Any:
    if (env.held & _OP_SERVER0_BIT) == 0 or env.ot_known == 0:
        return False
    if env.ot_immune == 0 and env.ot_down == 0:
        env.ot_down = 1
        env.burden += OT_SERVICE_COST
    return True


@compiled
def _b_line(state: Any, index: Any, tape: Any, decoyed: Any) -> Any:
    """Play B_lineAgent: a fixed line to Op_Server0 that falls back a little at each failure."""
    env = state[index]
    stage = env.stage
    action = STAGE_ACTION[stage]
    role = STAGE_ROLE[stage]
    if action == SWEEP:
        env.stage = stage + 1  # both of its sweeps are of subnets that are always open
        return
    if role == 0:
        if env.target == 0:
            env.target = FIRST_USER_TARGET + _draw(state, index, tape, 4)
        host = np.int64(env.target)
    elif role == 1:
        host = np.int64(ENTRY_SERVER[env.target])
    elif role == 2:
        host = ENTERPRISE2
    else:
        host = OP_SERVER0
    if action == SCAN:
        _scan(env, host, decoyed)
        env.stage = stage + 1
        # The first time that a scan of Op_Server0 finds nothing, it starts again from the user host. Once it has
        # attacked Op_Server0 it never looks at what the scan found.
        if role == 3 and env.server_attacked == 0 and not _reachable(env, host):
            env.stage = 1
        return
    if action == EXPLOIT:
        if role == 3:
            env.server_attacked = 1
        succeeded = _exploit(state, index, tape, host, decoyed)
    elif action == ESCALATE:
        succeeded = _escalate(state, index, tape, host)
    else:
        succeeded = _impact(env)
    if not succeeded:
        env.stage = STAGE_AFTER_FAILURE[stage]
    elif stage < LAST_STAGE:
        env.stage = stage + 1


@compiled
def _meander(state: Any, index: Any, tape: Any, decoyed: Any) -> Any:
    """Play RedMeanderAgent: scan everything known, then take everything scanned, in random order."""
    env = state[index]
    if (env.escalated & _OP_SERVER0_BIT) != 0:
        if not _impact(env):
            env.escalated &= ~_OP_SERVER0_BIT
            env.exploited &= ~(env.mapped & _OP_SERVER0_BIT)
        return
    unswept = env.known_subnets & ~env.swept
    if unswept != 0:
        subnet = 0 if unswept & 1 else (1 if unswept & 2 else 2)
        env.swept |= 1 << subnet
        _sweep(env, subnet)
        return
    candidates = env.known_addresses & ~env.scanned
    if candidates != 0:
        host = _choose(state, index, tape, candidates)
        env.scanned |= 1 << host
        _scan(env, host, decoyed)
        return
    candidates = env.known_names & ~env.escalated & ~(env.mapped & ~env.exploited)
    if candidates != 0:
        host = _choose(state, index, tape, candidates)
        bit = 1 << host
        if _escalate(state, index, tape, host):
            env.escalated |= bit
        else:
            env.exploited &= ~(env.mapped & bit)
        return
    candidates = env.known_addresses & ~env.exploited
    if candidates != 0:  # always so: the defender, which no exploit takes, is one of them
        host = _choose(state, index, tape, candidates)
        bit = 1 << host
        if _exploit(state, index, tape, host, decoyed):
            env.exploited |= bit
            env.mapped |= bit
        else:
            # It gives up the operational hosts that it escalated, or else the enterprise hosts, and starts over.
            lost = env.escalated & OPERATIONAL
            if lost == 0:
                lost = env.escalated & ENTERPRISE
            env.escalated &= ~lost
            env.exploited &= ~lost


# ------------------------------------------------------------------------------------------------------ blue


@compiled
def _count_fix(env: Any, host: Any) -> Any:
    """Judge a Remove or Restore by the order of host types, at the moment before it acts."""
    taken = env.held & ALL_BUT_USER0
    if taken == 0:
        return
    env.fixes += 1
    for place in range(5):
        kind = env.order[place]
        if (TYPE_HOSTS[kind] & taken) != 0:
            if kind == HOST_TYPE[host]:
                env.compliant_fixes += 1
            return


@compiled
def _remove(env: Any, host: Any) -> Any:
    bit = 1 << host
    env.removable[host] = 0
    if (env.privileged & bit) == 0 and env.durable[host] == 0:
        env.held &= ~bit
    row = env.observation
    if (row[4 * host + 2] | row[4 * host + 3]) != 0:
        row[4 * host + 2] = 1
        row[4 * host + 3] = 0


@compiled
def _restore(env: Any, host: Any) -> Any:
    bit = 1 << host
    env.decoys[host] = 0
    env.removable[host] = 0
    env.durable[host] = 0
    env.files &= ~bit
    # The backup of User0 holds the session from which red started.
    lost = bit & ALL_BUT_USER0
    if (env.privileged & lost) != 0:
        env.burden -= COST[host]
    env.held &= ~lost
    env.privileged &= ~lost
    if host == OP_SERVER0:
        # The backup forgets which process belongs to OTService, so that stopping the service no longer ends it.
        env.ot_immune = 1
        if env.ot_down != 0:
            env.ot_down = 0
            env.burden -= OT_SERVICE_COST
    if env.rules == LEADERBOARD:
        # The backup garbles the mail server's version, and the exploit refuses an unknown one.
        if (SERVICES[host] & HARAKA) != 0:
            env.broken_mail |= bit
    row = env.observation
    row[4 * host + 2] = 0
    row[4 * host + 3] = 0


# ------------------------------------------------------------------------------------- reset, step and batches


@compiled
def restart_one(state: Any, index: Any) -> None:
    """Begin an episode and go on with the environment's own generator.

    Args:
        state: records of dtype ``STATE``, shape [num_envs].
        index: the environment.

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
    for host in range(NUM_HOSTS):
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
    env.known_subnets = 1 << USER_SUBNET
    env.swept = 0
    env.known_addresses = _USER0_BIT
    env.known_names = _USER0_BIT
    env.scanned = 0
    env.exploited = 0
    env.escalated = 0
    env.mapped = 0
    env.active = 0
    for i in range(OBSERVATION_SIZE):
        env.observation[i] = 0


@compiled
def reset_one(state: Any, index: Any, seed: Any) -> None:
    """Seed an environment and begin an episode; the same seed and actions give the same episode anywhere.

    Args:
        state: records of dtype ``STATE``, shape [num_envs].
        index: the environment.
        seed: any 64-bit integer; splitmix64 (Steele, Lea and Flood, 2014) makes the generator's state from it.

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
    """Play one step in one environment; its record then holds the observation that follows.

    Episodes never terminate. The caller truncates them, when ``steps`` reaches ``max_steps`` for instance.

    Args:
        state: records of dtype ``STATE``, shape [num_envs].
        index: the environment.
        action: blue's action, 0..144 in the order of CybORG's challenge wrapper.
        tape: uint64 [num_envs, words], random bits to use in place of the generator's, or ``NO_TAPE``.

    Returns:
        The reward in tenths (int64, at most 0): divided by 10.0 it equals CybORG's float.

    """
    env = state[index]
    row = env.observation
    active = env.active
    row[4 * active] = 0
    row[4 * active + 1] = 0

    kind = ACTION_KIND[action]
    host = np.int64(ACTION_HOST[action])
    decoyed = -1
    infected = False
    cost = 0
    if kind == NOTHING:
        pass
    elif kind == ANALYSE:
        infected = ((env.files >> host) & 1) != 0
    elif kind == REMOVE:
        _count_fix(env, host)
        _remove(env, host)
    elif kind == RESTORE:
        _count_fix(env, host)
        _restore(env, host)
        cost = RESTORE_COST
    else:
        decoy = kind - FIRST_DECOY
        taken = (PORTS[host] | env.decoys[host]) & DECOY_NEEDS[decoy]
        if taken == 0 and ((DECOY_HOSTS[decoy] >> host) & 1) != 0:
            env.decoys[host] |= DECOY_OPENS[decoy]
            decoyed = host

    if env.red == B_LINE:
        _b_line(state, index, tape, decoyed)
    elif env.red == MEANDER:
        _meander(state, index, tape, decoyed)

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
        state: records of dtype ``STATE``, shape [num_envs].
        seeds: uint64 [num_envs].

    """
    for index in range(len(state)):
        reset_one(state, index, seeds[index])


@compiled
def step_batch(state: Any, actions: NDArray[np.int64], tenths: NDArray[np.int32], tape: Any) -> None:
    """Play one step in every environment of a batch.

    Args:
        state: records of dtype ``STATE``, shape [num_envs].
        actions: int64 [num_envs], each 0..144.
        tenths: int32 [num_envs], overwritten with the rewards in tenths.
        tape: as for ``step_one``.

    """
    for index in range(len(state)):
        tenths[index] = step_one(state, index, actions[index], tape)

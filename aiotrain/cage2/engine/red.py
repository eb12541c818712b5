"""What red can do, and the two agents that do it, compiled.

``decoyed`` is the host on which blue has placed a decoy in this very step, or -1: the report of a new decoy
changes how blue's table reads what red did to that host.
"""

from typing import Any

import numpy as np

from aiotrain.cage2.engine import tables
from aiotrain.cage2.engine.chance import choose, draw, happens
from aiotrain.cage2.engine.compilation import compiled_helper

_OP_SERVER0_BIT = 1 << tables.OP_SERVER0


@compiled_helper
def _show(env: Any, host: Any, exploit: Any) -> Any:
    """Show a scan on a host, or an exploit, which also overwrites what was known of its compromise."""
    row = env.observation
    row[4 * host] = 1
    if exploit:
        row[4 * host + 1] = 1
        row[4 * host + 2] = 0
        row[4 * host + 3] = 1
    env.active = host


@compiled_helper
def _reachable(env: Any, host: Any) -> Any:
    """Tell whether User0 reaches a host: the operational subnet only from an enterprise foothold."""
    return ((1 << host) & tables.OPERATIONAL) == 0 or (env.held & tables.ENTERPRISE) != 0


@compiled_helper
def _sweep(env: Any, subnet: Any) -> None:
    # The operational subnet is the only one that a sweep may find closed.
    if tables.SUBNET_HOSTS[subnet] == tables.OPERATIONAL and (env.held & tables.ENTERPRISE) == 0:
        return
    env.known_subnets |= 1 << subnet
    env.known_addresses |= tables.SUBNET_HOSTS[subnet]


@compiled_helper
def _scan(env: Any, host: Any, decoyed: Any) -> None:
    """Scan a host; ``decoyed`` is the host on which blue placed a decoy in this step, or -1.

    A scan that cannot be routed succeeds too, with nothing found.
    """
    if _reachable(env, host):
        ports = tables.PORTS[host] | env.decoys[host]
        if env.rules == tables.LEADERBOARD:
            env.remembered[host] |= ports
        else:
            env.remembered[host] = ports
        # Blue's view of a scan of fewer than three ports is swallowed by the report of the new decoy.
        if tables.BIT_COUNT[ports] + tables.MORE_PORTS[host] >= 3 or decoyed != host:
            _show(env, host, False)


@compiled_helper
def _gain(env: Any, host: Any) -> Any:
    """Make red root or SYSTEM on a host where it was not."""
    env.privileged |= 1 << host
    env.burden += tables.COST[host]


@compiled_helper
def _exploit(state: Any, index: Any, tape: Any, host: Any, decoyed: Any) -> Any:
    env = state[index]
    ports = env.remembered[host]
    options = tables.NUM_OPTIONS[ports]
    if options == 0:
        return False
    service = tables.BEST_OPTION[ports]
    if options > 1:
        other = tables.OTHER_OPTIONS[ports, draw(state, index, tape, options - 1)]
        if not happens(state, index, tape, tables.ODDS_OF_BEST):
            service = other
    if not _reachable(env, host):
        return False
    genuine = (tables.SERVICES[host] & service) != 0
    if not genuine and (env.decoys[host] & service) == 0:
        return False  # remembered, but no longer (or never) there: nothing to see
    bit = 1 << host
    if service == tables.SSH:
        # Ten attempts at a login are seen whatever comes of them. The session's process is never reported.
        _show(env, host, True)
        if not genuine or host == tables.DEFENDER:
            return False
        env.durable[host] += 1
    elif not genuine:
        # Two events on one port; the report of a decoy placed in this step makes them three, which reads as
        # an exploit.
        _show(env, host, decoyed == host)
        return False
    elif service == tables.HARAKA and (env.broken_mail & bit) != 0:
        if decoyed != host:
            _show(env, host, False)
        return False
    else:
        env.files |= bit
        detected = happens(state, index, tape, tables.ODDS_OF_DETECTION)
        if detected:
            _show(env, host, True)
        elif decoyed != host:
            _show(env, host, False)
        if (tables.ROOT_SERVICES[host] & service) != 0:
            if (env.privileged & bit) == 0:
                _gain(env, host)
        elif detected:
            env.removable[host] += 1
        else:
            env.durable[host] += 1
    env.held |= bit
    env.known_names |= bit
    return True


@compiled_helper
def _escalate(state: Any, index: Any, tape: Any, host: Any) -> Any:
    env = state[index]
    bit = 1 << host
    if (env.held & bit) == 0:
        return False
    if (env.privileged & bit) == 0:
        # One of the sessions, those that a Remove would end counted first, becomes privileged. From then on
        # until a Restore the other sessions of the host change nothing.
        removable = env.removable[host]
        if draw(state, index, tape, removable + env.durable[host]) < removable:
            env.removable[host] = removable - 1
        else:
            env.durable[host] -= 1
        env.files |= bit
        _gain(env, host)
    env.known_addresses |= tables.LEARNED[host]
    env.known_subnets |= 1 << tables.SUBNET[host]
    if host == tables.OP_SERVER0:
        env.ot_known = 1
    return True


@compiled_helper
def _impact(env: Any) -> Any:
    if (env.held & _OP_SERVER0_BIT) == 0 or env.ot_known == 0:
        return False
    if env.ot_immune == 0 and env.ot_down == 0:
        env.ot_down = 1
        env.burden += tables.OT_SERVICE_COST
    return True


@compiled_helper
def play_b_line(state: Any, index: Any, tape: Any, decoyed: Any) -> Any:
    """Play B_lineAgent: a fixed line to Op_Server0 that falls back a little at each failure."""
    env = state[index]
    stage = env.stage
    action = tables.STAGE_ACTION[stage]
    role = tables.STAGE_ROLE[stage]
    if action == tables.SWEEP:
        env.stage = stage + 1  # both of its sweeps are of subnets that are always open
        return
    if role == 0:
        if env.target == 0:
            env.target = tables.FIRST_USER_TARGET + draw(state, index, tape, 4)
        host: Any = np.int64(env.target)
    elif role == 1:
        host = np.int64(tables.ENTRY_SERVER[env.target])
    elif role == 2:
        host = tables.ENTERPRISE2
    else:
        host = tables.OP_SERVER0
    if action == tables.SCAN:
        _scan(env, host, decoyed)
        env.stage = stage + 1
        # The first time that a scan of Op_Server0 finds nothing, it starts again from the user host. Once
        # it has attacked Op_Server0 it never looks at what the scan found.
        if role == 3 and env.server_attacked == 0 and not _reachable(env, host):
            env.stage = 1
        return
    if action == tables.EXPLOIT:
        if role == 3:
            env.server_attacked = 1
        succeeded = _exploit(state, index, tape, host, decoyed)
    elif action == tables.ESCALATE:
        succeeded = _escalate(state, index, tape, host)
    else:
        succeeded = _impact(env)
    if not succeeded:
        env.stage = tables.STAGE_AFTER_FAILURE[stage]
    elif stage < tables.LAST_STAGE:
        env.stage = stage + 1


@compiled_helper
def play_meander(state: Any, index: Any, tape: Any, decoyed: Any) -> Any:
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
        host = choose(state, index, tape, candidates)
        env.scanned |= 1 << host
        _scan(env, host, decoyed)
        return
    candidates = env.known_names & ~env.escalated & ~(env.mapped & ~env.exploited)
    if candidates != 0:
        host = choose(state, index, tape, candidates)
        bit = 1 << host
        if _escalate(state, index, tape, host):
            env.escalated |= bit
        else:
            env.exploited &= ~(env.mapped & bit)
        return
    candidates = env.known_addresses & ~env.exploited
    if candidates != 0:  # always so: the defender, which no exploit takes, is one of them
        host = choose(state, index, tape, candidates)
        bit = 1 << host
        if _exploit(state, index, tape, host, decoyed):
            env.exploited |= bit
            env.mapped |= bit
        else:
            # It gives up the operational hosts that it escalated, or else the enterprise hosts, and starts
            # over.
            lost = env.escalated & tables.OPERATIONAL
            if lost == 0:
                lost = env.escalated & tables.ENTERPRISE
            env.escalated &= ~lost
            env.exploited &= ~lost

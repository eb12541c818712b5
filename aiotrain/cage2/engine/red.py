"""Red's actions and the two active red agents, compiled.

``decoyed`` is the host on which blue placed a decoy in this step, or -1. The report of a new decoy changes how blue's
table interprets what red did to that host.
"""

from typing import Any

import numpy as np

from aiotrain.cage2.engine import tables
from aiotrain.cage2.engine.chance import choose, draw, happens
from aiotrain.cage2.engine.compilation import compiled_helper

_OP_SERVER0_BIT = 1 << tables.OP_SERVER0


@compiled_helper
def _show(env: Any, host: Any, exploit: Any) -> Any:
    """Show a scan on a host, or an exploit, which also overwrites the host's compromise bits."""
    row = env.observation
    row[4 * host] = 1
    if exploit:
        row[4 * host + 1] = 1
        row[4 * host + 2] = 0
        row[4 * host + 3] = 1
    env.active = host


@compiled_helper
def _reachable(env: Any, host: Any) -> Any:
    """Return whether red reaches a host. The operational subnet is open only while red holds an enterprise host."""
    return ((1 << host) & tables.OPERATIONAL) == 0 or (env.held & tables.ENTERPRISE) != 0


@compiled_helper
def _sweep(env: Any, subnet: Any) -> None:
    # Only the operational subnet can be closed to a sweep.
    if tables.SUBNET_HOSTS[subnet] == tables.OPERATIONAL and (env.held & tables.ENTERPRISE) == 0:
        return
    env.known_subnets |= 1 << subnet
    env.known_addresses |= tables.SUBNET_HOSTS[subnet]


@compiled_helper
def _scan(env: Any, host: Any, decoyed: Any) -> None:
    """Scan a host. A scan of a host that red does not reach succeeds too, and finds nothing."""
    if _reachable(env, host):
        ports = tables.PORTS[host] | env.decoys[host]
        if env.rules == tables.LEADERBOARD:
            env.remembered[host] |= ports
        else:
            env.remembered[host] = ports
        # The report of a new decoy hides a scan of fewer than three ports.
        if tables.BIT_COUNT[ports] + tables.MORE_PORTS[host] >= 3 or decoyed != host:
            _show(env, host, False)


@compiled_helper
def _gain(env: Any, host: Any) -> Any:
    """Make red root or SYSTEM on a host where it is not yet."""
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
        return False  # remembered, but not there: nothing is shown
    bit = 1 << host
    if service == tables.SSH:
        # The ten attempts to log in are always seen. The session's process is never reported.
        _show(env, host, True)
        if not genuine or host == tables.DEFENDER:
            return False
        env.durable[host] += 1
    elif not genuine:
        # These are two events on one port. The report of a decoy placed in this step is a third one, which makes blue's
        # table show an exploit.
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
        # A random session becomes privileged; those that a Remove ends are counted first. Until a Restore, the host's
        # other sessions then have no effect.
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
    """Play B_lineAgent: a fixed path to Op_Server0, with a step back after each failure."""
    env = state[index]
    stage = env.stage
    action = tables.STAGE_ACTION[stage]
    role = tables.STAGE_ROLE[stage]
    if action == tables.SWEEP:
        env.stage = stage + 1  # both of its sweeps are in subnets that are always open
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
        # If a scan of Op_Server0 finds nothing, it starts again from the user host. After its first attack there, it
        # ignores what the scan finds.
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
    """Play RedMeanderAgent: scan all known hosts, then attack all scanned hosts, in random order."""
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
    if candidates != 0:  # always true, because no exploit takes the Defender
        host = choose(state, index, tape, candidates)
        bit = 1 << host
        if _exploit(state, index, tape, host, decoyed):
            env.exploited |= bit
            env.mapped |= bit
        else:
            # It gives up the operational hosts that it escalated, or, without any, the enterprise hosts, and attacks
            # them again.
            lost = env.escalated & tables.OPERATIONAL
            if lost == 0:
                lost = env.escalated & tables.ENTERPRISE
            env.escalated &= ~lost
            env.exploited &= ~lost

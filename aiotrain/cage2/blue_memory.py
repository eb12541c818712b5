"""What an attentive blue player remembers of an episode, in compiled code that both simulators share.

A record of MEMORY is updated with the 52 bits that blue sees after each step and with blue's action. The observation
and the mask of the compact actions are made from it; ``aiotrain.cage2.blue_view`` tells what their bits mean. Compiled
loops such as ``rollout.play_episodes`` call the helpers, and environments that Python steps call `update_all`.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from aiotrain.cage2.blue_view import (
    ACTION_KINDS,
    ACTIONS_KEPT,
    AGES,
    BEGUN,
    DECOYS,
    DEFENDED,
    EVENTS_KEPT,
    FIELDS,
    MOST_EVENTS,
    NUM_INPUTS,
    OLD,
    OPENING,
    TIMES,
)
from aiotrain.cage2.engine import tables
from aiotrain.cage2.engine.compilation import compiled, compiled_helper, lowest_bit
from aiotrain.cage2.engine.state import SOURCES
from aiotrain.cage2.scenario import HOST_ACTIONS, HOST_INDEX, HOSTS, NUM_ACTIONS, NUM_BITS, SUBNETS, action_index

__all__ = ["DECOY_OF_ACTION", "MEMORY", "clear", "list_ones", "list_table_ones", "update", "update_all", "write_mask"]

MEMORY: Final = np.dtype(
    [
        ("steps", np.uint32),
        # Sets of hosts: those with an event so far; those that showed a scan.
        ("seen", np.uint16),
        ("scanned", np.uint16),
        # Sets of decoys: those that do not stand; those that stood when their host first, and last, showed a scan.
        ("to_place", np.uint32),
        ("first_scan", np.uint32),
        ("last_scan", np.uint32),
        # For each step of OPENING: the set of User hosts with an event, and one bit for whether one was an exploit.
        ("opening", np.uint32),
        # Defended hosts: events since their Restore, one-hot; the set of restored ones; step of the last event or 0.
        ("events", np.uint32),
        ("restored", np.uint8),
        ("last_event", np.uint32, (len(DEFENDED),)),
        # Newest first: host + 1 (0 for none) of an event; whether it was an exploit; blue's action among the 145.
        ("recent_hosts", np.uint8, (EVENTS_KEPT,)),
        ("recent_exploits", np.uint8, (EVENTS_KEPT,)),
        ("recent_actions", np.uint8, (ACTIONS_KEPT,)),
        (SOURCES, np.uint8),
    ],
    align=True,
)
"""What blue remembers of one episode. A set is an integer with a bit for each member."""

_START: Final = {field.name: sum(each.size for each in FIELDS[:i]) for i, field in enumerate(FIELDS)}
_TIME: Final = _START["time"]
_TO_PLACE: Final = _START["decoys to place"]
_LAST_EVENTS: Final = _START["last events"]
_OPENING: Final = _START["opening"]
_LAST_ACTIONS: Final = _START["last actions"]
_RECENT: Final = _START["recent"]

_USER_HOSTS: Final = len(SUBNETS["User"])
_KINDS: Final = len(ACTION_KINDS)
_NUM_DEFENDED: Final = len(DEFENDED)
_NUM_DECOYS: Final = len(DECOYS)
_NUM_AGES: Final = len(AGES)
_FIRST_STEP: Final = OPENING[0]
_OPENING_BITS: Final = len(OPENING) * (_USER_HOSTS + 1)
_EVENTS_BITS: Final = _NUM_DEFENDED * MOST_EVENTS
_ALL_EVENTS: Final = (1 << MOST_EVENTS) - 1
_ALL_DECOYS: Final = (1 << _NUM_DECOYS) - 1

_DEFENDED: Final = np.array([HOST_INDEX[host] for host in DEFENDED], np.uint8)
_PLACE: Final = np.array([[*_DEFENDED, h].index(h) for h in range(tables.NUM_HOSTS)], np.uint8)
"""uint8 [13]: a host's place in DEFENDED; 8 for the other hosts."""
_DECOYS: Final = [(HOST_INDEX[host], HOST_ACTIONS.index(kind) - tables.FIRST_DECOY) for host, kind in DECOYS]
_DECOYS_OF_HOST: Final = np.array(
    [sum(1 << i for i, (where, _) in enumerate(_DECOYS) if where == host) for host in range(tables.NUM_HOSTS)],
    np.uint32,
)
"""uint32 [13]: the set of a host's decoys."""
DECOY_OF_ACTION: Final = np.zeros(NUM_ACTIONS, np.uint32)
"""uint32 [145]: the set that holds the decoy which an action places; empty for most actions."""
for _action in range(action_index("DecoyApache", HOSTS[0]), action_index("Restore", HOSTS[0])):
    _host, _kind = int(tables.ACTION_HOST[_action]), tables.ACTION_KIND[_action] - tables.FIRST_DECOY
    if tables.DECOY_HOSTS[_kind] >> _host & 1:
        for _i, (_where, _decoy) in enumerate(_DECOYS):
            if _where == _host and tables.DECOY_OPENS[_decoy] == tables.DECOY_OPENS[_kind]:
                DECOY_OF_ACTION[_action] = 1 << _i
_NUMBER_OF_KIND: Final = np.array(
    [{tables.ANALYSE: 0, tables.REMOVE: 1, tables.RESTORE: 3}.get(kind, 2) for kind in range(tables.NOTHING)], np.uint8
)
"""uint8 [11]: the number in ACTION_KINDS of each kind of action on a host."""
_LATEST: Final = TIMES[-1]
_TIME_OF: Final = np.array([sum(step >= time for time in TIMES) - 1 for step in range(_LATEST + 1)], np.uint8)
"""uint8 [steps + 1]: the interval of TIMES of each number of steps."""
_AGE_OF: Final = np.array([sum(age >= each for each in AGES) - 1 for age in range(OLD)], np.uint8)
"""uint8 [OLD]: the interval of AGES of each age."""


@compiled_helper
def clear(memory: Any) -> None:
    """Begin an episode."""
    memory.steps = 0
    memory.seen = 0
    memory.scanned = 0
    memory.to_place = _ALL_DECOYS
    memory.first_scan = 0
    memory.last_scan = 0
    memory.opening = 0
    memory.events = 0
    memory.restored = 0
    for i in range(_NUM_DEFENDED):
        memory.last_event[i] = 0
    for i in range(EVENTS_KEPT):
        memory.recent_hosts[i] = 0
        memory.recent_exploits[i] = 0
    for i in range(ACTIONS_KEPT):
        memory.recent_actions[i] = 0


@compiled_helper
def update(memory: Any, table: Any, action: Any) -> None:
    """Take in a step: blue's ``action`` among the 145, and the 52 bits of the ``table`` after it."""
    memory.steps += 1
    for i in range(ACTIONS_KEPT - 1, 0, -1):
        memory.recent_actions[i] = memory.recent_actions[i - 1]
    memory.recent_actions[0] = action
    # A decoy fails if its port is taken. The same decoy stands then, so that the set does not change.
    memory.to_place &= ~DECOY_OF_ACTION[action]
    if tables.ACTION_KIND[action] == tables.RESTORE:
        host = tables.ACTION_HOST[action]
        memory.to_place |= _DECOYS_OF_HOST[host]
        place = np.int64(_PLACE[host])
        if place < _NUM_DEFENDED:
            memory.restored |= 1 << place
            memory.events &= ~(_ALL_EVENTS << (MOST_EVENTS * place))
    for host in range(tables.NUM_HOSTS):
        if table[4 * host] != 0:
            _record_event(memory, host, table[4 * host + 1])


@compiled_helper
def _record_event(memory: Any, host: Any, exploit: Any) -> None:
    """Record an event on ``host``, after blue's action of the same step."""
    bit = 1 << host
    memory.seen |= bit
    if exploit == 0:
        own = _DECOYS_OF_HOST[host]
        standing = own & ~memory.to_place
        memory.last_scan = (memory.last_scan & ~own) | standing
        if (memory.scanned & bit) == 0:
            memory.scanned |= bit
            memory.first_scan |= standing
    for i in range(EVENTS_KEPT - 1, 0, -1):
        memory.recent_hosts[i] = memory.recent_hosts[i - 1]
        memory.recent_exploits[i] = memory.recent_exploits[i - 1]
    memory.recent_hosts[0] = host + 1
    memory.recent_exploits[0] = exploit
    step = np.int64(memory.steps) - _FIRST_STEP
    if 0 <= step < len(OPENING) and host >= tables.USER0:
        memory.opening |= ((1 << (host - tables.USER0)) | (exploit << _USER_HOSTS)) << (step * (_USER_HOSTS + 1))
    place = np.int64(_PLACE[host])
    if place < _NUM_DEFENDED:
        memory.last_event[place] = memory.steps
        shift = MOST_EVENTS * place
        before = (memory.events >> shift) & _ALL_EVENTS
        if before == 0:
            memory.events |= 1 << shift
        elif before <= _ALL_EVENTS >> 1:
            memory.events ^= (before | (before << 1)) << shift


@compiled_helper
def list_ones(memory: Any, table: Any, inputs: Any) -> Any:
    """List which bits of ``observation="memory"`` are 1. Return how many.

    Args:
        memory: A record of MEMORY.
        table: int8 [52].
        inputs: int64 [NUM_INPUTS or more], overwritten.

    """
    count = list_table_ones(table, inputs)
    inputs[count] = _TIME + _TIME_OF[min(memory.steps, _LATEST)]
    count += 1
    # Twice, three adjacent fields are listed as one set, because each set takes time of its own.
    decoys = np.uint64(memory.to_place) | (np.uint64(memory.first_scan) << np.uint64(_NUM_DECOYS))
    decoys |= np.uint64(memory.last_scan) << np.uint64(2 * _NUM_DECOYS)
    count = _list_set(decoys, _TO_PLACE, inputs, count)
    past = np.uint64(memory.opening) | (np.uint64(memory.events) << np.uint64(_OPENING_BITS))
    past |= np.uint64(memory.restored) << np.uint64(_OPENING_BITS + _EVENTS_BITS)
    count = _list_set(past, _OPENING, inputs, count)
    for i in range(_NUM_DEFENDED):
        last = np.int64(memory.last_event[i])
        age = memory.steps - last
        inputs[count] = _RECENT + i * _NUM_AGES + _AGE_OF[min(age, OLD - 1)]
        count += (last > 0) & (age < OLD)
    for i in range(EVENTS_KEPT):
        at = _LAST_EVENTS + i * (tables.NUM_HOSTS + 1)
        inputs[count] = at + memory.recent_hosts[i] - 1
        count += memory.recent_hosts[i] > 0
        inputs[count] = at + tables.NUM_HOSTS
        count += memory.recent_exploits[i]
    for i in range(ACTIONS_KEPT):
        action = memory.recent_actions[i]
        kind = tables.ACTION_KIND[action]
        if kind != tables.NOTHING:
            at = _LAST_ACTIONS + i * (_KINDS + _NUM_DEFENDED)
            inputs[count] = at + _NUMBER_OF_KIND[kind]
            count += 1
            place = _PLACE[tables.ACTION_HOST[action]]
            inputs[count] = at + _KINDS + place
            count += place < _NUM_DEFENDED
    return count


@compiled_helper
def list_table_ones(table: Any, inputs: Any) -> Any:
    """List which bits of ``table``, int8 [52], are 1. Return how many."""
    bits = np.uint64(0)
    for i in range(NUM_BITS):
        bits |= np.uint64(table[i]) << np.uint64(i)
    return _list_set(bits, 0, inputs, 0)


@compiled_helper
def _list_set(members: Any, start: Any, inputs: Any, count: Any) -> Any:
    """Append ``start`` plus each member of a set (uint64) to a list of ``count`` inputs. Return its new length."""
    while members != 0:
        inputs[count] = start + lowest_bit(members)
        count += 1
        members &= members - np.uint64(1)
    return count


@compiled_helper
def write_mask(memory: Any, table: Any, mask: Any) -> None:
    """Write which compact actions make sense now.

    These are Sleep; Analyse and Restore on a host that had an event in this episode; Remove where the table shows User
    or Privileged; each decoy that does not stand.

    Args:
        memory: A record of MEMORY.
        table: int8 [52].
        mask: int8 [42], overwritten: 1 or 0.

    """
    mask[0] = 1
    for i in range(_NUM_DEFENDED):
        host = np.int64(_DEFENDED[i])
        seen = (memory.seen >> host) & 1
        mask[1 + i] = seen
        mask[1 + _NUM_DEFENDED + i] = table[4 * host + 3]
        mask[1 + 2 * _NUM_DEFENDED + i] = seen
    for i in range(_NUM_DECOYS):
        mask[1 + 3 * _NUM_DEFENDED + i] = (memory.to_place >> i) & 1


@compiled
def update_all(
    memories: Any,
    tables: NDArray[np.int8],
    actions: NDArray[np.int64],
    observations: NDArray[np.int8],
    masks: NDArray[np.int8],
) -> None:
    """Take in one step of every environment, and write blue's observations and masks.

    Args:
        memories: Records of dtype MEMORY, shape [N].
        tables: int8 [N, 52].
        actions: int64 [N], among the 145, or BEGUN.
        observations: int8 [N, NUM_INPUTS], overwritten; [N, 0] if not wanted.
        masks: int8 [N, 42], overwritten; [N, 0] if not wanted.

    """
    inputs = np.empty(NUM_INPUTS, np.int64)
    for index in range(len(memories)):
        memory = memories[index]
        table = tables[index]
        if actions[index] == BEGUN:
            clear(memory)
        else:
            update(memory, table, actions[index])
        if observations.shape[1] > 0:
            observations[index] = 0
            for i in range(list_ones(memory, table, inputs)):
                observations[index, inputs[i]] = 1
        if masks.shape[1] > 0:
            write_mask(memory, table, masks[index])

"""Policies without learning, to compare trained ones with."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from aiotrain.cage2.scenario import HOST_INDEX, HOST_TYPE, HOSTS, action_index
from aiotrain.cage2.workflows import Order

GREEDY_ORDER: Final = "critical_first"
"""That the greedy heuristic follows where nobody names another."""


def greedy_actions(order: Order) -> NDArray[np.int64]:
    """The greedy heuristic of an order: restore a host of the first type that red holds, else sleep.

    It looks at the true state, ``info["red_hosts"]``, by which compliance is judged: every fix complies, so that its
    return is what following the order can earn by itself, without decoys and without having to find red first. Among
    the hosts of the type it takes the first. It restores and never removes, because a Remove does not free a host where
    red is privileged. User0, which blue can never free, it leaves alone.

    Returns an int64 array [8192], the action for every set of hosts in Scenario2; for one environment and for a batch
    alike, ``greedy_actions(order)[info["red_hosts"]]`` are the actions.
    """
    red_hosts = np.arange(1 << len(HOSTS))
    actions = np.full(len(red_hosts), action_index("Sleep"))
    freeable = [host for host in HOSTS if host != "User0"]
    for host in sorted(freeable, key=lambda host: order.index(HOST_TYPE[host]), reverse=True):
        actions[red_hosts >> HOST_INDEX[host] & 1 == 1] = action_index("Restore", host)
    return actions

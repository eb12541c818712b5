"""Compliance: how consistently blue's fixes follow a workflow, judged by the simulator's true state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from aiotrain.cage2.scenario import HOST_TYPES, host_type
from aiotrain.cage2.workflows import Order

FIX_ACTIONS: Final = ("Remove", "Restore")


class ComplianceMeter:
    """Counts the fixes of an episode, and those among them that comply with the order.

    A fix is a Remove or a Restore. It counts if, before it acts, red holds a host that blue can free. It complies if
    its target's type is the first type in the order of which red then holds such a host. Blue cannot free the host
    where red starts (User0 in Scenario2), because a Restore brings that foothold back.

    ``hosts`` are host names in the order of the bits of ``red_hosts``; ``action_names`` are those of ``Cage2Env``.
    Raises ValueError for a host that is of no type.
    """

    def __init__(self, hosts: Sequence[str], action_names: Sequence[str]) -> None:
        masks = dict.fromkeys(HOST_TYPES, 0)
        for index, host in enumerate(hosts):
            masks[host_type(host)] |= 1 << index
        self._masks = masks
        self._targets = []
        """For each action, the set of all hosts of its target's type; 0 if it is no fix."""
        for name in action_names:
            action, _, host = name.partition(" ")
            self._targets.append(masks[host_type(host)] if action in FIX_ACTIONS else 0)
        self.reset(HOST_TYPES, 0)

    def reset(self, order: Order, red_hosts: int) -> None:
        """Begin an episode with this ``order``, in which red holds ``red_hosts`` at first."""
        self._urgent_first = [self._masks[kind] for kind in order]
        self._freeable = ~red_hosts
        self.fixes = 0
        self.compliant_fixes = 0
        self.compliance = math.nan
        """Share of the counted fixes that complied, 0 to 1; NaN before the first."""

    def judge(self, action: int, red_hosts: int) -> float:
        """Count an action taken while red holds ``red_hosts``. Return the change of compliance.

        Before the first fix, compliance counts as 0 here, so that an episode's changes add up to its compliance.
        """
        target = self._targets[action]
        taken = red_hosts & self._freeable
        if not (target and taken):
            return 0.0
        before = self.compliance if self.fixes else 0.0
        self.fixes += 1
        for hosts in self._urgent_first:
            if hosts & taken:
                self.compliant_fixes += hosts == target
                break
        self.compliance = self.compliant_fixes / self.fixes
        return self.compliance - before

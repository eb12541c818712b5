"""Whether blue's fix actions follow a workflow, judged by the simulator's true state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from aiotrain.cage2.scenario import HOST_TYPES
from aiotrain.cage2.workflows import Order

FIX_ACTIONS: Final = ("Remove", "Restore")


class ComplianceMeter:
    """Counts the fix actions of an episode, and those whose target is of the type that was to be fixed.

    A fix (Remove or Restore) counts if, before it acts, red holds a host that blue can free; it complies if its target
    is of the first type in the order of which red then holds such a host. Blue can free every host but those where
    red's foothold stands from the start (User0 in Scenario2), because a Restore brings that back.

    ``hosts``: host names in the order of the bits of ``red_hosts``. ``action_names``: as of ``Cage2Env``.
    Raises ValueError for a host that is of no type.
    """

    def __init__(self, hosts: Sequence[str], action_names: Sequence[str]) -> None:
        masks = dict.fromkeys(HOST_TYPES, 0)
        type_of = {}
        for index, host in enumerate(hosts):
            kind = next((kind for kind in HOST_TYPES if host.lower().startswith(kind)), None)
            if kind is None:
                raise ValueError(
                    f"a workflow orders the host types {', '.join(HOST_TYPES)}, but the scenario's host {host!r} is of"
                    " none of them; a host is of the type that its name begins with"
                )
            masks[kind] |= 1 << index
            type_of[host] = kind
        self._masks = masks
        self._targets = []
        """For each action the set of all hosts of its target's type; 0 if it fixes nothing."""
        for name in action_names:
            action, _, host = name.partition(" ")
            self._targets.append(masks[type_of[host]] if action in FIX_ACTIONS else 0)

    def reset(self, order: Order, red_hosts: int) -> None:
        """Begin an episode under ``order``, in which red holds ``red_hosts`` at first."""
        self._urgent_first = [self._masks[kind] for kind in order]
        self._freeable = ~red_hosts
        self.fixes = 0
        self.compliant_fixes = 0
        self.compliance = math.nan
        """Share of the counted fixes that complied, 0 to 1; NaN while there is none."""

    def judge(self, action: int, red_hosts: int) -> float:
        """Count an action that is taken while red holds ``red_hosts``; returns the change of compliance.

        The change is from 0 where there was no compliance yet, so that the changes of an episode add up to its
        compliance.
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

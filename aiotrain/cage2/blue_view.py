"""What blue sees and may do, as the settings ``observation`` and ``actions`` of CAGE Challenge 2 choose it.

``observation="table"`` shows the 52 bits of csle-cyborg's table, which forget the activity of all steps but the last.
``observation="memory"`` shows them and what an attentive player would remember besides: `FIELDS`. ``actions="full"``
gives the 145 actions of csle-cyborg's wrapper. ``actions="compact"`` gives the 42 of `COMPACT_ACTIONS`, and says in
``info["action_mask"]`` which of them make sense now. Everything comes from what blue sees and does, nothing from the
true state.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aiotrain.cage2.scenario import HOSTS, NUM_ACTIONS, NUM_BITS, SUBNETS, action_index
from aiotrain.errors import unknown_name

OBSERVATIONS: Final = ("table", "memory")
ACTIONS: Final = ("full", "compact")

DEFENDED: Final = ("Enterprise0", "Enterprise1", "Enterprise2", "Op_Server0", "User1", "User2", "User3", "User4")
"""Hosts worth defending, 8. No exploit takes Defender, User0 stays red's, and Op_Host0 to 2 cost .1 if ever reached."""

DECOYS: Final = (
    *(("Enterprise0", kind) for kind in ("DecoyApache", "DecoyHarakaSMPT", "DecoyTomcat")),
    ("Enterprise1", "DecoyFemitter"),
    ("Enterprise2", "DecoyFemitter"),
    *(("Op_Server0", kind) for kind in ("DecoyApache", "DecoyHarakaSMPT", "DecoyTomcat")),
    *(("User1", kind) for kind in ("DecoyApache", "DecoySmss", "DecoySvchost", "DecoyTomcat")),
    *(("User2", kind) for kind in ("DecoyApache", "DecoyFemitter", "DecoySSHD", "DecoyTomcat")),
    ("User3", "DecoySSHD"),
)
"""(host, kind) of the decoys that can stand on defended hosts, 17. DecoyVsftpd, which opens the port of DecoyApache,
is left out."""

COMPACT_ACTIONS: Final = (
    action_index("Sleep"),
    *(action_index(kind, host) for kind in ("Analyse", "Remove", "Restore") for host in DEFENDED),
    *(action_index(kind, host) for host, kind in DECOYS),
)
"""What each of the 42 actions is among the 145: Sleep; Analyse, Remove, Restore on each defended host; each decoy."""

TIMES: Final = (0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80, 90, 95)
"""Steps played with which an interval begins: short ones in the opening and at the end of 100 steps."""

AGES: Final = (0, 2, 3, 4, 6)
"""Steps since an event with which an interval begins (the table shows an age of 0 by itself), up to OLD."""
OLD: Final = 10
"""Red comes back to a host that it means to take sooner than that."""

EVENTS_KEPT: Final = 4
OPENING: Final = (2, 3, 4)
"""Steps whose events tell the red agents and B_line's target: both sweep in step 1, then only User hosts are known."""
ACTIONS_KEPT: Final = 3
ACTION_KINDS: Final = ("Analyse", "Remove", "a decoy", "Restore")
MOST_EVENTS: Final = 3


class Field(NamedTuple):
    """Neighbouring bits of an observation."""

    name: str
    size: int
    meaning: str


FIELDS: Final = (
    Field("table", NUM_BITS, "the observation of csle-cyborg's wrapper"),
    Field("time", len(TIMES), f"one-hot: the steps played, in intervals from {', '.join(map(str, TIMES))}"),
    Field("decoys to place", len(DECOYS), "each decoy of `DECOYS` does not stand: not placed since the host's Restore"),
    Field("first scan", len(DECOYS), "each decoy stood when its host first showed a scan"),
    Field("last scan", len(DECOYS), "each decoy stood when its host last showed a scan"),
    Field(
        "opening",
        len(OPENING) * (len(SUBNETS["User"]) + 1),
        f"for each of the steps {', '.join(map(str, OPENING))}: User0 to User4 had an event; one was an exploit",
    ),
    Field(
        "events",
        len(DEFENDED) * MOST_EVENTS,
        f"for each defended host, one-hot: its events since its last Restore, 1 to {MOST_EVENTS} or more",
    ),
    Field("restored", len(DEFENDED), "each defended host was restored in this episode"),
    Field(
        "recent",
        len(DEFENDED) * len(AGES),
        f"for each defended host, one-hot: the age of its last event, in intervals from {', '.join(map(str, AGES))}; "
        f"none from {OLD} on",
    ),
    Field(
        "last events",
        EVENTS_KEPT * (len(HOSTS) + 1),
        f"for each of the last {EVENTS_KEPT} events, newest first: its host (one-hot); it was an exploit",
    ),
    Field(
        "last actions",
        ACTIONS_KEPT * (len(ACTION_KINDS) + len(DEFENDED)),
        f"for each of blue's last {ACTIONS_KEPT} actions, newest first: {', '.join(ACTION_KINDS)} (one-hot; none for "
        "Sleep and Monitor); the defended host acted on (one-hot)",
    ),
)
"""``observation="memory"``, in the order of its bits. An event is a host's activity in one step, a scan or an exploit;
of several in one step the later host counts as the newer. A port is what a decoy is known by: DecoyVsftpd counts as the
DecoyApache of its host. Hosts are in the order of ``HOSTS``, defended ones in that of `DEFENDED`."""

NUM_INPUTS: Final = sum(field.size for field in FIELDS)

BEGUN: Final = -1
"""In place of an action, where an episode has begun."""


def inputs_of(observation: str) -> int:
    """Bits of an observation, without those of an order. Raises ValueError unless it is one of `OBSERVATIONS`."""
    if observation not in OBSERVATIONS:
        raise ValueError(unknown_name("observation", observation, OBSERVATIONS))
    return NUM_INPUTS if observation == "memory" else NUM_BITS


def actions_of(actions: str) -> NDArray[np.int64]:
    """What each action is among the 145, int64 [actions]. Raises ValueError unless these are of `ACTIONS`."""
    if actions not in ACTIONS:
        raise ValueError(unknown_name("set of actions", actions, ACTIONS))
    return np.array(COMPACT_ACTIONS if actions == "compact" else range(NUM_ACTIONS), np.int64)


class View:
    """What blue sees and may do in ``num_envs`` environments.

    ``observation`` is one of `OBSERVATIONS`, ``actions`` of `ACTIONS`. Raises ValueError for anything else.
    """

    def __init__(self, observation: str, actions: str, num_envs: int = 1) -> None:
        self.num_inputs = inputs_of(observation)
        """Bits of an observation, without those of an order."""
        self.menu = actions_of(actions)
        """int64 [actions]: what each action is among the 145."""
        self.is_plain = (observation, actions) == ("table", "full")
        """Whether this is what the simulator itself shows and offers, so that nothing is to be remembered."""
        if self.is_plain:
            return
        from aiotrain.cage2.blue_memory import MEMORY  # imports Numba, which csle-cyborg does without

        self._memories = np.zeros(num_envs, MEMORY)
        self._observations = np.zeros((num_envs, NUM_INPUTS if observation == "memory" else 0), np.int8)
        self._masks = np.zeros((num_envs, len(self.menu) if actions == "compact" else 0), np.int8)

    def after(self, tables: NDArray[np.int8], actions: ArrayLike) -> tuple[NDArray[np.int8], dict[str, Any]]:
        """Take notice of a step in every environment.

        Args:
            tables: int8 [num_envs, 52], C-contiguous, the tables after it.
            actions: int64 [num_envs], blue's among the 145, or BEGUN.

        Returns:
            What blue sees, int8 [num_envs, inputs], and for compact actions an info with ``action_mask``, int8
            [num_envs, 42]: 1 where the action may be chosen.

        """
        if self.is_plain:
            return tables, {}
        from aiotrain.cage2.blue_memory import watch

        watch(self._memories, tables, np.asarray(actions, np.int64), self._observations, self._masks)
        seen = self._observations.copy() if self._observations.size else tables
        return seen, {"action_mask": self._masks.copy()} if self._masks.size else {}

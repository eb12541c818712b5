"""What blue sees and which actions it has, depending on the settings ``observation`` and ``actions``.

``observation="table"`` shows the 52 bits of csle-cyborg's table, which tell the activity of the last step only.
``observation="memory"`` adds what an attentive player remembers of earlier steps: `FIELDS` lists all bits.
``actions="full"`` offers the 145 actions of csle-cyborg's wrapper. ``actions="compact"`` offers the 42 of
`COMPACT_ACTIONS`; ``info["action_mask"]`` then tells which of them make sense now. All of this is computed from what
blue sees and does, not from the true state.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from aiotrain.cage2.scenario import HOSTS, NUM_ACTIONS, NUM_BITS, SUBNETS, action_index
from aiotrain.errors import unknown_name

Observation = Literal["table", "memory"]
OBSERVATIONS: Final[tuple[Observation, ...]] = get_args(Observation)
Actions = Literal["full", "compact"]
ACTIONS: Final[tuple[Actions, ...]] = get_args(Actions)

DEFENDED: Final = ("Enterprise0", "Enterprise1", "Enterprise2", "Op_Server0", "User1", "User2", "User3", "User4")
"""The 8 hosts worth defending. No exploit takes Defender, User0 stays red's, and Op_Host0 to 2 cost 0.1 each."""

DECOYS: Final = (
    *(("Enterprise0", kind) for kind in ("DecoyApache", "DecoyHarakaSMPT", "DecoyTomcat")),
    ("Enterprise1", "DecoyFemitter"),
    ("Enterprise2", "DecoyFemitter"),
    *(("Op_Server0", kind) for kind in ("DecoyApache", "DecoyHarakaSMPT", "DecoyTomcat")),
    *(("User1", kind) for kind in ("DecoyApache", "DecoySmss", "DecoySvchost", "DecoyTomcat")),
    *(("User2", kind) for kind in ("DecoyApache", "DecoyFemitter", "DecoySSHD", "DecoyTomcat")),
    ("User3", "DecoySSHD"),
)
"""The 17 decoys, (host, kind), that can stand on defended hosts. DecoyVsftpd is left out: it opens the same port as
DecoyApache."""

COMPACT_ACTIONS: Final = (
    action_index("Sleep"),
    *(action_index(kind, host) for kind in ("Analyse", "Remove", "Restore") for host in DEFENDED),
    *(action_index(kind, host) for host, kind in DECOYS),
)
"""The index among the 145 of each compact action: Sleep; Analyse, Remove, Restore on each defended host; decoys."""

TIMES: Final = (0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80, 90, 95)
"""First step of each interval of time. Intervals are short in the opening and at the end of 100 steps."""

AGES: Final = (0, 2, 3, 4, 6)
"""First age of each interval of ages, in steps since an event. Ages end at OLD; the table itself shows an age of 0."""
OLD: Final = 10
"""Age from which an event no longer counts: red returns sooner to a host that it wants to take."""

EVENTS_KEPT: Final = 4
OPENING: Final = (2, 3, 4)
"""Steps whose events reveal which red agent plays, and B_line's target. Both agents sweep in step 1 and then know the
User hosts only."""
ACTIONS_KEPT: Final = 3
ACTION_KINDS: Final = ("Analyse", "Remove", "a decoy", "Restore")
MOST_EVENTS: Final = 3


class Field(NamedTuple):
    """A group of adjacent bits of an observation."""

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
"""All bits of ``observation="memory"``, in their order. An event is a host's activity in one step: scan or exploit.
Of several events in one step, that of the later host counts as the newest. Decoys are identified by the port that they
open: DecoyVsftpd counts as the DecoyApache of its host. Hosts have the order of ``HOSTS``, defended hosts that of
`DEFENDED`."""

NUM_INPUTS: Final = sum(field.size for field in FIELDS)

BEGUN: Final = -1
"""Stands for blue's action where an episode has just begun."""


def inputs_of(observation: str) -> int:
    """Return the bits of an observation, without those of an order. Raises ValueError for an unknown one."""
    if observation not in OBSERVATIONS:
        raise ValueError(unknown_name("observation", observation, OBSERVATIONS))
    return NUM_INPUTS if observation == "memory" else NUM_BITS


def actions_of(actions: str) -> NDArray[np.int64]:
    """Return the index of each action among the 145, int64 [actions]. Raises ValueError for an unknown set."""
    if actions not in ACTIONS:
        raise ValueError(unknown_name("set of actions", actions, ACTIONS))
    return np.array(COMPACT_ACTIONS if actions == "compact" else range(NUM_ACTIONS), np.int64)

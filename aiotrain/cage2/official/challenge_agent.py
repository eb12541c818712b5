"""An agent for CAGE Challenge 2 that aiotrain trained, in a file of its own: it needs Python 3.7 and NumPy 1.17, or
later ones, alone.

    from agent import Agent

    agent = Agent(seed=0)  # with greedy=True it takes the most probable action instead of drawing one
    action = agent.get_action(observation, action_space)
    agent.end_episode()  # before the next one begins, or it remembers this one

It sees the 52 bits of ChallengeWrapper, remembers what they and its own actions told in this episode, and answers with
one of that wrapper's 145 actions. The challenge's evaluation script takes it as it is, instead of BlueLoadAgent.

ABOUT says what it was trained on. The weights are at the end of the file.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from aiotrain.cage2.blue_view import (
    ACTION_KINDS,
    ACTIONS_KEPT,
    AGES,
    COMPACT_ACTIONS,
    DECOYS,
    DEFENDED,
    EVENTS_KEPT,
    MOST_EVENTS,
    OLD,
    OPENING,
    TIMES,
)
from aiotrain.cage2.scenario import GLOBAL_ACTIONS, HOST_ACTIONS, HOSTS
from aiotrain.runs.export.agent_policy import GREEDY, Policy

# `agent_file` writes the run's values in place of these.
OBSERVATION: Final[str] = "memory"
ACTIONS: Final[str] = "compact"
DECOY_OF_ACTION: Final[dict[str, int]] = {}

# ---- copied ----

ACTION_NAMES = [*GLOBAL_ACTIONS, *(f"{kind} {host}" for kind in HOST_ACTIONS for host in HOSTS)]
USERS = [host for host in HOSTS if host.startswith("User")]


class Agent:
    """Plays by the trained policy. ``seed`` is that of its draws; None: another one each time."""

    def __init__(self, seed: int | None = None, greedy: bool = GREEDY) -> None:
        self._policy = Policy(seed, greedy)
        self._memory = Memory()
        self._action: int | None = None  # the last one

    def get_action(self, observation: Any, action_space: Any = None) -> int:
        """The number of the action, 0 to 144, for the 52 bits that followed the last one, or the reset.

        ``action_space`` is not looked at. Raises ValueError for an observation that is not of 52 bits.
        """
        table = np.asarray(observation)
        if table.shape != (4 * len(HOSTS),) or not np.isin(table, (0, 1)).all():
            raise ValueError(f"an observation must be the {4 * len(HOSTS)} bits of ChallengeWrapper, not {observation}")
        if self._action is not None:
            self._memory.notice(self._action, table)
        mask = self._memory.mask(table) if ACTIONS == "compact" else None
        action: int = self._policy.act(self._memory.bits(table) if OBSERVATION == "memory" else table, mask)
        self._action = COMPACT_ACTIONS[action] if ACTIONS == "compact" else action
        return self._action

    def end_episode(self) -> None:
        """Forget the episode."""
        self._memory = Memory()
        self._action = None


class Memory:
    """What is remembered of an episode. An event is a host's activity in a step, a scan or an exploit."""

    def __init__(self) -> None:
        self.step = 0
        self.seen: set[str] = set()  # hosts that had an event, and that showed a scan
        self.scanned: set[str] = set()
        self.standing = np.zeros(len(DECOYS), bool)  # decoys now, and when their host first and last showed a scan
        self.first_scan = np.zeros(len(DECOYS), bool)
        self.last_scan = np.zeros(len(DECOYS), bool)
        self.opening = np.zeros((len(OPENING), len(USERS) + 1), bool)
        self.events = dict.fromkeys(DEFENDED, 0)  # since the last Restore
        self.restored = dict.fromkeys(DEFENDED, False)
        self.last_event = dict.fromkeys(DEFENDED, -OLD)  # the step
        self.recent_events: list[tuple[str, bool]] = []  # (host, whether it was an exploit), newest first
        self.recent_actions: list[tuple[str, str]] = []  # (kind, host), newest first

    def notice(self, action: int, table: Any) -> None:
        """Take notice of a step: blue's ``action`` among the 145, and the 52 bits after it."""
        self.step += 1
        kind, _, host = ACTION_NAMES[action].partition(" ")
        self.recent_actions = [(kind, host), *self.recent_actions][:ACTIONS_KEPT]
        if ACTION_NAMES[action] in DECOY_OF_ACTION:  # if it fails because its port is taken, it stands already
            self.standing[DECOY_OF_ACTION[ACTION_NAMES[action]]] = True
        if kind == "Restore":
            self.standing &= ~decoys_of(host)
            if host in DEFENDED:
                self.restored[host] = True
                self.events[host] = 0
        for number, host in enumerate(HOSTS):
            if table[4 * number]:
                self._notice_event(host, bool(table[4 * number + 1]))

    def _notice_event(self, host: str, exploited: bool) -> None:
        self.seen.add(host)
        if not exploited:
            own = decoys_of(host)
            self.last_scan[own] = self.standing[own]
            if host not in self.scanned:
                self.first_scan[own] = self.standing[own]
            self.scanned.add(host)
        self.recent_events = [(host, exploited), *self.recent_events][:EVENTS_KEPT]
        if self.step in OPENING and host in USERS:
            shown = self.opening[OPENING.index(self.step)]
            shown[USERS.index(host)] = True
            shown[-1] |= exploited
        if host in DEFENDED:
            self.events[host] = min(self.events[host] + 1, MOST_EVENTS)
            self.last_event[host] = self.step

    def bits(self, table: Any) -> Any:
        """What the policy sees, float32: the ``table`` of 52 bits, and what is remembered."""
        fields: list[Any] = [table, [interval(self.step, TIMES) == i for i in range(len(TIMES))]]
        fields += [~self.standing, self.first_scan, self.last_scan, self.opening.ravel()]
        fields += [[self.events[host] == count + 1 for count in range(MOST_EVENTS)] for host in DEFENDED]
        fields += [list(self.restored.values())]
        for host in DEFENDED:
            age = self.step - self.last_event[host]
            fields += [[age < OLD and interval(age, AGES) == i for i in range(len(AGES))]]
        for i in range(EVENTS_KEPT):
            host, exploited = self.recent_events[i] if i < len(self.recent_events) else ("", False)
            fields += [[host == each for each in HOSTS], [exploited]]
        for i in range(ACTIONS_KEPT):
            kind, host = self.recent_actions[i] if i < len(self.recent_actions) else ("", "")
            kind = "a decoy" if kind.startswith("Decoy") else kind
            fields += [[kind == each for each in ACTION_KINDS], [host == each for each in DEFENDED]]
        return np.concatenate(fields).astype(np.float32)

    def mask(self, table: Any) -> Any:
        """Which of the compact actions make sense now: Sleep; Analyse, Remove, Restore on each host; each decoy."""
        seen = [host in self.seen for host in DEFENDED]
        held = [table[4 * HOSTS.index(host) + 3] == 1 for host in DEFENDED]  # User or Privileged is displayed
        return np.array([True, *seen, *held, *seen, *~self.standing])


def decoys_of(host: str) -> Any:
    """Which of the decoys are the host's, bool [decoys]."""
    return np.array([where == host for where, _ in DECOYS])


def interval(number: int, begins: tuple[int, ...]) -> int:
    """In which of the intervals that begin so a number is."""
    return sum(number >= begin for begin in begins) - 1

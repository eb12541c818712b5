"""The memory of an attentive player, worked out anew from the whole episode at each step: slow, and easy to check.

Written from docs/cage2_inputs.md, without a look at how the tracker keeps its memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from aiotrain.cage2.blue_view import COMPACT_ACTIONS, DECOYS, DEFENDED
from aiotrain.cage2.scenario import HOSTS, action_name

TIMES = [0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80, 90, 95]
USERS = ["User0", "User1", "User2", "User3", "User4"]
KINDS = ["Analyse", "Remove", "Decoy", "Restore"]


class AttentivePlayer:
    """Keeps all tables and actions of an episode."""

    def __init__(self, table: Sequence[int]) -> None:
        self.tables = [list(table)]
        self.actions: list[tuple[str, str]] = [("", "")]  # (kind, host), of each step
        self.events: dict[str, list[int]] = {host: [] for host in HOSTS}  # steps in which a host had one

    def notice(self, action: int, table: Sequence[int]) -> None:
        """A step: blue's action among the 145, and the table after it."""
        kind, _, host = action_name(action).partition(" ")
        self.actions.append((kind, host))
        self.tables.append(list(table))
        for host in HOSTS:
            if self.event(self.now, host):
                self.events[host].append(self.now)

    @property
    def now(self) -> int:
        return len(self.tables) - 1

    def event(self, step: int, host: str) -> str:
        scanned, exploited = self.tables[step][4 * HOSTS.index(host) :][:2]
        return "exploit" if exploited else "scan" if scanned else ""

    def last_restore(self, host: str, until: int) -> int:
        """0 if it was never restored."""
        return max((step for step in range(until + 1) if self.actions[step] == ("Restore", host)), default=0)

    def stands(self, host: str, kind: str, at: int) -> bool:
        """Whether a decoy of the kind was placed since the last Restore, or on Linux a DecoyVsftpd for DecoyApache."""
        linux = host in ("Enterprise0", "Op_Server0")
        kinds = [kind, "DecoyVsftpd"] if linux and kind == "DecoyApache" else [kind]
        since = range(self.last_restore(host, at) + 1, at + 1)
        return any(self.actions[step] == (each, host) for step in since for each in kinds)

    def stood_at(self, which: int) -> list[bool]:
        """For each decoy whether it stood at the first (0) or last (-1) scan of its host."""
        stood = []
        for host, kind in DECOYS:
            scans = [step for step in self.events[host] if self.event(step, host) == "scan"]
            stood.append(bool(scans) and self.stands(host, kind, scans[which]))
        return stood

    def bits(self) -> list[int]:
        """The observation "memory"."""
        now = self.now
        interval = max(i for i, time in enumerate(TIMES) if now >= time)
        bits = [*self.tables[-1], *(i == interval for i in range(len(TIMES)))]
        bits += [not self.stands(host, kind, now) for host, kind in DECOYS]
        bits += self.stood_at(0) + self.stood_at(-1)
        for step in (2, 3, 4):
            shown = [self.event(step, host) if step <= now else "" for host in USERS]
            bits += [*map(bool, shown), "exploit" in shown]
        for host in DEFENDED:
            count = sum(step >= max(self.last_restore(host, now), 1) for step in self.events[host])
            bits += [count == 1, count == 2, count >= 3]
        bits += [self.last_restore(host, now) > 0 for host in DEFENDED]
        for host in DEFENDED:
            age = now - self.events[host][-1] if self.events[host] else 99
            bits += [age in (0, 1), age == 2, age == 3, age in (4, 5), age in (6, 7, 8, 9)]
        happened = sorted(((step, HOSTS.index(host)) for host in HOSTS for step in self.events[host]), reverse=True)
        for i in range(4):
            step, which = happened[i] if i < len(happened) else (0, -1)
            bits += [*(host == which for host in range(13)), which >= 0 and self.event(step, HOSTS[which]) == "exploit"]
        for i in range(3):
            kind, acted_on = self.actions[now - i] if i < now else ("", "")
            bits += [*(kind.startswith(each) for each in KINDS), *(host == acted_on for host in DEFENDED)]
        return [int(bit) for bit in bits]

    def mask(self) -> list[int]:
        """Which of the compact actions make sense."""
        allowed = []
        for action in COMPACT_ACTIONS:
            kind, _, host = action_name(action).partition(" ")
            if kind in ("Analyse", "Restore"):
                allowed.append(bool(self.events[host]))
            elif kind == "Remove":
                allowed.append(tuple(self.tables[-1][4 * HOSTS.index(host) + 2 :][:2]) in ((0, 1), (1, 1)))
            elif kind.startswith("Decoy"):
                allowed.append(not self.stands(host, kind, self.now))
            else:
                allowed.append(kind == "Sleep")
        return [int(each) for each in allowed]

"""A shared-memory collector that plays launches from another host.

Knows nothing of how they come. The episodes of a launch are played by all workers of the host, so launches are large,
and what becomes of one is told when each of its episodes has ended or is lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from aiotrain.collect.protocol import CollectorSettings, CollectorStatus, Launch, Outcome
from aiotrain.collect.shared_memory_collector import SharedMemoryCollector
from aiotrain.play.env_factory import EnvFactory
from aiotrain.play.player import LostEpisode
from aiotrain.play.policy import PolicyShape
from aiotrain.transport.trajectories import Trajectories

__all__ = ["Node", "NodeOutcome", "NodeReport"]


class NodeReport(NamedTuple):
    """A node at one moment."""

    status: CollectorStatus
    warnings: tuple[str, ...]
    """Warnings since the last report."""


class NodeOutcome(NamedTuple):
    """What became of a launch. Each of its episodes is in exactly one of the first two."""

    trajectories: Trajectories | None
    """Whole episodes, in as many fragments as each took."""
    lost: tuple[LostEpisode, ...]
    report: NodeReport


class _Share:
    """A launch, and the part of it that is done."""

    def __init__(self, episodes: tuple[int, ...]) -> None:
        self.out = set(episodes)
        self.parts: list[Trajectories] = []
        self.lost: list[LostEpisode] = []
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def trajectories(self) -> Trajectories | None:
        """Return the trajectories of the episodes that came to their end."""
        lost = [each.episode for each in self.lost]
        parts = [part.select(~np.isin(part.headers["episode"], lost)) for part in self.parts] if lost else self.parts
        parts = [part for part in parts if len(part.headers)]
        return Trajectories.join(parts) if parts else None


class Node:
    """Plays launches with the newest weights that came with one. To be used in one event loop."""

    def __init__(self, factory: EnvFactory, settings: CollectorSettings) -> None:
        self._warnings: list[str] = []
        self._collector = SharedMemoryCollector(factory, settings, self._warnings.append)
        self._version = -1
        self._waiting: deque[tuple[int, Mapping[str, Any]]] = deque()  # episodes, with options
        self._shares: dict[int, _Share] = {}  # by episode that is out
        self._gathering: set[asyncio.Task[None]] = set()  # one, once it is open

    async def open(self, policy: PolicyShape, slot_steps: int) -> NodeReport:
        """Make the environment and start the workers. Raises EnvError, SharedMemoryError."""
        await self._collector.start()
        await self._collector.open(policy, slot_steps)
        self._gathering.add(asyncio.create_task(self._gather()))
        return self.report()

    async def play(self, parameters: npt.NDArray[np.float32], version: int, launch: Launch) -> NodeOutcome:
        """Play each episode of ``launch`` to its end. Raises WorkerError, InvalidStepError."""
        if version > self._version:  # launches may overtake each other
            self._collector.publish(parameters, version)
            self._version = version
        share = _Share(launch.episodes)
        self._shares |= dict.fromkeys(launch.episodes, share)
        self._waiting.extend(zip(launch.episodes, launch.options or ({},) * len(launch.episodes), strict=True))
        self._submit()
        done, _ = await asyncio.wait([share.over, *self._gathering], return_when=asyncio.FIRST_COMPLETED)
        if share.over not in done:
            for ended in done:
                ended.result()  # raises what has ended the gathering
        return NodeOutcome(share.trajectories(), tuple(share.lost), self.report())

    async def _gather(self) -> None:
        while True:
            for outcome in await self._collector.outcomes():
                self._take(outcome)
            self._submit()

    def _submit(self) -> None:
        self._collector.submit_unfinished()
        while room := self._collector.room(len(self._waiting)):
            episodes, options = zip(*(self._waiting.popleft() for _ in range(room)), strict=True)
            self._collector.submit(Launch(0, episodes, options if any(options) else ()))

    def _take(self, outcome: Outcome) -> None:
        """Hand what a worker played to the launches that it belongs to; what was not begun waits again."""
        given = dict(zip(outcome.launch.episodes, outcome.launch.options, strict=False))
        self._waiting.extendleft((episode, given.get(episode, {})) for episode in reversed(outcome.unused))
        over: list[int] = []
        if outcome.trajectories is not None:
            headers = outcome.trajectories.headers
            owners = [self._shares[episode] for episode in headers["episode"].tolist()]
            for share in dict.fromkeys(owners):
                own = np.array([owner is share for owner in owners])
                share.parts.append(outcome.trajectories.select(own))
            over += headers["episode"][headers["ended"]].tolist()
        for lost in outcome.lost:
            self._shares[lost.episode].lost.append(lost)
            over.append(lost.episode)
        for episode in over:
            share = self._shares.pop(episode)
            share.out.discard(episode)
            if not share.out:
                share.over.set_result(None)

    def report(self) -> NodeReport:
        """Return the node's status and its new warnings."""
        warnings = tuple(self._warnings)
        self._warnings.clear()
        return NodeReport(self._collector.describe(), warnings)

    async def close(self) -> NodeReport:
        """End the workers, and remove what they shared."""
        for gathering in self._gathering:
            gathering.cancel()
            await asyncio.wait([gathering])
        await self._collector.close()
        return self.report()

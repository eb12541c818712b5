"""Collecting without learning: what a collector delivers if it is always asked for more."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import NamedTuple

from aiotrain.collect.choose_collector import make_collector
from aiotrain.collect.protocol import Collector, WorkerState
from aiotrain.config import Config
from aiotrain.play.policy import PolicyShape
from aiotrain.training.batcher import Batcher
from aiotrain.transport.trajectories import Trajectories
from bench.tools.ceiling import initial_policy
from bench.tools.processes import Cores

__all__ = ["Collection"]

_WARM_UP_S = 1.0


class _Delivery(NamedTuple):
    """All that was delivered up to a moment."""

    at_s: float
    cpu_s: float
    steps: int
    episodes: int
    tasks: int
    nbytes: int


class Collection:
    """A collector without a learner: whole batches are discarded. `open` it first, and `close` it."""

    def __init__(self, config: Config, collector: Collector | None = None) -> None:
        self._config = config
        self._nbytes = self._tasks = 0
        self._collector = collector or make_collector(config, config.seed, config.env_factory(), print)

    async def open(self) -> None:
        """Start the workers, and wait until they wait."""
        spec = await self._collector.start()
        slot_steps = self._config.slot_steps or spec.slot_steps
        self.policy = PolicyShape.of(spec, self._config.ppo.hidden_sizes)
        await self._collector.open(self.policy, slot_steps)
        self._collector.publish(initial_policy(spec, self._config.ppo.hidden_sizes).parameters, 0)
        self._batcher = Batcher(
            episodes_per_update=self._config.episodes_per_update,
            steps_per_update=self._config.steps_per_update,
            max_policy_lag=10,
            total_episodes=10**12,
            total_steps=None,
            slot_steps=slot_steps,
        )
        while not all(worker.state is WorkerState.WAITING for worker in self._collector.describe().workers):
            await asyncio.sleep(0.05)

    async def measure(self, seconds: float) -> dict[str, float]:
        """Measure what is delivered in so many seconds, from one delivery to another, after a warm-up.

        Returns:
            ``steps_per_s``, ``episodes_per_s``, ``episodes`` (their number), ``episodes_per_task``,
            ``trajectory_bytes`` (of all), ``main_cpu_ms_per_episode`` (of this process), and ``cores``, the cores that
            other programs left free.
        """
        # With many workers to a core, it takes a while until each has played its first.
        await self._play_until(time.perf_counter() + max(min(_WARM_UP_S, seconds), 0.04 * self._config.workers))
        first, cores = self._last, Cores()
        await self._play_until(first.at_s + seconds)
        last, left = self._last, cores.left()
        while self._batcher.counts.in_flight:
            await self._take()
        episodes, elapsed = last.episodes - first.episodes, last.at_s - first.at_s
        return {
            "steps_per_s": (last.steps - first.steps) / elapsed,
            "episodes_per_s": episodes / elapsed,
            "episodes": episodes,
            "episodes_per_task": episodes / max(last.tasks - first.tasks, 1),
            "trajectory_bytes": last.nbytes - first.nbytes,
            "main_cpu_ms_per_episode": 1e3 * (last.cpu_s - first.cpu_s) / max(episodes, 1),
            "cores": left,
        }

    async def close(self) -> None:
        """End the workers."""
        await self._collector.close()

    async def _play_until(self, end: float) -> None:
        """Play until then, and until something was delivered."""
        delivered = False
        while time.perf_counter() < end or not delivered:
            while room := self._collector.room(self._batcher.wanted()):
                self._collector.submit(self._batcher.next_launch(room))
            delivered |= await self._take()

    async def _take(self) -> bool:
        """Wait for outcomes; tell whether there were trajectories among them."""
        if self._config.steps_per_update is None:
            self._collector.submit_unfinished()
        delivered = False
        for outcome in await self._collector.outcomes():
            self._tasks += 1
            self._batcher.add(outcome)
            if outcome.trajectories is not None:
                delivered = True
                arrays = (getattr(outcome.trajectories, field.name) for field in dataclasses.fields(Trajectories))
                self._nbytes += sum(array.nbytes for array in arrays)
        while self._batcher.pop_batch() is not None:
            self._batcher.learned()
        if delivered:
            counts = self._batcher.counts
            self._last = _Delivery(
                time.perf_counter(), time.process_time(), counts.steps, counts.finished, self._tasks, self._nbytes
            )
        return delivered

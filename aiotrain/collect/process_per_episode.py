"""A process for each task: it is started, makes its environments, plays, and ends. At most ``workers`` at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import BrokenExecutor

from aiotrain import worker as task
from aiotrain.collect import CollectorSettings, Launch
from aiotrain.collect.processes import WorkerExecutor, cause_of_end, end
from aiotrain.collect.startup import run_first
from aiotrain.collect.tasks import TaskCollector
from aiotrain.errors import WorkerError
from aiotrain.factory import EnvFactory

__all__ = ["ProcessPerEpisodeCollector"]


class ProcessPerEpisodeCollector(TaskCollector):
    """Plays each episode, or ``envs_per_worker`` of them in a batch, in a process of its own."""

    def __init__(self, factory: EnvFactory, settings: CollectorSettings, warn: Callable[[str], None]) -> None:
        super().__init__(factory, settings, warn)
        self._executors: set[WorkerExecutor] = set()

    async def _play(self, worker: int, launch: Launch) -> task.Played:
        executor = WorkerExecutor()
        self._executors.add(executor)
        within_s = self._settings.start_timeout_s + self._settings.episode_timeout_s
        try:
            return await run_first(
                executor,
                within_s,
                task.play_whole,
                self._posting,
                self._factory,
                *self._policy,
                launch.episodes,
                launch.options,
            )
        except BrokenExecutor as error:
            raise WorkerError(f"its process was lost: {cause_of_end(error, executor)}") from None
        except TimeoutError:
            raise WorkerError(f"hung for {within_s:g} s and was killed") from None
        finally:
            await asyncio.shield(asyncio.to_thread(end, [executor]))
            self._executors.discard(executor)

    async def _end(self) -> None:
        await asyncio.to_thread(end, list(self._executors))

    def _kill(self) -> None:
        for executor in self._executors:
            executor.kill()

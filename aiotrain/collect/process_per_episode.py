"""A process for each task: it is started, makes its environments, plays, and ends. At most ``workers`` at a time."""

from __future__ import annotations

import asyncio
import dataclasses
from concurrent.futures import BrokenExecutor

from aiotrain.collect import worker as task
from aiotrain.collect.first_task import run_first
from aiotrain.collect.processes import WorkerExecutor, cause_of_end
from aiotrain.collect.protocol import Launch
from aiotrain.collect.task_collector import TaskCollector
from aiotrain.errors import WorkerError
from aiotrain.play.local_player import Played

__all__ = ["ProcessPerEpisodeCollector"]


class ProcessPerEpisodeCollector(TaskCollector):
    """Plays each episode, or ``envs_per_worker`` of them in a batch, in a process of its own."""

    async def _play(self, worker: int, launch: Launch) -> Played:
        executor = self._add(WorkerExecutor())
        assignment = dataclasses.replace(self._assignment, worker=worker)
        within_s = self._settings.start_timeout_s + self._settings.episode_timeout_s
        try:
            return await run_first(
                executor,
                within_s,
                task.play_whole,
                assignment,
                self._factory,
                *self._policy,
                launch.episodes,
                launch.options,
            )
        except (BrokenExecutor, OSError, EOFError) as error:  # TimeoutError is an OSError
            self._workers[worker].restarts += 1
            hung = f"hung for {within_s:g} s (--start-timeout-s + --episode-timeout-s) and was killed"
            cause = hung if isinstance(error, TimeoutError) else cause_of_end(error, executor)
            raise WorkerError(f"worker {worker} was lost: {cause}", worker=worker) from None
        finally:
            await asyncio.shield(self._end_executor(executor))

"""A process for each task: it is started, makes its environments, plays, and ends. At most ``workers`` at a time."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from concurrent.futures import BrokenExecutor

from aiotrain.collect.protocol import Launch
from aiotrain.collect.task_collector import WholeEpisodeCollector
from aiotrain.collect.worker import play_whole
from aiotrain.collect.worker_executor import WorkerExecutor, cause_of_end
from aiotrain.collect.worker_startup import answer_of, start
from aiotrain.errors import WorkerError
from aiotrain.play.private_ring_player import Played

__all__ = ["ProcessPerEpisodeCollector"]


class ProcessPerEpisodeCollector(WholeEpisodeCollector):
    """Plays each episode, or ``envs_per_worker`` of them in a batch, in a process of its own."""

    async def _play(self, worker: int, launch: Launch) -> Played:
        executor, clock, task = self._add(WorkerExecutor()), self._clock, next(self._numbers)
        assignment = dataclasses.replace(self._assignment, worker=worker)
        what = (clock, task, assignment, self._factory, *self._policy, launch.episodes, launch.options)
        sent_s = time.monotonic()
        try:
            answer = await start(executor, self._settings.start_timeout_s, play_whole, *what)
            return await answer_of(
                asyncio.wrap_future(answer), lambda: clock.fault(worker, task, sent_s), self._settings.look_every_s
            )
        except (BrokenExecutor, OSError, EOFError) as error:  # TimeoutError is an OSError
            self._workers[worker].restarts += 1
            cause = str(error) if isinstance(error, TimeoutError) else cause_of_end(error, executor)
            raise WorkerError(f"worker {worker} was lost: {cause}", worker=worker) from None
        finally:
            await asyncio.shield(self._end_executor(executor))

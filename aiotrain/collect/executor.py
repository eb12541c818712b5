"""One ProcessPoolExecutor: weights are pickled into each task, episodes are pickled back.

All workers share one queue for tasks and one for results. A worker that dies breaks the pool, which is made anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from typing import Any

from aiotrain import worker as task
from aiotrain.collect import CollectorSettings, Launch
from aiotrain.collect.processes import WorkerExecutor, cause_of_end, end
from aiotrain.collect.tasks import TaskCollector
from aiotrain.errors import WorkerError
from aiotrain.factory import EnvFactory

__all__ = ["ExecutorCollector"]


class ExecutorCollector(TaskCollector):
    """Plays whole episodes in a pool of processes, which keep their environments unless they are to rebuild them."""

    queued = 2  # so that none waits for the event loop between two of them
    _task: Callable[..., Any] = staticmethod(task.play_whole)

    def __init__(
        self,
        factory: EnvFactory,
        settings: CollectorSettings,
        warn: Callable[[str], None],
        *,
        rebuild_env: bool = False,
    ) -> None:
        super().__init__(factory, settings, warn)
        self._rebuild_env = rebuild_env
        self._pool: WorkerExecutor | None = None
        self._dying: set[asyncio.Task[None]] = set()  # pools that are broken

    async def _play(self, worker: int, launch: Launch) -> task.Played:
        pool = self._pool = self._pool or WorkerExecutor(self._settings.workers)
        try:
            future = pool.start(
                self._task,
                self._posting,
                self._factory,
                *self._policy,
                launch.episodes,
                launch.options,
                self._rebuild_env,
            )
            # The task before may take as long, and before the first, environments are made.
            async with asyncio.timeout(2 * self._settings.episode_timeout_s + self._settings.start_timeout_s):
                return await asyncio.wrap_future(future)
        except BrokenExecutor as error:
            self._replace(pool)
            raise WorkerError(f"a worker of the pool was lost: {cause_of_end(error, pool)}") from None
        except TimeoutError:
            pool.kill()
            self._replace(pool)
            raise WorkerError(f"hung for {self._settings.episode_timeout_s:g} s and was killed") from None

    def _replace(self, broken: WorkerExecutor) -> None:
        """Have the next task make another pool."""
        if self._pool is broken:
            self._pool = None
            dying = asyncio.create_task(asyncio.to_thread(end, [broken]))
            self._dying.add(dying)
            dying.add_done_callback(self._dying.discard)

    async def _end(self) -> None:
        pool, self._pool = self._pool, None
        await asyncio.gather(asyncio.to_thread(end, [pool] if pool else []), *self._dying)

    def _kill(self) -> None:
        if self._pool is not None:
            self._pool.kill()

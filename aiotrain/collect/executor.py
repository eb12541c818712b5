"""One ProcessPoolExecutor: weights are pickled into each task, episodes are pickled back.

All workers share one queue for tasks and one for results. So a worker that dies breaks the pool, which is made anew:
the task that it was at is lost, the tasks of the others are broken off, and go back to be played again.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from typing import Any

from aiotrain.collect import worker as task
from aiotrain.collect.first_task import answer_of
from aiotrain.collect.processes import WorkerExecutor, cause_of_end, cause_of_exit
from aiotrain.collect.protocol import CollectorSettings, Launch
from aiotrain.collect.task_collector import TaskCollector
from aiotrain.errors import WorkerError
from aiotrain.play.factory import EnvFactory
from aiotrain.play.local_player import Played

__all__ = ["ExecutorCollector"]

_BREAKS_IN_A_ROW = 5  # of the pool, without a task that is to blame or one that comes back, after which the run fails


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
        self._pool: _Pool | None = None
        self._numbers = itertools.count()
        self._breaks = 0

    async def _play(self, worker: int, launch: Launch) -> Played:
        if self._pool is None:
            self._pool = _Pool(self._settings.workers)
            self._add(self._pool)
        pool, number = self._pool, next(self._numbers)
        # The task before may take as long, and before the first, environments are made.
        within_s = 2 * self._settings.episode_timeout_s + self._settings.start_timeout_s
        try:
            pool.listen()
            pool.unanswered.add(number)
            future = pool.start(
                task.play_in_pool,
                number,
                self._task,
                self._assignment,
                self._factory,
                *self._policy,
                launch.episodes,
                launch.options,
                self._rebuild_env,
            )
            async with asyncio.timeout(within_s):
                played: Played = await answer_of(future)
        except TimeoutError:
            if self._pool is pool:
                cause = f"hung for {within_s:g} s (twice --episode-timeout-s, and --start-timeout-s) and was killed"
                pool.blame_dead()
                if not pool.guilty:  # else all wait for a lock that went with it
                    pool.blame_hung(number, cause)
                self._replace(pool, cause)
        except (BrokenExecutor, OSError, EOFError) as error:
            if self._pool is pool:
                pool.blame_dead()
                self._replace(pool, cause_of_end(error, pool))
        except asyncio.CancelledError:  # tasks that wait when their pool is ended have it too
            if self._closing or self._pool is pool:
                raise
        else:
            self._breaks = 0
            return played
        finally:
            pool.unanswered.discard(number)
        if number in pool.guilty:
            raise pool.guilty[number]
        return Played(None, launch.episodes, ())

    async def _end(self) -> None:
        self._pool = None

    def _replace(self, broken: _Pool, cause: str) -> None:
        """Have the next task make another pool."""
        self._pool = None
        broken.kill()
        self._end_executor(broken)
        for worker in self._workers:
            worker.restarts += 1
        if not broken.guilty:
            self._warn(f"the pool of processes is made anew: {cause}")
            self._breaks += 1
            if self._breaks == _BREAKS_IN_A_ROW:
                self._fail(WorkerError(f"the pool of processes broke {self._breaks} times in a row: {cause}"))


class _Pool(WorkerExecutor):
    """A pool whose processes tell which task they begin, so that it can be known which one a lost process was at."""

    def __init__(self, processes: int) -> None:
        self._begun, telling = multiprocessing.Pipe(duplex=False)
        super().__init__(processes, (telling,))
        self._at: dict[int, int] = {}  # for each worker, the task that it began last
        self.unanswered: set[int] = set()
        """Tasks that have not come back."""
        self.guilty: dict[int, WorkerError] = {}
        """Tasks that broke the pool, and how."""

    def listen(self) -> None:
        """Take in which tasks were begun."""
        while self._begun.poll():
            worker, number = self._begun.recv()
            self._at[worker] = number

    def blame_hung(self, number: int, cause: str) -> None:
        """Task ``number`` has hung, if it was begun."""
        self.listen()
        for worker, begun in self._at.items():
            if begun == number:
                self.guilty[number] = WorkerError(f"worker {worker} {cause}", worker=worker)

    def blame_dead(self) -> None:
        """The tasks at which processes have ended broke the pool, but where the pool ended them."""
        self.listen()
        for worker, process in enumerate(self.context.made):
            number = self._at.get(worker, -1)
            if number in self.unanswered and process.exitcode not in (None, -signal.SIGTERM):
                cause = f"worker {worker} was lost: {cause_of_exit(process.exitcode)}"
                self.guilty[number] = WorkerError(cause, worker=worker)

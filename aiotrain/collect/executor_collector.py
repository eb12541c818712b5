"""One ProcessPoolExecutor: weights are pickled into each task, episodes are pickled back.

All workers share one queue for tasks and one for results. So a worker that dies breaks the pool, which is made anew:
the task that it was at is lost, the tasks of the others are broken off, and go back to be played again.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from typing import Any

from aiotrain.collect.protocol import CollectorSettings, Launch
from aiotrain.collect.task_clock import TaskClock
from aiotrain.collect.task_collector import WholeEpisodeCollector
from aiotrain.collect.worker import play_in_pool, play_whole
from aiotrain.collect.worker_executor import WorkerExecutor, cause_of_end, cause_of_exit
from aiotrain.collect.worker_startup import answer_of
from aiotrain.errors import WorkerError
from aiotrain.play.env_factory import EnvFactory
from aiotrain.play.policy import PolicyShape
from aiotrain.play.private_ring_player import Played

__all__ = ["ExecutorCollector"]

_BREAKS_IN_A_ROW = 5  # of the pool, without a task that is to blame or one that comes back, after which the run fails


class ExecutorCollector(WholeEpisodeCollector):
    """Plays whole episodes in a pool of processes, which keep their environments unless they are to rebuild them."""

    queued = 2  # so that none waits for the event loop between two of them
    _pool: _Pool
    _task: Callable[..., Any] = staticmethod(play_whole)

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
        self._breaks = 0

    async def open(self, policy: PolicyShape, slot_steps: int) -> None:
        await super().open(policy, slot_steps)
        self._pool = self._add(_Pool(self._settings, self._clock))

    async def _play(self, worker: int, launch: Launch) -> Played:
        pool, task = self._pool, next(self._numbers)
        what = (self._assignment, self._factory, *self._policy, launch.episodes, launch.options, self._rebuild_env)
        try:
            answer = asyncio.wrap_future(pool.play(task, self._task, what))
            played: Played = await answer_of(answer, lambda: pool.fault(task), self._settings.look_every_s)
        except TimeoutError as error:
            if self._pool is pool:
                pool.blame_dead()
                if not pool.guilty:  # else all wait for a lock that went with it
                    pool.blame(task, str(error))
                self._replace(pool, str(error))
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
            pool.unanswered.discard(task)
        if task in pool.guilty:
            raise pool.guilty[task]
        return Played(None, launch.episodes, ())

    def _replace(self, broken: _Pool, cause: str) -> None:
        """Have the next task start another pool."""
        broken.kill()
        self._end_executor(broken)
        self._pool = self._add(_Pool(self._settings, self._clock))
        for worker in self._workers:
            worker.restarts += 1
        if not broken.guilty:
            self._warn(f"the pool of processes is made anew: {cause}")
            self._breaks += 1
            if self._breaks == _BREAKS_IN_A_ROW:
                self._fail(WorkerError(f"the pool of processes broke {self._breaks} times in a row: {cause}"))


class _Pool(WorkerExecutor):
    """A pool of which it is known, by the clock, at which task a lost process was."""

    def __init__(self, settings: CollectorSettings, clock: TaskClock) -> None:
        super().__init__(settings.workers)
        self._settings, self._clock = settings, clock
        self._all_busy_s = 0.0  # when a process was last not to be expected to take a task
        self.unanswered: set[int] = set()
        """Tasks that have not come back."""
        self.guilty: dict[int, WorkerError] = {}
        """Tasks that broke the pool, and how."""

    def play(self, task: int, play: Callable[..., Any], what: tuple[Any, ...]) -> Future[Any]:
        """Have one of the processes call ``play``. Raises BrokenExecutor, EOFError, OSError."""
        self.unanswered.add(task)
        self._all_busy_s = time.monotonic()
        return self.start(play_in_pool, play, self._clock, task, *what)

    def fault(self, task: int) -> str:
        """Return why the task takes too long; empty if it does not."""
        for worker in self._clock.workers_at(task):
            return self._clock.fault(worker, task, self._all_busy_s)
        busy = sum(self._clock.task_of(worker) in self.unanswered for worker in range(len(self.context.made)))
        if busy == len(self.context.made):  # it waits for them
            self._all_busy_s = time.monotonic()
        is_late = time.monotonic() - self._all_busy_s > self._settings.start_timeout_s
        return self._settings.not_ready if is_late else ""

    def blame(self, task: int, cause: str) -> None:
        """Task ``task`` broke the pool, if a process has taken it."""
        for worker in self._clock.workers_at(task):
            self.guilty[task] = WorkerError(f"worker {worker} {cause}", worker=worker)

    def blame_dead(self) -> None:
        """Blame the tasks at which processes have ended, but where the pool ended them."""
        for worker, process in enumerate(self.context.made):
            task = self._clock.task_of(worker)
            if task in self.unanswered and process.exitcode not in (None, -signal.SIGTERM):
                self.blame(task, f"was lost: {cause_of_exit(process.exitcode)}")

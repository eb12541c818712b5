"""What collectors have in common that play each launch in a task of the event loop, without a ring."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aiotrain.collect.base_collector import BaseCollector
from aiotrain.collect.protocol import CollectorSettings, CollectorStatus, Launch, Outcome, WorkerState, WorkerStatus
from aiotrain.collect.task_clock import TaskClock
from aiotrain.collect.worker_executor import WorkerExecutor, end
from aiotrain.collect.worker_startup import inspect
from aiotrain.errors import AiotrainError, ConfigError, InvalidStepError
from aiotrain.play.env_factory import EnvFactory
from aiotrain.play.policy import PolicyShape
from aiotrain.play.private_ring_player import Played
from aiotrain.play.spaces import EnvSpec

__all__ = ["Policy", "TaskCollector", "TaskWorker", "WholeEpisodeCollector"]


class Policy(NamedTuple):
    """A version of the policy."""

    parameters: npt.NDArray[np.float32]
    version: int


@dataclass
class TaskWorker:
    """A worker, and what it has done."""

    ready: bool = True
    tasks: int = 0
    restarts: int = 0
    episodes: int = 0
    since_s: float = 0.0  # when it came to have tasks
    busy_s: float = 0.0  # before that


class TaskCollector(BaseCollector, abc.ABC):
    """Plays each launch in a task of its own, of which each worker has up to ``queued`` at a time.

    Weights go out and trajectories come back as values.
    """

    queued = 1

    def __init__(self, factory: EnvFactory, settings: CollectorSettings, warn: Callable[[str], None]) -> None:
        super().__init__(factory, settings, warn)
        self._workers = [TaskWorker() for _ in range(settings.workers)]
        self._task_size = settings.envs_per_worker
        self._tasks: set[asyncio.Task[Played | Outcome]] = set()
        self._unfinished: set[int] = set()  # episodes that outgrew the slots of their task
        self._ending: set[asyncio.Task[None]] = set()  # ends of executors
        self._opened = False

    # ---------------------------------------------------------- to be provided

    @abc.abstractmethod
    async def _play(self, worker: int, launch: Launch) -> Played | Outcome:
        """Play ``launch`` with ``self._policy``. What is no outcome yet is counted to the worker.

        Raises AiotrainError, with the reason, if it is lost, but InvalidStepError to end the run.
        """

    async def _inspect(self) -> EnvSpec:
        """Make an environment and return its spec. Raises EnvError."""
        executor = self._add(WorkerExecutor())
        try:
            return await inspect(executor, self._factory, self._settings.start_timeout_s)
        finally:
            await asyncio.shield(self._end_executor(executor))

    async def _end(self) -> None:
        """Close what the collector has beside executors. Tasks have ended or are cancelled."""

    def _kill(self) -> None:
        """Kill at once what the collector has beside executors."""

    # --------------------------------------------------------------- executors

    def _end_executor(self, executor: WorkerExecutor) -> asyncio.Task[None]:
        """End the processes of ``executor``; the task goes on if its caller is cancelled."""

        def ended(ending: asyncio.Task[None]) -> None:
            self._ending.discard(ending)
            self._executors.discard(executor)

        ending = asyncio.create_task(asyncio.to_thread(end, [executor]))
        self._ending.add(ending)
        ending.add_done_callback(ended)
        return ending

    # ------------------------------------------------------------- Collector

    async def start(self) -> EnvSpec:
        self._spec = await self._inspect()
        return self._spec

    async def open(self, policy: PolicyShape, slot_steps: int) -> None:
        self._assignment = self._make_assignment(policy, self._spec.ring_layout(self._task_size, slot_steps))
        self._opened = True
        self._news.set()

    def publish(self, parameters: npt.NDArray[np.float32], version: int) -> None:
        self._policy = Policy(parameters.copy(), version)

    def room(self, wanted: int) -> int:
        return min(wanted, self._task_size) if self._places and self._opened and not self._closing else 0

    @property
    def _places(self) -> int:
        """Tasks that could be submitted now."""
        return sum(self.queued - worker.tasks for worker in self._workers if worker.ready)

    def submit(self, launch: Launch) -> None:
        ready = (index for index, worker in enumerate(self._workers) if worker.ready)
        index = min(ready, key=lambda index: self._workers[index].tasks)
        worker = self._workers[index]
        if not worker.tasks:
            worker.since_s = time.monotonic()
        worker.tasks += 1
        work = asyncio.get_running_loop().create_task(self._play(index, launch))
        self._tasks.add(work)
        work.add_done_callback(self._settling(self._task_done, worker, launch))

    def submit_unfinished(self) -> None:
        if self._unfinished and not self._tasks and not self._closing:
            self.submit(Launch(-1, ()))

    def _task_done(self, worker: TaskWorker, launch: Launch, work: asyncio.Task[Played | Outcome]) -> None:
        self._tasks.discard(work)
        worker.tasks -= 1
        if not worker.tasks:
            worker.busy_s += time.monotonic() - worker.since_s
        self._news.set()
        if work.cancelled():
            return
        error = work.exception()  # looked at even while closing: asyncio reports those that nobody has seen
        if self._closing:
            return
        if error is None:
            result = work.result()
            self._outcomes.append(result if isinstance(result, Outcome) else self._accept(launch, result))
        elif isinstance(error, AiotrainError) and not isinstance(error, InvalidStepError):
            lost = self._lost(self._unfinished.union(launch.episodes), str(error), error.worker)
            self._unfinished.clear()
            self._warn("; ".join(each.reason for each in lost))
            self._outcomes.append(Outcome(launch, None, (), lost))
        else:
            self._fail(error)

    def _accept(self, launch: Launch, played: Played) -> Outcome:
        """Return the outcome of a task that came back."""
        if played.trajectories is not None:
            workers, episodes, ended = (played.trajectories.headers[name] for name in ("worker", "episode", "ended"))
            for worker in workers[ended].tolist():
                self._workers[worker].episodes += 1
            self._unfinished = self._unfinished.union(episodes.tolist()).difference(episodes[ended].tolist())
        for failure in played.failures:
            self._unfinished.discard(failure.episode)
        return self._outcome(launch, *played)

    def describe(self) -> CollectorStatus:
        now = time.monotonic()
        return CollectorStatus(
            workers=tuple(WorkerStatus(self._state(each), each.restarts, each.episodes) for each in self._workers),
            busy_s=sum(each.busy_s + (now - each.since_s if each.tasks else 0.0) for each in self._workers),
        )

    def _state(self, worker: TaskWorker) -> WorkerState:
        if self._closed:
            return WorkerState.ENDED
        if not (self._opened and worker.ready):
            return WorkerState.RESTARTING if worker.restarts else WorkerState.STARTING
        return WorkerState.PLAYING if worker.tasks else WorkerState.WAITING

    async def close(self) -> None:
        self._closing = True
        for work in self._tasks:
            work.cancel()
        if not self._closed:
            await self._end_background()
            await asyncio.gather(asyncio.to_thread(end, list(self._executors)), self._end(), *self._ending)
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*self._ending)
        self._executors.clear()
        self._segments.close()
        self._closed = True

    def abort(self) -> None:
        for work in self._tasks:
            work.cancel()
        self._kill()
        super().abort()


class WholeEpisodeCollector(TaskCollector):
    """Has other processes play each task's episodes to their end, and a clock say since when they are at it."""

    _clock: TaskClock

    def __init__(self, factory: EnvFactory, settings: CollectorSettings, warn: Callable[[str], None]) -> None:
        super().__init__(factory, settings, warn)
        self._numbers = itertools.count()  # of tasks

    async def open(self, policy: PolicyShape, slot_steps: int) -> None:
        """See Collector. Raises ConfigError for an environment whose episodes may never end."""
        if self._spec.max_episode_steps is None:
            raise ConfigError(
                f"{self._spec.name} tells no time limit, and this collector plays every episode to its end. "
                "Set --max-episode-steps, or choose --collector shared_memory"
            )
        self._clock = self._segments.enter_context(contextlib.closing(TaskClock.create(self._settings)))
        await super().open(policy, slot_steps)

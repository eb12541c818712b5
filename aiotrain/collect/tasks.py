"""What collectors without a ring in shared memory have in common: each launch is a task of the event loop."""

from __future__ import annotations

import abc
import asyncio
import functools
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aiotrain import worker as task
from aiotrain.collect import CollectorSettings, CollectorStatus, Launch, LostEpisode, Outcome
from aiotrain.collect.processes import WorkerExecutor, end, kill_forkserver
from aiotrain.collect.startup import inspect
from aiotrain.errors import AiotrainError, ConfigError, InvalidStepError
from aiotrain.factory import EnvFactory
from aiotrain.policy import PolicyShape
from aiotrain.ring import RingLayout
from aiotrain.spaces import EnvSpec
from aiotrain.status import WorkerState, WorkerStatus

__all__ = ["Policy", "TaskCollector"]


class Policy(NamedTuple):
    """A version of the policy."""

    parameters: npt.NDArray[np.float32]
    version: int


class _Worker:
    """A worker, and what it has done."""

    def __init__(self) -> None:
        self.tasks = 0
        self.restarts = 0
        self.episodes = 0
        self.unfinished: set[int] = set()  # episodes that outgrew the slots of their task


class TaskCollector(abc.ABC):
    """Plays each launch in a task of its own, of which each worker has up to ``queued`` at a time.

    Weights go out and trajectories come back as values. ``warn`` is told what went wrong and was mended.
    """

    queued = 1
    whole_episodes = True
    """Whether an episode ends within its task, so that it must end at all."""

    def __init__(self, factory: EnvFactory, settings: CollectorSettings, warn: Callable[[str], None]) -> None:
        self._factory, self._settings, self._warn = factory, settings, warn
        self._workers = [_Worker() for _ in range(settings.workers)]
        self._task_size = settings.envs_per_worker
        self._tasks: dict[asyncio.Task[task.Played], float] = {}  # and since when
        self._outcomes: list[Outcome] = []
        self._failure: Exception | None = None
        self._news = asyncio.Event()
        self._busy_s = 0.0
        self._closing = self._closed = False

    # ---------------------------------------------------------- to be provided

    @abc.abstractmethod
    async def _play(self, worker: int, launch: Launch) -> task.Played:
        """Play ``launch`` with ``self._policy``. Raises AiotrainError, with the reason, if it is lost."""

    @abc.abstractmethod
    async def _end(self) -> None:
        """End every process. Tasks have ended or are cancelled."""

    @abc.abstractmethod
    def _kill(self) -> None:
        """Kill every process at once."""

    async def _inspect(self) -> EnvSpec:
        """Make an environment, and tell what it is like. Raises EnvError."""
        executor = WorkerExecutor()
        try:
            return await inspect(executor, self._factory, self._settings.start_timeout_s)
        finally:
            await asyncio.shield(asyncio.to_thread(end, [executor]))

    # ------------------------------------------------------------- Collector

    async def start(self) -> EnvSpec:
        """See Collector."""
        self._spec = await self._inspect()
        return self._spec

    async def open(self, policy: PolicyShape, slot_steps: int) -> None:
        """See Collector. Raises ConfigError for an environment whose episodes may never end, if they must."""
        if self.whole_episodes and self._spec.max_episode_steps is None:
            raise ConfigError(
                f"{self._spec.name} tells no time limit, and this collector plays every episode to its end. "
                "Set --max-episode-steps, or choose --collector shared_memory"
            )
        self._posting = task.Posting(
            worker=0,
            envs=self._settings.envs_per_worker,
            run_seed=self._settings.run_seed,
            spec=self._spec,
            policy=policy,
            ring_layout=RingLayout.of(self._spec, self._task_size, slot_steps),
            alignment_lambda=self._settings.alignment_lambda,
        )
        self._news.set()

    def publish(self, parameters: npt.NDArray[np.float32], version: int) -> None:
        """See Collector."""
        self._policy = Policy(parameters.copy(), version)

    def room(self, wanted: int) -> int:
        """See Collector."""
        free = any(worker.tasks < self.queued for worker in self._workers)
        return min(wanted, self._task_size) if free and not self._closing else 0

    def submit(self, launch: Launch) -> None:
        """See Collector."""
        index = min(range(len(self._workers)), key=lambda index: self._workers[index].tasks)
        self._workers[index].tasks += 1
        work = asyncio.get_running_loop().create_task(self._play(index, launch))
        self._tasks[work] = time.monotonic()
        work.add_done_callback(functools.partial(self._task_done, self._workers[index], launch))

    def submit_unfinished(self) -> None:
        """See Collector."""
        if not self._tasks and any(worker.unfinished for worker in self._workers):
            self.submit(Launch(-1, ()))

    def _task_done(self, worker: _Worker, launch: Launch, work: asyncio.Task[task.Played]) -> None:
        self._busy_s += time.monotonic() - self._tasks.pop(work)
        worker.tasks -= 1
        self._news.set()
        if work.cancelled() or self._closing:
            return
        error = work.exception()
        if error is None:
            self._outcomes.append(self._accept(worker, launch, work.result()))
        elif isinstance(error, AiotrainError):
            worker.restarts += 1
            self._warn(f"worker {self._workers.index(worker)}: {error}")
            gone = worker.unfinished.union(launch.episodes)
            worker.unfinished.clear()
            lost = tuple(LostEpisode(episode, f"episode {episode}: {error}") for episode in sorted(gone))
            self._outcomes.append(Outcome(launch, None, (), lost))
        else:
            self._failure = self._failure or (error if isinstance(error, Exception) else RuntimeError(repr(error)))

    def _accept(self, worker: _Worker, launch: Launch, played: task.Played) -> Outcome:
        """The outcome of a task that came back."""
        if played.trajectories is not None:
            episodes, ended = (played.trajectories.headers[name] for name in ("episode", "ended"))
            worker.episodes += int(ended.sum())
            worker.unfinished = worker.unfinished.union(episodes.tolist()).difference(episodes[ended].tolist())
        for failure in played.failures:
            worker.unfinished.discard(failure.episode)
            if failure.invalid:
                self._failure = self._failure or InvalidStepError(failure.report)
            self._warn(failure.report)
        lost = tuple(LostEpisode(failure.episode, failure.report) for failure in played.failures)
        return Outcome(launch, played.trajectories, played.unused, lost)

    async def outcomes(self) -> Sequence[Outcome]:
        """See Collector."""
        await self._news.wait()
        self._news.clear()
        outcomes, self._outcomes = self._outcomes, []
        if self._failure is not None:
            raise self._failure
        return outcomes

    def describe(self) -> CollectorStatus:
        """See Collector."""
        now = time.monotonic()
        return CollectorStatus(
            workers=tuple(WorkerStatus(self._state(each), each.restarts, each.episodes) for each in self._workers),
            slots=0,
            slots_in_use=0,
            ring_bytes=0,
            busy_s=self._busy_s + sum(now - since for since in self._tasks.values()),
        )

    def _state(self, worker: _Worker) -> WorkerState:
        if self._closed:
            return WorkerState.ENDED
        return WorkerState.PLAYING if worker.tasks else WorkerState.WAITING

    async def close(self) -> None:
        """See Collector."""
        self._closing = True
        for work in self._tasks:
            work.cancel()
        if not self._closed:
            await self._end()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._closed = True

    def abort(self) -> None:
        """See Collector."""
        self._closing = True
        for work in self._tasks:
            work.cancel()
        self._kill()
        kill_forkserver()

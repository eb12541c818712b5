"""The default collector: persistent workers, episodes through the ring, weights through shared memory.

Each worker is a process with an executor of its own, so that its death costs one worker and what that one was playing.
The event loop lends slots to a task; the future that resolves hands them back, full or empty. Two tasks are queued on
each worker, so that none waits for the loop between two of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aiotrain.collect.base_collector import BaseCollector
from aiotrain.collect.protocol import CollectorSettings, CollectorStatus, Launch, Outcome, WorkerState, WorkerStatus
from aiotrain.collect.worker import join, play
from aiotrain.collect.worker_executor import WorkerExecutor, cause_of_end, end
from aiotrain.collect.worker_startup import inspect, run_first
from aiotrain.errors import AiotrainError, TrainerStateError, WorkerError
from aiotrain.play.env_factory import EnvFactory
from aiotrain.play.player import Assignment, PlayResult
from aiotrain.play.policy import PolicyShape
from aiotrain.play.spaces import EnvSpec
from aiotrain.transport.slot_ring import BROKEN_OFF, PLAYING, Ring
from aiotrain.transport.trajectories import Trajectories
from aiotrain.transport.weights import Weights

__all__ = ["SharedMemoryCollector"]

_QUEUED = 2  # tasks on a worker: one being played, one waiting
_TASK_CPU_S = 0.05  # what a task should cost: a hundred times what the main process spends on it
_LEAST_TASK_CPU_S = 0.005  # what it should cost even if some workers get nothing for it
_RING_BYTES = 2**24  # for the tasks of all workers together, unless the smallest possible ones need more
_LARGEST_TASK = 128  # trajectories
_STARTING_AT_ONCE = 4  # processes that are brought up at the same time
_DEATHS_IN_A_ROW = 5  # of every worker, without a trajectory between them, after which the run fails
_PAUSE_S = 0.05  # before a worker is brought up again; twice as long each time that it dies in a row …
_LONGEST_PAUSE_S = 5.0  # … up to this
_LOOK_S = 0.1  # between two looks at workers that have nothing to do


class _Worker:
    """A worker: its process, and what became of those that it had before."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.process: _Process | None = None  # none while one comes up
        self.restarts = 0
        self.deaths_in_a_row = 0
        self.last_death = ""
        self.episodes = 0
        self.busy_s = 0.0

    @property
    def state(self) -> WorkerState:
        if self.process is None:
            return WorkerState.RESTARTING if self.restarts else WorkerState.STARTING
        if self.process.hangs:
            return WorkerState.HUNG
        return WorkerState.PLAYING if self.process.tasks else WorkerState.WAITING


class _Process:
    """A worker's process that is ready to play, and the tasks that it was given."""

    def __init__(self, worker: _Worker, executor: WorkerExecutor, shared: _Shared) -> None:
        self.worker, self.executor, self.shared = worker, executor, shared
        self.hangs = False
        self.tasks: deque[_Task] = deque()
        self.unfinished: set[int] = set()  # episodes that wait in the process for further slots
        self.head_since_s = 0.0  # when the first of the tasks came to be the one being played

    def is_too_long_at_it(self, now: float, settings: CollectorSettings) -> bool:
        """Whether an episode, or what lies between two, takes longer than it may."""
        headers = self.shared.ring.headers[self.tasks[0].slots]
        playing = headers["began_s"][headers["state"] == PLAYING]
        if len(playing):
            return bool(now - playing.min() > settings.episode_timeout_s)
        # Between two, or before the first: the one before may have taken as long as is allowed.
        since = max(self.head_since_s, float(headers["began_s"].max()))
        return now - since > 2 * settings.episode_timeout_s


class _Task(NamedTuple):
    """A launch on its way, and the slots that it was lent."""

    launch: Launch
    slots: list[int]


class _Shared(NamedTuple):
    """What the processes of an open collector share."""

    ring: Ring
    weights: Weights
    assignment: Assignment
    """That of worker 0."""


class SharedMemoryCollector(BaseCollector):
    """Plays episodes in worker processes of several environments each."""

    def __init__(self, factory: EnvFactory, settings: CollectorSettings, warn: Callable[[str], None]) -> None:
        super().__init__(factory, settings, warn)
        self._workers = [_Worker(index) for index in range(settings.workers)]
        self._shared: _Shared | None = None  # while it is open
        self._dying: set[asyncio.Task[None]] = set()  # executors of workers that were lost
        self._starting = asyncio.Semaphore(_STARTING_AT_ONCE)
        self._task_limit = 1  # most trajectories in a task
        self._trajectory_cpu_s = 0.0  # running mean; 0 while unknown

    # ------------------------------------------------------------------ start

    async def start(self) -> EnvSpec:
        """See Collector. The environment is made in worker 0, which keeps it."""
        self._first = self._add(WorkerExecutor())
        self._spec = await inspect(self._first, self._factory, self._settings.start_timeout_s)
        return self._spec

    async def open(self, policy: PolicyShape, slot_steps: int) -> None:
        """See Collector. Workers come up in the background; playing begins when the first is there."""
        affordable = _RING_BYTES // (self._spec.ring_layout(1, slot_steps).nbytes * _QUEUED * len(self._workers))
        self._task_limit = max(self._settings.envs_per_worker, min(affordable, _LARGEST_TASK), 1)
        slots = len(self._workers) * (_QUEUED * self._task_limit + self._settings.envs_per_worker)
        ring = self._segments.enter_context(contextlib.closing(Ring.create(self._spec.ring_layout(slots, slot_steps))))
        weights = self._segments.enter_context(contextlib.closing(Weights.create(policy.size)))
        shared = self._shared = _Shared(ring, weights, self._make_assignment(policy, ring.layout))
        for worker in self._workers:
            self._spawn(self._bring_up(worker, shared, None if worker.index else self._first))
        self._spawn(self._watch_for_hung())
        self._spawn(self._watch_for_dead())

    async def _bring_up(self, worker: _Worker, shared: _Shared, executor: WorkerExecutor | None = None) -> None:
        """Start the worker's process and let it join, again and again until it does or the run fails.

        The first attempt is made with ``executor``, if there is one.
        """
        assignment = dataclasses.replace(shared.assignment, worker=worker.index)
        timeout_s = self._settings.start_timeout_s
        what = (assignment, self._factory, shared.ring.name, shared.weights.name, timeout_s)
        while worker.process is None and self._failure is None:
            if worker.deaths_in_a_row:
                doublings = min(worker.deaths_in_a_row - 1, 99)  # far more would be no float
                await asyncio.sleep(min(_PAUSE_S * 2.0**doublings, _LONGEST_PAUSE_S))
            try:
                async with self._starting:
                    executor = executor or self._add(WorkerExecutor())
                    await run_first(executor, timeout_s, join, *what)
            except (AiotrainError, BrokenProcessPool, OSError, EOFError) as error:  # TimeoutError is an OSError
                cause = cause_of_end(error, executor)
                if isinstance(error, TimeoutError):
                    cause = str(error) or self._settings.not_ready
                self._count_death(worker, executor, f"did not start: {cause}")
                executor = None
            else:
                worker.process = _Process(worker, executor, shared)
                self._news.set()

    # ---------------------------------------------------------------- playing

    @property
    def _ready(self) -> list[_Process]:
        """The processes that can be given tasks, in the order of workers."""
        return [worker.process for worker in self._workers if worker.process is not None]

    def publish(self, parameters: npt.NDArray[np.float32], version: int) -> None:
        if self._shared is None:
            raise TrainerStateError("weights are published to a collector that is not open")
        self._shared.weights.publish(parameters, version)

    def room(self, wanted: int) -> int:
        """See Collector. Tasks are large enough to be cheap and small enough that all workers get one."""
        places = sum(_QUEUED - len(process.tasks) for process in self._ready)
        if self._closing or not places or not wanted:
            return 0
        cheap, least = (
            math.ceil(cpu_s / self._trajectory_cpu_s) if self._trajectory_cpu_s else 1
            for cpu_s in (_TASK_CPU_S, _LEAST_TASK_CPU_S)
        )
        fair = math.ceil(wanted / places)
        return min(wanted, max(self._settings.envs_per_worker, least, min(cheap, fair)), self._task_limit)

    def submit(self, launch: Launch) -> None:
        process = min(self._ready, key=lambda process: len(process.tasks))
        self._send(process, launch, len(launch.episodes))

    def submit_unfinished(self) -> None:
        """See Collector. What a queued task will go on with anyway is left to it."""
        for process in self._ready:
            if process.unfinished and not process.tasks:
                self._send(process, Launch(-1, ()), len(process.unfinished))

    def _send(self, process: _Process, launch: Launch, count: int) -> None:
        sent = _Task(launch, process.shared.ring.lend(count))
        if not process.tasks:
            process.head_since_s = time.monotonic()
        process.tasks.append(sent)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[PlayResult]
        try:
            future = loop.run_in_executor(process.executor, play, sent.slots, launch.episodes, launch.options)
        except BrokenProcessPool as error:  # the worker died with nothing to do, so that no future told of it
            future = loop.create_future()
            future.set_exception(error)
        future.add_done_callback(self._settling(self._task_done, process, sent))

    def _task_done(self, process: _Process, sent: _Task, future: asyncio.Future[PlayResult]) -> None:
        """The commit: what the future's slots hold counts from here on."""
        if future.cancelled():
            return
        error = future.exception()  # looked at even while closing: asyncio reports those that nobody has seen
        if self._closing:
            return
        now = time.monotonic()
        process.worker.busy_s += now - process.head_since_s
        process.head_since_s = now
        process.tasks.remove(sent)
        if error is not None:
            self._outcomes.append(self._salvage(process, sent, error))
        else:
            self._outcomes.append(self._accept(process, sent, future.result()))
        process.shared.ring.take_back(sent.slots)
        self._news.set()

    def _accept(self, process: _Process, sent: _Task, result: PlayResult) -> Outcome:
        """Return the outcome of a task that came back."""
        trajectories = self._copy_out(process, sent)
        if trajectories is not None:
            cost = result.cpu_s / len(trajectories.headers)
            self._trajectory_cpu_s += (cost - self._trajectory_cpu_s) * (0.1 if self._trajectory_cpu_s else 1.0)
        for failure in result.failures:
            process.unfinished.discard(failure.episode)
        return self._outcome(sent.launch, trajectories, result.unused, result.failures, result.unnamed)

    def _copy_out(self, process: _Process, sent: _Task) -> Trajectories | None:
        ring = process.shared.ring
        sealed = ring.sealed(sent.slots)
        if not sealed:
            return None
        process.worker.deaths_in_a_row = 0
        trajectories = ring.copy_out(sealed)
        for ended, episode in zip(*(trajectories.headers[name].tolist() for name in ("ended", "episode")), strict=True):
            if ended:
                process.worker.episodes += 1
                process.unfinished.discard(episode)
            else:
                process.unfinished.add(episode)
        return trajectories

    # ------------------------------------------------------------ supervision

    def _salvage(self, process: _Process, sent: _Task, error: BaseException) -> Outcome:
        """Return the outcome of a task whose worker is lost: sealed slots count, what was being played is lost."""
        worker = process.worker
        trajectories = self._copy_out(process, sent)
        if worker.process is process:
            self._replace(process, error)
        headers = process.shared.ring.headers[sent.slots]
        begun_not_sealed = np.isin(headers["state"], (PLAYING, BROKEN_OFF))
        playing = set(headers["episode"][begun_not_sealed].tolist()) | process.unfinished
        process.unfinished.clear()
        begun = playing | (set() if trajectories is None else set(trajectories.headers["episode"].tolist()))
        unused = tuple(episode for episode in sent.launch.episodes if episode not in begun)
        lost = self._lost(playing, f"worker {worker.index} was lost: {worker.last_death}", worker.index)
        return Outcome(sent.launch, trajectories, unused, lost)

    def _replace(self, process: _Process, error: BaseException) -> None:
        """Give up the process, whatever is left of it, and bring up another."""
        worker = process.worker
        worker.process = None
        worker.restarts += 1
        cause = self._settings.hung if process.hangs else cause_of_end(error, process.executor)
        self._count_death(worker, process.executor, cause)
        if self._failure is None:
            self._spawn(self._bring_up(worker, process.shared))

    def _count_death(self, worker: _Worker, executor: WorkerExecutor | None, cause: str) -> None:
        """Note why the worker's process ended; the run fails when no worker can live."""
        worker.last_death = cause
        worker.deaths_in_a_row += 1
        self._warn(f"worker {worker.index}: {cause}")
        if executor is not None:  # else it could not even be made, for lack of file descriptors
            self._executors.discard(executor)
            executor.kill()
            dying = asyncio.create_task(asyncio.to_thread(executor.shutdown))  # its tasks fail, each with an outcome
            self._dying.add(dying)
            dying.add_done_callback(self._dying.discard)
        if all(each.deaths_in_a_row >= _DEATHS_IN_A_ROW for each in self._workers):
            self._fail(
                WorkerError(
                    f"none of the {len(self._workers)} workers can be kept alive: each died {_DEATHS_IN_A_ROW} times "
                    f"in a row without finishing an episode. The last death, of worker {worker.index}: {cause}",
                    worker=worker.index,
                )
            )

    async def _watch_for_dead(self) -> None:
        """Replace a process that has died with nothing to do, so that no future tells of it, before it is needed."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for process in self._ready:
                if not process.tasks and not process.unfinished and process.executor.is_broken:
                    self._replace(process, BrokenProcessPool())

    async def _watch_for_hung(self) -> None:
        """Kill a process that has been at one trajectory for longer than allowed; its future then fails."""
        while True:
            await asyncio.sleep(self._settings.look_every_s)
            now = time.monotonic()
            for process in self._ready:
                if process.tasks and process.is_too_long_at_it(now, self._settings):
                    process.hangs = True
                    process.executor.kill()

    def describe(self) -> CollectorStatus:
        now = time.monotonic()
        status = CollectorStatus(
            workers=tuple(
                WorkerStatus(WorkerState.ENDED if self._closed else w.state, w.restarts, w.episodes)
                for w in self._workers
            ),
            busy_s=sum(worker.busy_s for worker in self._workers)
            + sum(now - process.head_since_s for process in self._ready if process.tasks),
        )
        if self._shared is None:
            return status
        ring, layout = self._shared.ring, self._shared.ring.layout
        return status._replace(
            slots=layout.slots, slots_in_use=layout.slots - ring.free_slots, ring_bytes=layout.nbytes
        )

    # ------------------------------------------------------------------- end

    async def close(self) -> None:
        """See Collector. Asks the workers to end, then SIGTERM, then SIGKILL; then removes the segments."""
        self._closing = True
        await self._end_background()
        await asyncio.gather(asyncio.to_thread(end, list(self._executors)), *self._dying)
        self._executors.clear()
        for worker in self._workers:
            worker.process = None
        self._segments.close()
        self._shared = None
        self._closed = True

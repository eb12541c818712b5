"""The default collector: persistent workers, episodes through the ring, weights through shared memory.

Each worker is a process with an executor of its own, so that its death costs one worker and what that one was playing.
The event loop lends slots to a task; the future that resolves hands them back, full or empty. Two tasks are queued on
each worker, so that none waits for the loop between two of them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aiotrain.collect import worker as task
from aiotrain.collect.base import BaseCollector
from aiotrain.collect.first_task import inspect, run_first
from aiotrain.collect.processes import WorkerExecutor, cause_of_end, end, kill_forkserver
from aiotrain.collect.protocol import CollectorSettings, CollectorStatus, Launch, Outcome, WorkerState, WorkerStatus
from aiotrain.errors import AiotrainError, WorkerError
from aiotrain.play.factory import EnvFactory
from aiotrain.play.player import Assignment, PlayResult
from aiotrain.play.policy import PolicyShape
from aiotrain.play.spaces import EnvSpec
from aiotrain.transport.ring import BROKEN_OFF, PLAYING, Ring
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
_BACKGROUND_S = 2.0  # for the collector's own tasks to end once they are cancelled


class _Worker:
    """A worker process, its successors, and the tasks it was given."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.executor: WorkerExecutor | None = None
        self.ready = False
        self.hung = False
        self.tasks: deque[_Task] = deque()
        self.unfinished: set[int] = set()  # episodes that wait in the process for further slots
        self.restarts = 0
        self.deaths_in_a_row = 0
        self.last_death = ""
        self.episodes = 0
        self.head_since_s = 0.0  # when the first of the tasks came to be the one being played
        self.busy_s = 0.0

    @property
    def state(self) -> WorkerState:
        if self.hung:
            return WorkerState.HUNG
        if not self.ready:
            return WorkerState.RESTARTING if self.restarts else WorkerState.STARTING
        return WorkerState.PLAYING if self.tasks else WorkerState.WAITING


class _Task(NamedTuple):
    """A launch on its way, and the slots that it was lent."""

    launch: Launch
    slots: list[int]


class SharedMemoryCollector(BaseCollector):
    """Plays episodes in worker processes of several environments each."""

    def __init__(self, factory: EnvFactory, settings: CollectorSettings, warn: Callable[[str], None]) -> None:
        super().__init__(factory, settings, warn)
        self._workers = [_Worker(index) for index in range(settings.workers)]
        self._ring: Ring | None = None
        self._weights: Weights | None = None
        self._assignment: Assignment | None = None
        self._dying: set[asyncio.Task[None]] = set()  # executors of workers that were lost
        self._starting = asyncio.Semaphore(_STARTING_AT_ONCE)
        self._task_limit = 1  # most trajectories in a task
        self._trajectory_cpu_s = 0.0  # running mean; 0 while unknown

    # ------------------------------------------------------------------ start

    async def start(self) -> EnvSpec:
        """See Collector. The environment is made in worker 0, which keeps it."""
        first = self._workers[0]
        first.executor = WorkerExecutor()
        self._spec = await inspect(first.executor, self._factory, self._settings.start_timeout_s)
        return self._spec

    async def open(self, policy: PolicyShape, slot_steps: int) -> None:
        """See Collector. Workers come up in the background; playing begins when the first is there."""
        affordable = _RING_BYTES // (self._spec.ring_layout(1, slot_steps).nbytes * _QUEUED * len(self._workers))
        self._task_limit = max(self._settings.envs_per_worker, min(affordable, _LARGEST_TASK), 1)
        slots = len(self._workers) * (_QUEUED * self._task_limit + self._settings.envs_per_worker)
        self._ring = Ring.create(self._spec.ring_layout(slots, slot_steps))
        self._weights = Weights.create(policy.size)
        self._assignment = self._make_assignment(policy, self._ring.layout)
        for worker in self._workers:
            self._spawn(self._bring_up(worker))
        self._spawn(self._watch_for_hung())
        self._spawn(self._watch_for_dead())

    async def _bring_up(self, worker: _Worker) -> None:
        """Start the worker's process and let it join, again and again until it does or the run fails."""
        assert self._assignment is not None
        assert self._ring is not None
        assert self._weights is not None
        attach = self._ring.name, self._weights.name
        while not worker.ready:
            if worker.deaths_in_a_row:
                doublings = min(worker.deaths_in_a_row - 1, 99)  # far more would be no float
                await asyncio.sleep(min(_PAUSE_S * 2.0**doublings, _LONGEST_PAUSE_S))
            try:
                async with self._starting:
                    worker.executor = worker.executor or WorkerExecutor()
                    assignment = dataclasses.replace(self._assignment, worker=worker.index)
                    await run_first(
                        worker.executor, self._settings.start_timeout_s, task.join, assignment, self._factory, *attach
                    )
            except (AiotrainError, BrokenProcessPool, OSError, EOFError) as error:  # TimeoutError is an OSError
                cause = cause_of_end(error, worker.executor)
                if isinstance(error, TimeoutError):
                    cause = str(error) or self._too_slow
                self._count_death(worker, f"did not start: {cause}")
                if self._failure is not None:
                    return
            else:
                worker.ready = True
                self._news.set()

    # ---------------------------------------------------------------- playing

    def publish(self, parameters: npt.NDArray[np.float32], version: int) -> None:
        """See Collector."""
        assert self._weights is not None
        self._weights.publish(parameters, version)

    def room(self, wanted: int) -> int:
        """See Collector. Tasks are large enough to be cheap and small enough that all workers get one."""
        places = sum(_QUEUED - len(worker.tasks) for worker in self._workers if worker.ready)
        if self._closing or not places or not wanted:
            return 0
        cheap, least = (
            math.ceil(cpu_s / self._trajectory_cpu_s) if self._trajectory_cpu_s else 1
            for cpu_s in (_TASK_CPU_S, _LEAST_TASK_CPU_S)
        )
        fair = math.ceil(wanted / places)
        return min(wanted, max(self._settings.envs_per_worker, least, min(cheap, fair)), self._task_limit)

    def submit(self, launch: Launch) -> None:
        """See Collector."""
        ready = [worker for worker in self._workers if worker.ready]
        worker = min(ready, key=lambda worker: len(worker.tasks))
        self._send(worker, launch, len(launch.episodes))

    def submit_unfinished(self) -> None:
        """See Collector. What a queued task will go on with anyway is left to it."""
        for worker in self._workers:
            if worker.ready and worker.unfinished and not worker.tasks:
                self._send(worker, Launch(-1, ()), len(worker.unfinished))

    def _send(self, worker: _Worker, launch: Launch, count: int) -> None:
        assert self._ring is not None
        assert worker.executor is not None
        sent = _Task(launch, self._ring.lend(count))
        if not worker.tasks:
            worker.head_since_s = time.monotonic()
        worker.tasks.append(sent)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[PlayResult]
        try:
            future = loop.run_in_executor(worker.executor, task.play, sent.slots, launch.episodes, launch.options)
        except BrokenProcessPool as error:  # the worker died with nothing to do, so that no future told of it
            future = loop.create_future()
            future.set_exception(error)
        future.add_done_callback(self._settling(self._task_done, worker, sent))

    def _task_done(self, worker: _Worker, sent: _Task, future: asyncio.Future[PlayResult]) -> None:
        """The commit: what the future's slots hold counts from here on."""
        if future.cancelled():
            return
        error = future.exception()  # looked at even while closing: asyncio reports those that nobody has seen
        if self._closing or self._ring is None:
            return
        now = time.monotonic()
        worker.busy_s += now - worker.head_since_s
        worker.head_since_s = now
        worker.tasks.remove(sent)
        if error is not None:
            self._outcomes.append(self._salvage(worker, sent, error))
        else:
            self._outcomes.append(self._accept(worker, sent, future.result()))
        self._ring.take_back(sent.slots)
        self._news.set()

    def _accept(self, worker: _Worker, sent: _Task, result: PlayResult) -> Outcome:
        """The outcome of a task that came back."""
        trajectories = self._copy_out(worker, sent)
        if trajectories is not None:
            cost = result.cpu_s / len(trajectories.headers)
            self._trajectory_cpu_s += (cost - self._trajectory_cpu_s) * (0.1 if self._trajectory_cpu_s else 1.0)
        for failure in result.failures:
            worker.unfinished.discard(failure.episode)
        return self._outcome(sent.launch, trajectories, result.unused, result.failures, result.unnamed)

    def _copy_out(self, worker: _Worker, sent: _Task) -> Trajectories | None:
        assert self._ring is not None
        sealed = self._ring.sealed(sent.slots)
        if not sealed:
            return None
        worker.deaths_in_a_row = 0
        trajectories = self._ring.copy_out(sealed)
        for ended, episode in zip(*(trajectories.headers[name].tolist() for name in ("ended", "episode")), strict=True):
            if ended:
                worker.episodes += 1
                worker.unfinished.discard(episode)
            else:
                worker.unfinished.add(episode)
        return trajectories

    # ------------------------------------------------------------ supervision

    def _salvage(self, worker: _Worker, sent: _Task, error: BaseException) -> Outcome:
        """The outcome of a task whose worker is lost: what was sealed counts, what was being played is lost."""
        assert self._ring is not None
        trajectories = self._copy_out(worker, sent)
        if worker.ready:
            self._replace(worker, error)
        headers = self._ring.headers[sent.slots]
        begun_not_sealed = np.isin(headers["state"], (PLAYING, BROKEN_OFF))
        playing = set(headers["episode"][begun_not_sealed].tolist()) | worker.unfinished
        worker.unfinished.clear()
        begun = playing | (set() if trajectories is None else set(trajectories.headers["episode"].tolist()))
        unused = tuple(episode for episode in sent.launch.episodes if episode not in begun)
        lost = self._lost(playing, f"worker {worker.index} was lost: {worker.last_death}", worker.index)
        return Outcome(sent.launch, trajectories, unused, lost)

    def _replace(self, worker: _Worker, error: BaseException) -> None:
        """Give up the worker's process, whatever is left of it, and bring up another."""
        assert worker.executor is not None
        worker.ready = False
        worker.restarts += 1
        if worker.hung:
            cause = f"hung for {self._settings.episode_timeout_s:g} s and was killed"
        else:
            cause = cause_of_end(error, worker.executor)
        worker.hung = False
        self._count_death(worker, cause)
        if self._failure is None:
            self._spawn(self._bring_up(worker))

    def _count_death(self, worker: _Worker, cause: str) -> None:
        """Note why the worker's process ended; the run fails when no worker can live."""
        worker.last_death = cause
        worker.deaths_in_a_row += 1
        self._warn(f"worker {worker.index}: {cause}")
        executor, worker.executor = worker.executor, None
        if executor is not None:  # else it could not even be made, for lack of file descriptors
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
        """Replace a worker that has died with nothing to do, so that no future tells of it, before it is needed."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for worker in self._workers:
                if worker.ready and not worker.tasks and not worker.unfinished:
                    assert worker.executor is not None
                    if worker.executor.is_broken:
                        self._replace(worker, BrokenProcessPool())

    async def _watch_for_hung(self) -> None:
        """Kill a worker that has been at one trajectory for longer than allowed; its future then fails."""
        assert self._ring is not None
        while True:
            await asyncio.sleep(min(1.0, self._settings.episode_timeout_s / 4))
            now = time.monotonic()
            for worker in self._workers:
                if worker.ready and worker.tasks and self._hangs(worker, now):
                    worker.hung = True
                    assert worker.executor is not None
                    worker.executor.kill()

    def _hangs(self, worker: _Worker, now: float) -> bool:
        assert self._ring is not None
        headers = self._ring.headers[worker.tasks[0].slots]
        playing = headers["began_s"][headers["state"] == PLAYING]
        if len(playing):
            return bool(now - playing.min() > self._settings.episode_timeout_s)
        # Between two, or before the first: the one before may have taken as long as is allowed.
        since = max(worker.head_since_s, float(headers["began_s"].max()))
        return now - since > 2 * self._settings.episode_timeout_s

    def describe(self) -> CollectorStatus:
        """See Collector."""
        now = time.monotonic()
        ring = self._ring
        return CollectorStatus(
            workers=tuple(
                WorkerStatus(WorkerState.ENDED if self._closed else w.state, w.restarts, w.episodes)
                for w in self._workers
            ),
            slots=ring.layout.slots if ring else 0,
            slots_in_use=ring.layout.slots - ring.free_slots if ring else 0,
            ring_bytes=ring.layout.nbytes if ring else 0,
            busy_s=sum(w.busy_s + (now - w.head_since_s if w.tasks else 0.0) for w in self._workers),
        )

    # ------------------------------------------------------------------- end

    async def close(self) -> None:
        """See Collector. Asks the workers to end, then SIGTERM, then SIGKILL; then removes the segments."""
        self._closing = True
        for background in list(self._background):
            background.cancel()
        if self._background:
            await asyncio.wait(self._background, timeout=_BACKGROUND_S)
        executors = [worker.executor for worker in self._workers if worker.executor is not None]
        await asyncio.gather(asyncio.to_thread(end, executors), *self._dying)
        for worker in self._workers:
            worker.executor, worker.ready = None, False
            worker.tasks.clear()
        if self._weights is not None:
            self._weights.close()
        if self._ring is not None:
            self._ring.close()
        self._ring = self._weights = None
        self._closed = True

    def abort(self) -> None:
        """See Collector."""
        self._closing = True
        for background in self._background:  # or what is killed here is brought up again
            background.cancel()
        for worker in self._workers:
            if worker.executor is not None:
                worker.executor.kill()
        kill_forkserver()  # it would end with the caller, but not before it has compiled
        for segment in (self._weights, self._ring):
            if segment is not None:
                segment.close()

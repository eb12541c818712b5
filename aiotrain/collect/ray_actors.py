"""Ray actors that play whole episodes on this host, and the base of all collectors that use Ray.

Imported only where Ray is asked for. Weights go out through the object store, once a version; trajectories come back.
Nothing here blocks the event loop: what Ray answers is awaited, and calls that may block go to a thread.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import dataclasses
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import numpy.typing as npt
import psutil
import ray
import threadpoolctl
from ray.exceptions import RayError, RayTaskError

from aiotrain.collect.protocol import CollectorSettings, Launch, Outcome
from aiotrain.collect.ray_session import RaySession, in_short, kill, new_actor, take_signals_back
from aiotrain.collect.task_clock import TaskClock
from aiotrain.collect.task_collector import WholeEpisodeCollector
from aiotrain.collect.worker import make_local_player
from aiotrain.collect.worker_startup import answer_of
from aiotrain.errors import AiotrainError, InvalidStepError, WorkerError
from aiotrain.play.env_factory import EnvFactory
from aiotrain.play.inspection import close_envs
from aiotrain.play.player import Assignment
from aiotrain.play.policy import PolicyShape
from aiotrain.play.private_ring_player import Played

__all__ = ["ActorCollector", "RayCollector", "look_also_in"]

_STARTING_AT_ONCE = 4  # actors that are brought up at the same time
_LONGEST_PAUSE_S = 30.0  # between two attempts at starting an actor
_GONE_S = 5.0  # for processes to disappear that were killed


# ---------------------------------------------------------------------- the actors


class _PlayerActor:
    """Plays whole episodes, with environments and a policy of its own that it keeps."""

    def __init__(self, path: Sequence[str], clock: TaskClock, assignment: Assignment, factory: EnvFactory) -> None:
        look_also_in(path)
        threadpoolctl.threadpool_limits(1)
        self._envs: list[gymnasium.Env[Any, Any]] = []
        self._clock, self._assignment, self._factory = clock, assignment, factory

    def open(self) -> int:
        """Make the environments; return the process that they live in. Raises EnvError."""
        self._player = make_local_player(self._clock, self._assignment, self._factory, self._envs)
        return os.getpid()

    def play(self, parameters: npt.NDArray[np.float32], version: int, launch: Launch, task: int) -> Played:
        """Play each episode of ``launch`` to its end, as ``task`` on the clock."""
        self._clock.take(self._assignment.worker, task)
        return self._player.play_whole(parameters, version, launch.episodes, launch.options)

    def close(self) -> None:
        """Let the environments end what they own."""
        close_envs(self._envs)


def look_also_in(path: Sequence[str]) -> None:
    """Find modules also in the folders of ``path``."""
    sys.path.extend(folder for folder in path if folder not in sys.path)


class Actor:
    """An actor's handle, and the calls that it has not answered yet."""

    def __init__(self, worker: int, handle: Any, opened: Any) -> None:
        self.worker, self.handle, self.opened = worker, handle, opened
        self.calls: deque[int] = deque()  # numbers of tasks, in their order
        self.turn_s = 0.0  # since when it could begin the first of them
        self.lost = asyncio.Event()
        self.cause = ""


class _Sent(NamedTuple):
    """A version of the policy on its way to the object store."""

    reference: asyncio.Future[Any]
    version: int


# ------------------------------------------------------------------ the collectors


class RayCollector(WholeEpisodeCollector):
    """The base of collectors that use Ray: a launch is a call of an actor, and each actor has two calls at a time."""

    queued = 2  # so that none waits for the event loop between two of them
    in_order = True
    """Whether an actor begins a call when the one before is over, and tells the clock."""
    starts = 5.0  # of an actor in a row that may fail
    pause_s = 0.05  # before an actor is replaced; twice as long each time that its start fails
    end_s = 2.0  # for actors to end in order when the collector closes

    def __init__(
        self, factory: EnvFactory, settings: CollectorSettings, warn: Callable[[str], None], *, address: str = "local"
    ) -> None:
        super().__init__(factory, settings, warn)
        self._address = address
        self._actors: dict[int, Actor] = {}  # by worker
        self._opening: tuple[Any, ...] = ()  # what an actor's open is given
        self._thread = ThreadPoolExecutor(1, "aiotrain-ray")  # for calls that may block, one after the other
        self._joining: asyncio.Future[RaySession | None] | None = None
        self._starting = asyncio.Semaphore(_STARTING_AT_ONCE)
        for worker in self._workers:
            worker.ready = False

    @abc.abstractmethod
    def _create(self, worker: int) -> Any:
        """Return the handle of a new actor. Blocks."""

    async def open(self, policy: PolicyShape, slot_steps: int) -> None:
        """See Collector. Raises ConfigError if there is no Ray at the address. Actors come up in the background."""
        await super().open(policy, slot_steps)
        self._joining = self._in_thread(RaySession.join, self._address)
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                await asyncio.shield(self._joining)
        except TimeoutError:
            raise WorkerError(
                f"Ray ({self._address}) was not ready within {self._settings.start_timeout_s:g} s. "
                "Raise --start-timeout-s if it is slow."
            ) from None
        take_signals_back()

    def publish(self, parameters: npt.NDArray[np.float32], version: int) -> None:
        super().publish(parameters, version)
        self._sent = _Sent(self._in_thread(ray.put, self._policy.parameters), version)

    def _in_thread(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    # ---------------------------------------------------------------- playing

    async def _play(self, worker: int, launch: Launch) -> Any:
        """Return what the worker's actor answers to ``launch``, or an Outcome if that is lost.

        Raises InvalidStepError.
        """
        sent = self._sent
        reference = await asyncio.shield(sent.reference)
        actor = self._actors.get(worker)
        if actor is None:  # lost in the meantime
            return Outcome(launch, None, launch.episodes, ())
        task = next(self._numbers)
        if not actor.calls:
            actor.turn_s = time.monotonic()
        actor.calls.append(task)
        timed = (task,) if self.in_order else ()
        answer = asyncio.ensure_future(actor.handle.play.remote(reference, sent.version, launch, *timed))

        def fault() -> str:
            has_turn = self.in_order and actor.calls[0] == task
            return actor.cause or (self._clock.fault(worker, task, actor.turn_s) if has_turn else "")

        try:
            return await answer_of(answer, fault, self._settings.look_every_s)
        except (RayError, TimeoutError) as error:
            failure = error.cause if isinstance(error, RayTaskError) else error
        finally:
            answer.cancel()
            is_first = actor.calls[0] == task
            actor.calls.remove(task)
            actor.turn_s = time.monotonic() if is_first else actor.turn_s
        if self.in_order and (actor.lost.is_set() or not is_first):  # not begun
            return Outcome(launch, None, launch.episodes, ())
        if isinstance(failure, InvalidStepError) or not isinstance(failure, AiotrainError | RayError | TimeoutError):
            raise failure
        self._give_up(actor, in_short(failure))
        lost = self._lost(launch.episodes, f"{self._name(worker)} was lost: {actor.cause}", worker)
        return Outcome(launch, None, (), lost)

    # ------------------------------------------------------------ supervision

    async def _attend(self, worker: int) -> None:
        """Keep an actor for the worker, until that cannot be done."""
        failures, cause = 0, ""
        while failures < self.starts and self._is_expected(worker):
            try:
                async with self._starting:
                    actor = await self._start_actor(worker)
            except (AiotrainError, RayError, TimeoutError) as error:
                failures += 1
                cause = self._settings.not_ready if isinstance(error, TimeoutError) else in_short(error)
                self._warn(f"{self._name(worker)}: did not start: {cause}")
            else:
                failures = 0
                self._actors[worker] = actor
                self._workers[worker].ready = True
                self._news.set()
                await self._look_after(actor)
            doublings = min(failures, 99)  # far more would be no float
            await asyncio.sleep(min(self.pause_s * 2.0**doublings, _LONGEST_PAUSE_S))
        if self._is_expected(worker):
            raise WorkerError(
                f"{self._name(worker)} could not be started, {failures} times in a row. The last time: {cause}",
                worker=worker,
            )

    @abc.abstractmethod
    def _name(self, worker: int) -> str:
        """Return the worker's name in messages."""

    def _is_expected(self, worker: int) -> bool:
        """Return whether there should be an actor for the worker."""
        return True

    async def _start_actor(self, worker: int) -> Actor:
        """Start an actor. Raises EnvError, SharedMemoryError, RayError, TimeoutError."""
        handle = None
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                handle = await self._in_thread(self._create, worker)
                return Actor(worker, handle, await handle.open.remote(*self._opening))
        except BaseException:
            if handle is not None:
                self._in_thread(kill, handle)
            raise

    async def _look_after(self, actor: Actor) -> None:
        """Return when the actor is lost."""
        await actor.lost.wait()

    def _give_up(self, actor: Actor, cause: str) -> None:
        """Kill the actor and give its worker up until there is another. May be called twice."""
        if actor.lost.is_set():
            return
        actor.cause = cause
        actor.lost.set()
        del self._actors[actor.worker]
        worker = self._workers[actor.worker]
        worker.ready = False
        worker.restarts += 1
        self._warn(f"{self._name(actor.worker)}: {cause}")
        self._in_thread(kill, actor.handle)

    # ------------------------------------------------------------------- end

    async def _end(self) -> None:
        await asyncio.gather(*(self._end_actor(actor) for actor in self._actors.values()))
        if self._joining is not None:
            await asyncio.wait([self._joining], timeout=self._settings.start_timeout_s)
            if self._joining.done() and self._joining.exception() is None and (session := self._joining.result()):
                await self._in_thread(session.leave)
                take_signals_back()
        has_joined = self._joining is None or self._joining.done()
        await asyncio.to_thread(self._thread.shutdown, wait=has_joined)  # it may still ask the cluster something

    async def _end_actor(self, actor: Actor) -> None:
        with contextlib.suppress(RayError, TimeoutError):
            async with asyncio.timeout(self.end_s):
                await actor.handle.close.remote()
        await self._in_thread(kill, actor.handle)

    def _kill(self) -> None:
        for actor in self._actors.values():
            kill(actor.handle)


class ActorCollector(RayCollector):
    """Plays each launch in one of ``workers`` persistent actors on this host."""

    async def open(self, policy: PolicyShape, slot_steps: int) -> None:
        await super().open(policy, slot_steps)
        for worker in range(len(self._workers)):
            self._spawn(self._attend(worker))

    def _name(self, worker: int) -> str:
        return f"worker {worker}"

    def _create(self, worker: int) -> Any:
        here = ray.get_runtime_context().get_node_id()
        assignment = dataclasses.replace(self._assignment, worker=worker)
        return new_actor(_PlayerActor, here, self._clock, assignment, self._factory)

    async def _end(self) -> None:
        processes = [actor.opened for actor in self._actors.values()]
        await super()._end()
        await asyncio.to_thread(_wait_for_end, processes)


def _wait_for_end(processes: Sequence[int]) -> None:
    """Wait until these processes have ended; they were killed."""
    deadline = time.monotonic() + _GONE_S
    while any(psutil.pid_exists(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.01)

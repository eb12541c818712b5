"""Ray actors: each plays whole episodes on this host; and what this has in common with playing on a cluster.

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
from aiotrain.collect.task_collector import TaskCollector
from aiotrain.errors import AiotrainError, InvalidStepError, WorkerError
from aiotrain.play.factory import EnvFactory
from aiotrain.play.local_player import LocalPlayer, Played, make_player
from aiotrain.play.player import Assignment
from aiotrain.play.policy import PolicyShape

__all__ = ["ActorCollector", "RayCollector", "look_also_in"]

_STARTING_AT_ONCE = 4  # actors that are brought up at the same time
_LONGEST_PAUSE_S = 30.0  # between two attempts at starting an actor
_GONE_S = 5.0  # for processes to disappear that were killed


# ------------------------------------------------------------- what actors are of


class _PlayerActor:
    """Plays whole episodes, with environments and a policy of its own that it keeps."""

    def __init__(self, path: Sequence[str], assignment: Assignment, factory: EnvFactory) -> None:
        look_also_in(path)
        threadpoolctl.threadpool_limits(1)
        self._envs: list[gymnasium.Env[Any, Any]] = []
        self._assignment, self._factory = assignment, factory

    def open(self) -> int:
        """Make the environments; the process that they live in. Raises EnvError."""
        assignment, factory = self._assignment, self._factory
        self._player = LocalPlayer(assignment, lambda ring: make_player(assignment, factory, ring, self._envs))
        return os.getpid()

    def play(self, parameters: npt.NDArray[np.float32], version: int, launch: Launch) -> Played:
        """Play each episode of ``launch`` to its end."""
        return self._player.play_whole(parameters, version, launch.episodes, launch.options)

    def close(self) -> None:
        """Let the environments end what they own."""
        for env in self._envs:
            with contextlib.suppress(Exception):
                env.close()


def look_also_in(path: Sequence[str]) -> None:
    """Find modules also in the folders of ``path``."""
    sys.path.extend(folder for folder in path if folder not in sys.path)


class Actor:
    """An actor from here: its handle, and the calls that it has not answered yet."""

    def __init__(self, worker: int, handle: Any, opened: Any) -> None:
        self.worker, self.handle, self.opened = worker, handle, opened
        self.deadlines: deque[asyncio.Timeout] = deque()  # of the calls, in their order
        self.lost = asyncio.Event()
        self.cause = ""


class _Sent(NamedTuple):
    """A version of the policy on its way to the object store."""

    reference: asyncio.Future[Any]
    version: int


# ------------------------------------------------------------------ the collectors


class RayCollector(TaskCollector):
    """What ways to play by Ray have in common: a launch is a call of an actor, and each actor has two of them."""

    queued = 2  # so that none waits for the event loop between two of them
    in_order = True
    """Whether an actor begins a call when the one before is over."""
    starts = 5.0  # of an actor in a row that may fail
    pause_s = 0.05  # before an actor is replaced; twice as long each time that its start fails
    end_s = 2.0  # for actors to end in order when the collector closes

    def __init__(
        self, factory: EnvFactory, settings: CollectorSettings, warn: Callable[[str], None], *, address: str
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
        """The handle of a new actor. Blocks."""

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
        """See Collector."""
        super().publish(parameters, version)
        self._sent = _Sent(self._in_thread(ray.put, self._policy.parameters), version)

    def _in_thread(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    # ---------------------------------------------------------------- playing

    async def _call(self, worker: int, launch: Launch, within_s: float | None = None) -> Any:
        """What the worker's actor answers to ``launch``, within so many seconds of its turn; an Outcome if it is lost.

        Raises InvalidStepError.
        """
        sent = self._sent
        reference = await asyncio.shield(sent.reference)
        actor = self._actors.get(worker)
        if actor is None:  # lost in the meantime
            return Outcome(launch, None, launch.episodes, ())
        is_first = not actor.deadlines
        try:
            async with asyncio.timeout(None) as deadline:
                actor.deadlines.append(deadline)
                try:
                    self._count_down(actor, within_s)
                    return await actor.handle.play.remote(reference, sent.version, launch)
                finally:
                    is_first = actor.deadlines[0] is deadline
                    actor.deadlines.remove(deadline)
                    self._count_down(actor, within_s)
        except RayTaskError as error:
            if not isinstance(error.cause, AiotrainError) or isinstance(error.cause, InvalidStepError):
                raise error.cause from None
            cause = str(error.cause)
        except RayError as error:
            cause = in_short(error)
        except TimeoutError:
            cause = f"hung for {within_s or 0:g} s and was killed"
        if self.in_order and (actor.lost.is_set() or not is_first):  # not begun
            return Outcome(launch, None, launch.episodes, ())
        self._give_up(actor, cause)
        lost = self._lost(launch.episodes, f"{self._name(worker)} was lost: {actor.cause}", worker)
        return Outcome(launch, None, (), lost)

    def _count_down(self, actor: Actor, within_s: float | None) -> None:
        """Have the time of the call begin whose turn it is."""
        if within_s and actor.deadlines and actor.deadlines[0].when() is None:
            actor.deadlines[0].reschedule(asyncio.get_running_loop().time() + within_s)

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
                cause = self._too_slow if isinstance(error, TimeoutError) else in_short(error)
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
        """What people call the worker."""

    def _is_expected(self, worker: int) -> bool:
        """Whether there should be an actor for the worker."""
        return True

    async def _start_actor(self, worker: int) -> Actor:
        """Raises EnvError, SharedMemoryError, RayError, TimeoutError."""
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
        """Count on the actor no more, whatever it is doing. May be called twice."""
        if actor.lost.is_set():
            return
        actor.cause = cause
        actor.lost.set()
        del self._actors[actor.worker]
        worker = self._workers[actor.worker]
        worker.ready = False
        worker.restarts += 1
        self._warn(f"{self._name(actor.worker)}: {cause}")
        for deadline in actor.deadlines:  # Ray may take its time to find out
            if not deadline.expired():
                deadline.reschedule(0)
        self._in_thread(kill, actor.handle)

    # ------------------------------------------------------------------- end

    async def _end(self) -> None:
        for work in self._background:
            work.cancel()
        if self._background:
            await asyncio.wait(self._background)
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
        for work in self._background:  # or what is killed here is brought up again
            work.cancel()
        for actor in self._actors.values():
            kill(actor.handle)


class ActorCollector(RayCollector):
    """Plays each launch in one of ``workers`` persistent actors on this host."""

    def __init__(self, factory: EnvFactory, settings: CollectorSettings, warn: Callable[[str], None]) -> None:
        super().__init__(factory, settings, warn, address="local")

    async def open(self, policy: PolicyShape, slot_steps: int) -> None:
        """See Collector."""
        await super().open(policy, slot_steps)
        for worker in range(len(self._workers)):
            self._spawn(self._attend(worker))

    def _name(self, worker: int) -> str:
        return f"worker {worker}"

    def _create(self, worker: int) -> Any:
        here = ray.get_runtime_context().get_node_id()
        assignment = dataclasses.replace(self._assignment, worker=worker)
        return new_actor(_PlayerActor, here, assignment, self._factory)

    async def _play(self, worker: int, launch: Launch) -> Played | Outcome:
        played: Played | Outcome = await self._call(worker, launch, self._settings.episode_timeout_s)
        return played

    async def _end(self) -> None:
        processes = [actor.opened for actor in self._actors.values()]
        await super()._end()
        await asyncio.to_thread(_wait_for_end, processes)


def _wait_for_end(processes: Sequence[int]) -> None:
    """Until these processes have gone; they were told to go at once."""
    deadline = time.monotonic() + _GONE_S
    while any(psutil.pid_exists(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.01)

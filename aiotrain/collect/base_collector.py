"""What all collectors have in common: outcomes until they are asked for, the error that ends the run, own tasks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, TypeVar

from aiotrain.collect.cpython_internals import kill_forkserver
from aiotrain.collect.protocol import Collector, CollectorSettings, Launch, Outcome
from aiotrain.collect.worker_executor import WorkerExecutor
from aiotrain.errors import InvalidStepError
from aiotrain.play.env_factory import EnvFactory
from aiotrain.play.player import Assignment, LostEpisode, episode_streams
from aiotrain.play.policy import PolicyShape
from aiotrain.play.spaces import EnvSpec
from aiotrain.transport.slot_ring import RingLayout
from aiotrain.transport.trajectories import Trajectories

__all__ = ["BaseCollector"]

_Executor = TypeVar("_Executor", bound=WorkerExecutor)
_BACKGROUND_S = 2.0  # for the collector's own tasks to end once they are cancelled


class BaseCollector(Collector):
    """Keeps outcomes until they are asked for. ``warn`` is told what went wrong and was mended."""

    _spec: EnvSpec

    def __init__(self, factory: EnvFactory, settings: CollectorSettings, warn: Callable[[str], None]) -> None:
        self._factory, self._settings, self._warn = factory, settings, warn
        self._outcomes: list[Outcome] = []
        self._failure: BaseException | None = None
        self._news = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        self._executors: set[WorkerExecutor] = set()  # whose processes may live
        self._segments = contextlib.ExitStack()  # which close with it
        self._closing = self._closed = False
        self._unnamed: set[str] = set()  # numbers in info that the run has warned of

    def _make_assignment(self, policy: PolicyShape, ring_layout: RingLayout) -> Assignment:
        """Return the assignment of worker 0."""
        return Assignment(
            worker=0,
            envs=self._settings.envs_per_worker,
            run_seed=self._settings.run_seed,
            spec=self._spec,
            policy=policy,
            ring_layout=ring_layout,
            asks_for_metrics=self._factory.asks_for_metrics,
        )

    async def outcomes(self) -> Sequence[Outcome]:
        await self._news.wait()
        self._news.clear()
        outcomes, self._outcomes = self._outcomes, []
        if self._failure is not None:
            if not outcomes:
                raise self._failure
            self._news.set()  # what came back before counts: the next call raises
        return outcomes

    def _fail(self, error: BaseException) -> None:
        """End the run with ``error``; the first one counts."""
        self._failure = self._failure or error
        self._news.set()

    def _settling(self, callback: Callable[..., None], *args: Any) -> Callable[[Any], None]:
        """Return a done callback that calls ``callback`` with ``args`` and the future, and ends the run if that raises.

        asyncio would log the exception and go on, with a launch that never has an outcome.
        """

        def settle(done: Any) -> None:
            try:
                callback(*args, done)
            except Exception as error:
                self._fail(error)

        return settle

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` beside the caller; what it raises ends the run."""

        def ended(finished: asyncio.Task[None]) -> None:
            self._background.discard(finished)
            if not finished.cancelled() and isinstance(error := finished.exception(), Exception):
                self._fail(error)

        started = asyncio.get_running_loop().create_task(work)
        self._background.add(started)
        started.add_done_callback(ended)

    def _cancel_background(self) -> None:
        for work in list(self._background):
            work.cancel()

    async def _end_background(self) -> None:
        """Cancel what ``_spawn`` runs, and wait for its end."""
        self._cancel_background()
        if self._background:
            await asyncio.wait(self._background, timeout=_BACKGROUND_S)

    def _add(self, executor: _Executor) -> _Executor:
        """Answer for the processes of ``executor`` until their end."""
        self._executors.add(executor)
        return executor

    def abort(self) -> None:
        self._closing = True
        self._cancel_background()  # or what is killed here is brought up again
        for executor in self._executors:
            executor.kill()
        kill_forkserver()  # it would end with the caller, but not before it has compiled
        self._segments.close()

    def _outcome(
        self,
        launch: Launch,
        trajectories: Trajectories | None,
        unused: tuple[int, ...],
        failures: Sequence[LostEpisode],
        unnamed: Collection[str],
    ) -> Outcome:
        """Return the outcome of a task that came back, as of PlayResult."""
        if fresh := sorted(set(unnamed) - self._unnamed):
            self._unnamed.update(fresh)
            self._warn(
                f"the environment tells {', '.join(fresh)} at the end of an episode, which nobody asked for; "
                f"--metrics {' '.join(fresh)} reports it"
            )
        for failure in failures:
            if failure.invalid:
                self._fail(InvalidStepError(failure.reason, **failure.where))
            self._warn(failure.reason)
        return Outcome(launch, trajectories, unused, tuple(failures))

    def _lost(self, episodes: Collection[int], cause: str, worker: int | None) -> tuple[LostEpisode, ...]:
        """Return ``episodes`` as lost, with their seeds."""
        seeds = {episode: episode_streams(self._settings.run_seed, episode)[0] for episode in sorted(episodes)}
        return tuple(
            LostEpisode(episode, f"episode {episode}, seed {seed}: {cause}", worker, seed)
            for episode, seed in seeds.items()
        )

"""The embeddable trainer: collect, learn, publish, report. It owns every process, thread, segment and file of a run.

    async with Trainer(config) as trainer:
        async for update in trainer:
            print(update.episodes, update.mean_return)

No signal handlers, no prints, no state outside the trainer but what a process has one of: its forkserver, which is
told what to import, torch's number of threads, and for a deterministic run on a GPU its choice of algorithms. Several
trainers may run in one process. To stop early, leave the loop or cancel the task.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import math
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiotrain.collect.choose_collector import make_collector
from aiotrain.collect.protocol import Collector
from aiotrain.config import Config
from aiotrain.errors import TrainerStateError
from aiotrain.play.spaces import EnvSpec
from aiotrain.runs.checkpoints import Checkpoint, load_checkpoint
from aiotrain.runs.journals import refuse_old_run, refuse_running
from aiotrain.training.curriculum import curriculum_maker
from aiotrain.training.events import RunEvents
from aiotrain.training.reports import Ledger, Result, Update, columns_of
from aiotrain.training.status import Status, status_of
from aiotrain.training.training_run import TrainingRun, import_learner, in_thread, make_learner

__all__ = ["Result", "Trainer", "Update", "train"]


async def train(config: Config) -> Result:
    """Train to the end of the budget."""
    async with Trainer(config) as trainer:
        async for _ in trainer:
            pass
        return trainer.result()


class _State(enum.Enum):
    NEW = "not opened; use it as: async with Trainer(config) as trainer"
    OPEN = "open"
    CLOSED = "closed; make a new one"


class Trainer:
    """A training run as an asynchronous context manager that iterates over its updates.

    Entering raises CheckpointError, ConfigError, EnvError or SharedMemoryError before anything is trained. Iterating
    raises InvalidStepError, EnvError, WorkerError, CurriculumError or DivergenceError; what was learned until then is
    saved, unless an update failed half-way. Leaving ends every process, and raises CheckpointError or CurriculumError
    if something could not be saved.

    ``checkpoint`` and ``override``: see `resume`.
    """

    def __init__(self, config: Config, *, checkpoint: Checkpoint | None = None, override: bool = False) -> None:
        if checkpoint is not None:
            checkpoint.refuse_changes(config, override)
        self.config = config
        self._checkpoint = checkpoint
        self._factory = config.env_factory()
        columns_of(self._factory.metrics)  # refuses names that cannot be columns
        curriculum_maker(config)  # refuses a name that cannot be imported, before any process is started
        self._ledger = Ledger(self._factory.metrics)
        self._state = _State.NEW
        self._events = RunEvents()
        self._collector: Collector = make_collector(config, config.seed, self._factory, self._events.warn)
        self._thread = ThreadPoolExecutor(1, "aiotrain-learner")
        self._run: TrainingRun | None = None  # there once the environment is known
        self._unsaved: Exception | None = None
        self._learning: asyncio.Task[Update | None] | None = None  # the update that is under way
        self._iterating = False

    @classmethod
    def resume(cls, run: str | Path, *, override: bool = False, **changes: Any) -> Self:
        """Return a trainer that goes on with the run in a folder, from its newest checkpoint or the one in a file.

        The settings are those of the run but for ``changes``: of those in config.MAY_CHANGE, or of any by ``override``.
        An environment that was given as a callable is given again, as ``env``. What is read is data, but the settings
        name modules (the environment, a curriculum) and a cluster, which the trainer imports and connects to: look at
        those of somebody else's run first. Raises CheckpointError, ConfigError.
        """
        checkpoint = load_checkpoint(run)
        return cls(dataclasses.replace(checkpoint.config, **changes), checkpoint=checkpoint, override=override)

    # ------------------------------------------------------------- life cycle

    async def __aenter__(self) -> Self:
        if self._state is not _State.NEW:
            raise TrainerStateError(f"this trainer is {self._state.value}")
        self._state = _State.OPEN
        try:
            await self._open()
        except BaseException as error:
            self._events.error(error)
            await self._shielded_close()
            raise
        return self

    async def _open(self) -> None:
        config = self.config
        importing = asyncio.ensure_future(in_thread(self._thread, import_learner, config.learner_threads))
        if config.run_dir is not None:
            (refuse_old_run if self._checkpoint is None else refuse_running)(Path(config.run_dir))
        self._events.phase = "compiling" if self._factory.compiled_player is not None else "starting"
        spec = await self._collector.start()
        ppo = await importing
        config.refuse(spec)
        learner = await in_thread(self._thread, make_learner, ppo, config, spec)
        await self._collector.open(learner.network.shape, config.slot_steps or spec.slot_steps)
        self._run = TrainingRun(
            config,
            spec,
            learner,
            collector=self._collector,
            thread=self._thread,
            events=self._events,
            ledger=self._ledger,
        )
        checkpoint, self._checkpoint = self._checkpoint, None  # it may be large
        await self._run.begin(checkpoint)
        self._events.phase = "training"

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._events.error(error)
        elif self._events.phase == "training":
            self._events.phase = "stopping"
        await self._shielded_close()
        if self._unsaved is not None and error is None:
            raise self._unsaved

    async def _shielded_close(self) -> None:
        """Close whatever happens: a cancellation that comes meanwhile is passed on afterwards."""
        closing = asyncio.ensure_future(self._close())
        cancelled: asyncio.CancelledError | None = None
        while not closing.done():
            try:
                await asyncio.shield(closing)
            except asyncio.CancelledError as error:
                if closing.cancelled():
                    raise
                cancelled = error
        closing.result()
        if cancelled is not None:
            raise cancelled

    async def _close(self) -> None:
        if self._state is _State.CLOSED:
            return
        self._state = _State.CLOSED
        run = self._run
        if run is not None:
            await run.feeder.stop()
        try:
            await self._collector.close()
        finally:
            if self._learning is not None:  # an update in progress counts
                await asyncio.wait([self._learning])
                if not self._learning.cancelled() and (failure := self._learning.exception()) is not None:
                    self._events.error(failure)
            await asyncio.to_thread(self._thread.shutdown)
            self._ledger.stop()
            finished = run is not None and run.feeder.done
            self._events.end("finished" if finished else "stopped")
            if run is not None:
                await asyncio.to_thread(self._save, run)

    def _save(self, run: TrainingRun) -> None:
        try:
            run.save()
        except Exception as error:  # a curriculum's too: by then everything else is closed
            self._unsaved = error
            self._events.error(error)
            self._events.end("failed")

    def abort(self) -> None:
        """Kill every worker and remove every segment at once, without waiting: for a process that is about to exit."""
        self._collector.abort()

    # --------------------------------------------------------------- learning

    def __aiter__(self) -> AsyncIterator[Update]:
        return self

    async def __anext__(self) -> Update:
        """Learn from the next batch. If this is cancelled, by a timeout say, the next call goes on where it was."""
        run = self._open_run()
        if self._iterating:
            raise TrainerStateError("this trainer is at its next update already, which another task waits for")
        self._iterating = True
        try:
            return await self._next_update(run)
        finally:
            self._iterating = False

    async def _next_update(self, run: TrainingRun) -> Update:
        asked_s = time.monotonic()
        while True:
            if self._learning is None:
                batch = await run.feeder.next_batch()
                self._open_run()
                if batch is None:
                    self._events.phase = "stopping"
                    raise StopAsyncIteration
                learning = run.learn(batch, asked_s, lambda: self._state is _State.OPEN)
                self._learning = asyncio.create_task(learning, name="aiotrain learn")
            await asyncio.wait([self._learning])
            done, self._learning = self._learning, None
            if (update := done.result()) is not None:
                return update

    def _open_run(self) -> TrainingRun:
        """Return the run. Raises TrainerStateError unless the trainer is open."""
        if self._run is None or self._state is not _State.OPEN:
            raise TrainerStateError(f"this trainer is {self._state.value}")
        return self._run

    # -------------------------------------------------------------- reporting

    @property
    def spec(self) -> EnvSpec:
        """What the environment is like. Raises TrainerStateError before that is known."""
        return self._known_run().spec

    @property
    def episodes(self) -> int:
        """Episodes learned so far."""
        return self._ledger.episodes

    def result(self) -> Result:
        """Return what the training came to so far. Raises TrainerStateError before it has begun."""
        run = self._known_run()
        return Result(
            episodes=self._ledger.episodes,
            steps=self._ledger.steps,
            updates=len(self._ledger.returns),
            mean_return=self._ledger.last.mean_return if self._ledger.last else math.nan,
            lost=run.batcher.counts.lost,
            elapsed_s=self._ledger.elapsed_s(),
            weights=run.parameters,
        )

    def _known_run(self) -> TrainingRun:
        if self._run is None:
            raise TrainerStateError("this trainer has not got as far as training: there is no result yet")
        return self._run

    def status(self) -> Status:
        """Return the run at this moment, for a console."""
        return status_of(self.config, self._factory, self._collector.describe(), self._events, self._ledger, self._run)

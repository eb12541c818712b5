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
import functools
import math
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from aiotrain.cage2.search.policies import WorkflowPolicies
from aiotrain.cage2.search.workflow_search import Training, WorkflowSearch
from aiotrain.cage2.workflows import Order, order_text
from aiotrain.collect.protocol import Collector, CollectorStatus
from aiotrain.collect.selection import make_collector
from aiotrain.config import Config
from aiotrain.errors import CheckpointError, ConfigError, DivergenceError, TrainerStateError
from aiotrain.play.factory import make_factory
from aiotrain.play.policy import PolicyShape
from aiotrain.play.spaces import EnvSpec
from aiotrain.runs.checkpoints import Checkpoint, load_checkpoint
from aiotrain.runs.folder import RunFolder
from aiotrain.runs.journals import METRICS, refuse_old_run, refuse_running
from aiotrain.training.batcher import Batch, Batcher, Counts
from aiotrain.training.events import Notes
from aiotrain.training.feeder import Gathering
from aiotrain.training.reports import Ledger, Result, Update
from aiotrain.training.status import Status
from aiotrain.training.throughput import Meter

if TYPE_CHECKING:  # torch takes seconds to import: the trainer does so in its learner's thread, while workers start
    from aiotrain.learn.ppo import Learner

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
    raises InvalidStepError, EnvError, WorkerError or DivergenceError; what was learned until then is saved, unless
    an update failed half-way. Leaving ends every process, and raises CheckpointError if something could not be saved.

    ``checkpoint`` and ``override``: see `resume`.
    """

    def __init__(self, config: Config, *, checkpoint: Checkpoint | None = None, override: bool = False) -> None:
        if checkpoint is not None:
            checkpoint.refuse_changes(config, override)
        self.config = config
        self._checkpoint = checkpoint
        self._factory = make_factory(config)
        self._state = _State.NEW
        self._notes = Notes()
        self._collector: Collector = make_collector(config, self._factory, self._notes.warn)
        self._thread = ThreadPoolExecutor(1, "aiotrain-learner")
        self._folder: RunFolder | None = None
        self._unsaved: CheckpointError | None = None
        self._gathering: Gathering | None = None  # there once everything is set up
        self._learning: asyncio.Task[Update | None] | None = None
        self._iterating = False
        self._search: WorkflowSearch | None = None
        if config.searches:
            self._search = WorkflowSearch(config.workflow_search, config.seed, config.episodes_per_update)
        self._workflows: WorkflowPolicies | None = None
        self._version = 0  # of the policy: batches done with, also those of which nothing came
        self._is_whole = True  # no update is under way, or has failed half-way
        self._counts = Counts()  # those of the batcher, once there is one
        self._ledger = Ledger()
        self._device: str = config.device

    @classmethod
    def resume(cls, run: str | Path, *, override: bool = False, **changes: Any) -> Self:
        """A trainer that goes on with the run in a folder, from its newest checkpoint, or from the one in a file.

        The settings are those of the run but for ``changes``: of those in config.MAY_CHANGE, or of any by ``override``.
        An environment that was given as a callable is given again, as ``env``. What is read is data, but the settings
        name modules (``env``, ``red_agent``) and a cluster, which the trainer imports and connects to: look at those of
        somebody else's run first. Raises CheckpointError, ConfigError.
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
            self._notes.error(error)
            await self._shielded_close()
            raise
        return self

    async def _open(self) -> None:
        config = self.config
        importing = asyncio.get_running_loop().run_in_executor(self._thread, _import_learner, config.learner_threads)
        if config.run_dir is not None:
            (refuse_old_run if self._checkpoint is None else refuse_running)(Path(config.run_dir))
        self._notes.phase = "compiling" if self._factory.is_compiled else "starting"
        self.spec: EnvSpec = await self._collector.start()
        ppo = await importing
        try:
            device = ppo.pick_device(config.device)
            self._device = str(device)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if config.deterministic and device.type != "cpu":
            ppo.use_deterministic_algorithms()
        config.refuse(self.spec)
        self.policy_shape = PolicyShape.of(self.spec, config.ppo.hidden_sizes)
        at = {"seed": config.seed, "device": device, "threads": config.learner_threads}
        self._learner: Learner = await self._in_thread(ppo.Learner, self.spec, self.policy_shape, config.ppo, **at)
        slot_steps = config.slot_steps or self.spec.slot_steps
        batcher = Batcher(
            episodes_per_update=config.episodes_per_update,
            steps_per_update=config.steps_per_update,
            max_policy_lag=config.policy_lag,
            total_episodes=config.total_episodes,
            total_steps=config.total_steps,
            slot_steps=slot_steps,
            **({} if self._search is None else {"plan": self._search.plan}),
        )
        self._counts = batcher.counts
        await self._collector.open(self.policy_shape, slot_steps)
        if self._search is not None:
            self._workflows = WorkflowPolicies(
                config.workflow_search, self._search, self._learner, chosen=self._note_order, ended=self._note_training
            )
        if config.run_dir is not None:
            self._folder = RunFolder(
                config,
                self.spec,
                self.policy_shape,
                learner=self._learner,
                batcher=batcher,
                ledger=self._ledger,
                workflows=self._workflows,
                warn=self._notes.warn,
            )
            if self._checkpoint is not None:
                await self._in_thread(self._folder.restore, self._checkpoint)
                self._version = batcher.learned_batches
            self._folder.open(self._checkpoint)
            self._notes.write_by(self._folder.event)
            self._checkpoint = None  # it may be large
        if self._workflows is not None and not batcher.exhausted:
            await self._in_thread(self._workflows.choose)
        self._publish()
        if self._search is not None:
            self._search.begin()
        if config.steps_per_update is None and self.spec.max_episode_steps is None:
            self._notes.warn(
                f"{self.spec.name} tells no time limit: a batch waits for episodes to end. If some never do, cut them "
                "off by --max-episode-steps, or count in steps by --steps-per-update"
            )
        self._gathering = Gathering(
            self._collector, batcher, warn=self._notes.warn, began=self._note_first_episode, ended=self._notes.error
        )
        self._ledger.start_training()
        self._notes.phase = "training"

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._notes.error(error)
        elif self._notes.phase == "training":
            self._notes.phase = "stopping"
        await self._shielded_close()
        if self._unsaved is not None and error is None:
            raise self._unsaved

    def _note_first_episode(self) -> None:
        self._notes.event("first_episode", elapsed_s=round(self._ledger.elapsed_s(), 3))

    def _note_order(self, order: Order, parent: Order | None) -> None:
        self._notes.event("workflow", order=order_text(order), parent=None if parent is None else order_text(parent))

    def _note_training(self, training: Training) -> None:
        if self._folder is not None:
            self._folder.training(training)

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
        if self._gathering is not None:
            await self._gathering.stop()
        try:
            await self._collector.close()
        finally:
            if self._learning is not None:  # an update in progress counts
                await asyncio.wait([self._learning])
                if not self._learning.cancelled() and (failure := self._learning.exception()) is not None:
                    self._notes.error(failure)
            await asyncio.to_thread(self._thread.shutdown)
            self._ledger.stop()
            finished = self._gathering is not None and self._gathering.done
            self._notes.end("finished" if finished else "stopped")
            await asyncio.to_thread(self._save)

    def _save(self) -> None:
        """Write what is known at the end. The checkpoint comes first, for trainings that are cut off go on from it."""
        if self._folder is not None:
            self._folder.save(is_whole=self._is_whole)
        if self._workflows is not None and self._search is not None:
            reason = "budget" if self._notes.phase == "finished" else self._notes.phase
            self._workflows.end([running for running in self._search.running if running.episodes], reason)
        self._notes.event("end", phase=self._notes.phase, episodes=self.episodes, **self._counts.account())
        try:
            if self._folder is not None:
                self._folder.close()
        except CheckpointError as error:
            self._unsaved = error
            self._notes.error(error)
            self._notes.end("failed")

    def abort(self) -> None:
        """Kill every worker and remove every segment at once, without waiting: for a process that is about to exit."""
        self._collector.abort()

    # --------------------------------------------------------------- learning

    def __aiter__(self) -> AsyncIterator[Update]:
        return self

    async def __anext__(self) -> Update:
        """Learn from the next batch. If this is cancelled, by a timeout say, the next call goes on where it was."""
        self._refuse_unless_open()
        if self._iterating:
            raise TrainerStateError("this trainer is at its next update already, which another task waits for")
        self._iterating = True
        try:
            return await self._next_update()
        finally:
            self._iterating = False

    async def _next_update(self) -> Update:
        asked_s = time.monotonic()
        while True:
            if self._learning is None:
                assert self._gathering is not None
                batch = await self._gathering.next_batch()
                self._refuse_unless_open()
                if batch is None:
                    self._notes.phase = "stopping"
                    raise StopAsyncIteration
                self._learning = asyncio.create_task(self._learn(batch, asked_s), name="aiotrain learn")
            await asyncio.wait([self._learning])
            learning, self._learning = self._learning, None
            if (update := learning.result()) is not None:
                return update

    async def _learn(self, batch: Batch, asked_s: float) -> Update | None:
        """Update the policy with ``batch`` and publish it. None if the batch is empty."""
        gathering = self._gathering
        assert gathering is not None
        began_s = time.monotonic()
        was_whole, self._is_whole = self._is_whole, False
        if batch.trajectories is not None:
            metrics = await self._in_thread(
                self._learner.update, batch.trajectories, self._ledger.share_of(self.config)
            )
        self._version += 1
        workflows: list[str] = []
        if self._search is not None and self._workflows is not None:
            workflows = self._search.workflows(batch.number)
            if over := self._search.learned(batch.number, batch.trajectories, batch.parts):
                await self._in_thread(self._workflows.end, over)
            if self._search.free_places and not gathering.exhausted and self._state is _State.OPEN:
                await self._in_thread(self._workflows.choose)
        learn_s = time.monotonic() - began_s
        self._publish()
        if self._search is not None and self._state is _State.OPEN:
            self._search.begin()
        gathering.learned()
        update: Update | None = None
        if batch.trajectories is not None:
            metrics |= self._counts.account()
            update = self._ledger.add(
                batch.trajectories, self._version, metrics, collect_s=began_s - asked_s, learn_s=learn_s
            )
        self._is_whole = was_whole
        if self._folder is not None and update is not None:
            self._folder.update(update, workflows)
            if update.update % self.config.checkpoint_every == 0 and self._state is _State.OPEN:
                await self._in_thread(self._folder.save_checkpoint, self._folder.state_dict())
        return update

    def _publish(self) -> None:
        parameters = self._learner.parameters()
        if not np.isfinite(parameters).all():
            raise DivergenceError(
                f"the policy's parameters are no longer finite after update {self._version}. Lower --learning-rate or "
                "--max-grad-norm, or see whether rewards or observations grow without bound"
            )
        self._published = parameters
        if self._state is _State.OPEN:
            self._collector.publish(self._published, self._version)

    def _refuse_unless_open(self) -> None:
        if self._state is not _State.OPEN:
            raise TrainerStateError(f"this trainer is {self._state.value}")

    async def _in_thread(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        call = functools.partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    # -------------------------------------------------------------- reporting

    @property
    def episodes(self) -> int:
        """Episodes learned so far."""
        return self._ledger.episodes

    def result(self) -> Result:
        """What the training came to so far."""
        if self._gathering is None:
            raise TrainerStateError("this trainer has not got as far as training: there is no result yet")
        return Result(
            episodes=self._ledger.episodes,
            steps=self._ledger.steps,
            updates=len(self._ledger.returns),
            mean_return=self._ledger.last.mean_return if self._ledger.last else math.nan,
            lost=self._counts.lost,
            elapsed_s=self._ledger.elapsed_s(),
            weights=self._published,
        )

    def status(self) -> Status:
        """The run at this moment, for a console."""
        collector: CollectorStatus = self._collector.describe()
        factory, counts = self._factory, self._counts
        meter = Meter() if self._gathering is None else self._gathering.meter
        last = self._ledger.last
        trained_s = max(self._ledger.trained_s(), 1e-9)
        workers_s = max(self._ledger.trained_now_s(), 1e-9) * len(collector.workers)
        rates, mean_rates = meter.rates(), meter.mean_rates()
        share = self._ledger.share_of(self.config)
        environment = factory.name + (f" ({self.config.red_agent})" if factory.is_cage2 else "")
        return Status(
            run_name=Path(self.config.run_dir or "").name or "aiotrain",
            environment=environment,
            collector=self.config.collector,
            device=self._device,
            phase=self._notes.phase,
            elapsed_s=self._ledger.elapsed_s(),
            remaining_s=trained_s * (1 - share) / share if share > 0 else None,
            episodes_total=self.config.total_episodes,
            steps_total=self.config.total_steps,
            episodes_finished=counts.finished,
            steps_finished=counts.steps,
            episodes_played=counts.played,
            episodes_learned=self._ledger.episodes,
            episodes_waiting=counts.waiting,
            episodes_discarded=counts.discarded,
            episodes_lost=counts.lost,
            episodes_given_up=counts.given_up,
            episodes_in_flight=counts.in_flight,
            episodes_per_s=rates[0],
            steps_per_s=rates[1],
            mean_episodes_per_s=mean_rates[0],
            mean_steps_per_s=mean_rates[1],
            episodes_per_s_history=meter.history(),
            workers=collector.workers,
            slots=collector.slots,
            slots_in_use=collector.slots_in_use,
            ring_bytes=collector.ring_bytes,
            policy_version=self._version,
            policy_lag=last.policy_lag if last else 0.0,
            collect_share=self._ledger.collect_s / trained_s,
            learn_share=self._ledger.learn_s / trained_s,
            idle_share=max(0.0, 1 - (self._ledger.collect_s + self._ledger.learn_s) / trained_s),
            worker_busy_share=min(1.0, collector.busy_s / workers_s),
            returns=tuple(self._ledger.returns),
            compliance=last.values["compliance"] if last else math.nan,
            losses={} if last is None else {m.name: last.values[m.name] for m in METRICS if m.group == "loss"},
            updates=len(self._ledger.returns),
            warnings=tuple(self._notes.warnings),
            warnings_count=self._notes.warnings_count,
            first_error=self._notes.first_error,
            workflow=None if self._search is None else self._search.status(),
        )


def _import_learner(threads: int) -> Any:
    """Import torch in the learner's thread, and limit the threads that torch uses from there."""
    import torch

    from aiotrain.learn import ppo

    torch.set_num_threads(max(1, threads // 2))  # policy and value network have half of them each
    return ppo

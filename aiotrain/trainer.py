"""The embeddable trainer: collect, learn, publish, report. It owns every process, thread, segment and file of a run.

    async with Trainer(config) as trainer:
        async for update in trainer:
            print(update.episodes, update.mean_return)

No signal handlers, no prints, no state outside the trainer but what a process has one of: its forkserver, which is
told what to import, and torch's number of threads. Several trainers may run in one process. To stop early, leave the
loop or cancel the task.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from aiotrain.batching import Batch, Batcher, Counts
from aiotrain.cage2.workflows import Order, order_text
from aiotrain.checkpoint import save_weights
from aiotrain.collect import Collector, CollectorStatus
from aiotrain.collect.making import make_collector
from aiotrain.config import Config
from aiotrain.errors import ConfigError, DivergenceError, TrainerStateError
from aiotrain.factory import make_factory
from aiotrain.gathering import Gathering
from aiotrain.meter import Meter
from aiotrain.policy import PolicyShape
from aiotrain.records import METRICS, Records, refuse_old_run
from aiotrain.results import Ledger, Result, Update
from aiotrain.ring import slot_steps_for
from aiotrain.spaces import EnvSpec
from aiotrain.status import Status
from aiotrain.workflow_search import Running, WorkflowSearch

if TYPE_CHECKING:  # torch takes seconds to import: the trainer does so in its learner's thread, while workers start
    from aiotrain.ppo import Learner

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

    Entering raises ConfigError, EnvError or SharedMemoryError before anything is trained. Iterating raises
    InvalidStepError, EnvError, WorkerError or DivergenceError; what was learned until then is saved. Leaving ends
    every process.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._factory = make_factory(config)
        self._state = _State.NEW
        self._phase = "starting"
        self._ending = ""  # the phase at the end, where it is not that of a run left in order
        self._started_s = time.monotonic()
        self._warnings: deque[str] = deque(maxlen=100)
        self._warnings_count = 0
        self._first_error: str | None = None
        self._collector: Collector = make_collector(config, self._factory, self._warn)
        self._thread = ThreadPoolExecutor(1, "aiotrain-learner")
        self._records: Records | None = None
        self._gathering: Gathering | None = None  # there once everything is set up
        self._learning: asyncio.Task[Update | None] | None = None
        self._iterating = False
        self._search: WorkflowSearch | None = None
        if config.searches:
            self._search = WorkflowSearch(config.workflow_search, config.seed, config.episodes_per_update)
        self._policies: dict[Order | None, dict[str, Any]] = {}  # to go back to: as begun (None), and for each order
        self._version = 0  # of the policy: batches done with, also those of which nothing came
        self._ledger = Ledger(self._started_s)
        self._training_since_s = 0.0
        self._stopped_s: float | None = None
        self._device: str = config.device

    # ------------------------------------------------------------- life cycle

    async def __aenter__(self) -> Self:
        if self._state is not _State.NEW:
            raise TrainerStateError(f"this trainer is {self._state.value}")
        self._state = _State.OPEN
        try:
            await self._open()
        except BaseException as error:
            self._note_error(error)
            await self._shielded_close()
            raise
        return self

    async def _open(self) -> None:
        config = self.config
        importing = asyncio.get_running_loop().run_in_executor(self._thread, _import_learner, config.learner_threads)
        if config.run_dir is not None:
            refuse_old_run(Path(config.run_dir))
        self._phase = "compiling" if self._factory.is_compiled else "starting"
        self.spec: EnvSpec = await self._collector.start()
        ppo = await importing
        try:
            device = ppo.pick_device(config.device)
            self._device = str(device)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if config.total_steps is not None and config.steps_per_update is None and not self.spec.max_episode_steps:
            raise ConfigError(
                f"total-steps needs steps-per-update here: {self.spec.name} tells no time limit, and a batch of whole "
                "episodes would wait for one that never ends"
            )
        self.policy_shape = PolicyShape.of(self.spec, config.ppo.hidden_sizes)
        self._learner: Learner = await self._in_thread(
            ppo.Learner, self.spec, self.policy_shape, config.ppo, seed=config.seed, device=device
        )
        slot_steps = config.slot_steps or slot_steps_for(self.spec)
        batcher = Batcher(
            episodes_per_update=config.episodes_per_update,
            steps_per_update=config.steps_per_update,
            max_policy_lag=config.max_policy_lag,
            total_episodes=config.total_episodes,
            total_steps=config.total_steps,
            slot_steps=slot_steps,
            **({} if self._search is None else {"plan": self._search.plan}),
        )
        await self._collector.open(self.policy_shape, slot_steps)
        if config.run_dir is not None:
            self._records = Records(Path(config.run_dir), config.resolved(), config.tensorboard)
        if self._search is not None:
            self._policies[None] = self._learner.state()
            await self._in_thread(self._choose_workflows, self._search)
        self._publish()
        if self._search is not None:
            self._search.begin()
        self._event("start", environment=self.spec.name, device=str(device), workers=config.workers)
        if config.steps_per_update is None and self.spec.max_episode_steps is None:
            self._warn(
                f"{self.spec.name} tells no time limit: a batch waits for episodes to end. If some never do, cut them "
                "off by --max-episode-steps, or count in steps by --steps-per-update"
            )
        self._gathering = Gathering(
            self._collector, batcher, warn=self._warn, began=self._note_first_episode, ended=self._note_error
        )
        self._training_since_s = time.monotonic() - self._started_s
        self._phase = "training"

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._note_error(error)
        elif self._phase == "training":
            self._phase = "stopping"
        await self._shielded_close()

    def _note_first_episode(self) -> None:
        self._event("first_episode", elapsed_s=round(self._elapsed_s(), 3))

    def _note_error(self, error: BaseException) -> None:
        self._phase = "stopping"
        if isinstance(error, asyncio.CancelledError | KeyboardInterrupt | GeneratorExit):
            self._ending = self._ending or "interrupted"
            self._event("interrupted")
        elif (text := f"{type(error).__name__}: {error}") != self._first_error:  # not noted when it ended the gathering
            self._ending = "failed"
            self._first_error = self._first_error or text
            self._event("error", type=type(error).__name__, message=str(error))

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
                    self._note_error(failure)
            await asyncio.to_thread(self._thread.shutdown)
            self._stopped_s = time.monotonic()
            finished = self._gathering is not None and self._gathering.done
            self._phase = self._ending or ("finished" if finished else "stopped")
            try:
                await asyncio.to_thread(self._save)
            finally:
                if self._records is not None:
                    self._records.close()

    def _save(self) -> None:
        """Write what is known at the end."""
        if self._records is not None:
            path = self._records.folder / "weights.safetensors"
            save_weights(path, self._learner.tensors(), self.policy_shape, self.spec)
        if self._search is not None:
            reason = "budget" if self._phase == "finished" else self._phase
            self._end_workflows(self._search, [running for running in self._search.running if running.episodes], reason)
        self._event("end", phase=self._phase, episodes=self.episodes)

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
                    self._phase = "stopping"
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
        if batch.trajectories is not None:
            metrics = await self._in_thread(self._learner.update, batch.trajectories, self._progress())
        self._version += 1
        workflows: list[str] = []
        if self._search is not None:
            workflows = self._search.workflows(batch.number)
            if over := self._search.learned(batch.number, batch.trajectories, batch.parts):
                await self._in_thread(self._end_workflows, self._search, over)
            if self._search.free_places and not gathering.exhausted and self._state is _State.OPEN:
                await self._in_thread(self._choose_workflows, self._search)
        learn_s = time.monotonic() - began_s
        self._publish()
        if self._state is _State.OPEN:
            if self._search is not None:
                self._search.begin()
            gathering.learned()
        if batch.trajectories is None:
            return None
        update = self._ledger.add(
            batch.trajectories,
            self._version,
            metrics,
            collect_s=began_s - asked_s,
            learn_s=learn_s,
        )
        if self._records is not None:
            self._records.update(update.values, ";".join(workflows))
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

    def _choose_workflows(self, search: WorkflowSearch) -> None:
        """Choose the next orders, and have the policy that they begin from."""
        inherit = self.config.workflow_search.inherit
        for order in search.choose():
            parent = search.parent(order) if inherit == "nearest" else None
            if inherit != "latest":
                self._learner.load(self._policies[parent])
            self._event("workflow", order=order_text(order), parent=None if parent is None else order_text(parent))

    def _end_workflows(self, search: WorkflowSearch, over: Sequence[Running], reason: str = "") -> None:
        """Tell the search what came of trainings, write it down, and keep the policies."""
        for running, training in zip(over, search.finish(over, reason), strict=True):
            if self.config.workflow_search.inherit == "nearest":
                self._policies[running.order] = self._learner.state()
            if self._records is not None:
                self._records.workflow(training._asdict())
                name = f"weights-{'-'.join(running.order)}.safetensors"
                save_weights(self._records.folder / name, self._learner.tensors(), self.policy_shape, self.spec)

    def _refuse_unless_open(self) -> None:
        if self._state is not _State.OPEN:
            raise TrainerStateError(f"this trainer is {self._state.value}")

    async def _in_thread(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        call = functools.partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _progress(self) -> float:
        """Share of the budget that is used up."""
        config = self.config
        shares = [self._ledger.episodes / config.total_episodes]
        if config.total_steps is not None:
            shares.append(self._ledger.steps / config.total_steps)
        return min(max(shares), 1.0)

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
            lost=self._gathering.counts.lost,
            elapsed_s=self._elapsed_s(),
            weights=self._published,
        )

    def status(self) -> Status:
        """The run at this moment, for a console."""
        collector: CollectorStatus = self._collector.describe()
        gathering = self._gathering
        counts, meter = (Counts(), Meter()) if gathering is None else (gathering.counts, gathering.meter)
        last = self._ledger.last
        elapsed_s = self._elapsed_s()
        trained_s = max(elapsed_s - self._training_since_s, 1e-9)
        mean = meter.mean_rates()
        share = self._progress()
        return Status(
            run_name=Path(self.config.run_dir).name if self.config.run_dir else "aiotrain",
            environment=self._environment_name(),
            collector=self.config.collector,
            device=self._device,
            phase=self._phase,
            elapsed_s=elapsed_s,
            remaining_s=trained_s * (1 - share) / share if share > 0 else None,
            episodes_total=self.config.total_episodes,
            steps_total=self.config.total_steps,
            episodes_finished=counts.finished,
            steps_finished=counts.steps,
            episodes_learned=self._ledger.episodes,
            episodes_lost=counts.lost,
            episodes_in_flight=counts.in_flight,
            episodes_per_s=(rates := meter.rates())[0],
            steps_per_s=rates[1],
            mean_episodes_per_s=mean[0],
            mean_steps_per_s=mean[1],
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
            worker_busy_share=min(1.0, collector.busy_s / (trained_s * len(collector.workers))),
            returns=tuple(self._ledger.returns),
            compliance=last.values["compliance"] if last else math.nan,
            losses={metric.name: last.values[metric.name] for metric in METRICS if metric.group == "loss"}
            if last
            else {},
            updates=len(self._ledger.returns),
            warnings=tuple(self._warnings),
            warnings_count=self._warnings_count,
            first_error=self._first_error,
            workflow=None if self._search is None else self._search.status(),
        )

    def _elapsed_s(self) -> float:
        return (self._stopped_s or time.monotonic()) - self._started_s

    def _environment_name(self) -> str:
        return f"{self._factory.name} ({self.config.red_agent})" if self._factory.is_cage2 else self._factory.name

    def _warn(self, text: str) -> None:
        self._warnings.append(text)
        self._warnings_count += 1
        self._event("warning", message=text)

    def _event(self, kind: str, **details: Any) -> None:
        if self._records is None:
            return
        try:
            self._records.event(kind, **details)
        except OSError as error:  # a full disk, say: nothing is left running for the want of a line about it
            self._first_error = self._first_error or f"{type(error).__name__}: {error}"


def _import_learner(threads: int) -> Any:
    """Import torch in the learner's thread, and limit the threads that torch uses from there."""
    import torch

    from aiotrain import ppo

    torch.set_num_threads(threads)
    return ppo

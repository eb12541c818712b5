"""A training run from the moment its environment is known: what it consists of, and one update after the other."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from aiotrain.collect.protocol import Collector
from aiotrain.config import Config
from aiotrain.errors import ConfigError, CurriculumError, DivergenceError
from aiotrain.play.policy import PolicyShape
from aiotrain.play.spaces import EnvSpec
from aiotrain.runs.checkpoints import Checkpoint
from aiotrain.runs.folder import Part, RunFolder, restore
from aiotrain.runs.policy_files import WEIGHTS
from aiotrain.training.batcher import Batch, Batcher
from aiotrain.training.curriculum import CheckedCurriculum, RunServices, curriculum_maker
from aiotrain.training.events import RunEvents
from aiotrain.training.feeder import Feeder
from aiotrain.training.reports import Ledger, Update, columns_of

if TYPE_CHECKING:  # torch takes seconds to import: the trainer does so in its learner's thread, while workers start
    from aiotrain.learn.ppo import Learner

__all__ = ["TrainingRun", "import_learner", "in_thread", "make_learner"]


async def in_thread(thread: Executor, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return what ``function`` returns in ``thread``."""
    return await asyncio.get_running_loop().run_in_executor(thread, functools.partial(function, *args, **kwargs))


class TrainingRun:
    """Learner, batcher, curriculum, feeder and folder of a run. Nothing is played before `begin`.

    Needs a running loop. Raises ConfigError or CurriculumError for a curriculum that cannot be made.
    """

    def __init__(
        self,
        config: Config,
        spec: EnvSpec,
        learner: Learner,
        *,
        collector: Collector,
        thread: Executor,
        events: RunEvents,
        ledger: Ledger,
    ) -> None:
        self._config, self._collector, self._thread = config, collector, thread
        self._events, self._ledger = events, ledger
        self.spec = spec
        self.learner = learner
        services = RunServices(learner, event=events.note, row=self._row, save_policy=self._save_policy)
        batch_episodes = config.episodes_per_update if config.steps_per_update is None else None
        self.curriculum = CheckedCurriculum(curriculum_maker(config)(services), batch_episodes)
        self.batcher = Batcher(
            episodes_per_update=config.episodes_per_update,
            steps_per_update=config.steps_per_update,
            max_policy_lag=config.policy_lag,
            total_episodes=config.total_episodes,
            total_steps=config.total_steps,
            slot_steps=config.slot_steps or spec.slot_steps,
            plan=self.curriculum.plan,
        )
        self.feeder = Feeder(
            collector, self.batcher, warn=events.warn, began=self._note_first_episode, ended=events.error
        )
        self.version = 0
        """Version of the policy: batches that are done with, also those of which nothing came."""
        self.parameters: npt.NDArray[np.float32] = learner.parameters()
        """The policy as it was published last, ``[shape.size]``."""
        self._folder: RunFolder | None = None  # a run without a folder writes nothing
        self._is_whole = True  # no update is under way, or has failed half-way

    def _row(self, name: str, values: Mapping[str, Any]) -> None:
        if self._folder is not None:
            self._folder.row(name, values)

    def _save_policy(self, name: str) -> None:
        if self._folder is not None:
            self._folder.save_policy(name)

    def _note_first_episode(self) -> None:
        self._events.note("first_episode", elapsed_s=round(self._ledger.elapsed_s(), 3))

    async def begin(self, checkpoint: Checkpoint | None) -> None:
        """Restore what ``checkpoint`` holds, open the folder, publish the policy, and have episodes played.

        Raises CheckpointError, ConfigError.
        """
        parts: dict[str, Part] = {"batcher": self.batcher, "ledger": self._ledger, "curriculum": self.curriculum}
        config, warn = self._config, self._events.warn
        resumed = None
        if checkpoint is not None:
            resumed = await in_thread(self._thread, restore, checkpoint, config, self.spec, self.learner, parts, warn)
            self.version = self.batcher.learned_batches
        if config.run_dir is not None:
            self._folder = RunFolder(
                Path(config.run_dir),
                config,
                self.spec,
                columns=columns_of(self.spec.metrics),
                learner=self.learner,
                parts=parts,
                resumed=resumed,
                warn=warn,
            )
            self._events.write_by(self._folder.event)
        if not self.batcher.exhausted:
            await self._advance(has_more=True)
        self._publish()
        if self.batcher.counts_episodes and self.spec.max_episode_steps is None:
            warn(
                f"{self.spec.name} tells no time limit: a batch waits for episodes to end. If some never do, cut them "
                "off by --max-episode-steps, or count in steps by --steps-per-update"
            )
        self.feeder.begin()
        self._ledger.start_training()

    async def learn(self, batch: Batch, asked_s: float, is_open: Callable[[], bool]) -> Update | None:
        """Update the policy with ``batch`` and publish it; return the report, or None if the batch is empty.

        ``asked_s``: monotonic time since which the learner has waited for it. ``is_open`` tells whether the run goes
        on: a closing one publishes and plans nothing more.
        """
        began_s = time.monotonic()
        was_whole, self._is_whole = self._is_whole, False
        if batch.trajectories is not None:
            progress = self._ledger.share_of(self._config)
            losses = await in_thread(self._thread, self.learner.update, batch.trajectories, progress)
        self.version += 1
        label = self.curriculum.label(batch.number)
        self.curriculum.learned(batch.number, *batch.ended(self.spec.metrics))
        await self._advance(has_more=is_open() and not self.batcher.exhausted)
        learn_s = time.monotonic() - began_s
        self._publish(is_open())
        self.feeder.learned()
        update: Update | None = None
        if batch.trajectories is not None:
            update = self._ledger.add(
                batch.trajectories,
                self.version,
                losses=losses,
                account=self.batcher.counts.account(),
                collect_s=began_s - asked_s,
                learn_s=learn_s,
            )
        self._is_whole = was_whole
        if self._folder is not None and update is not None:
            self._folder.update(update.row(self.spec.metrics), label)
            if update.update % self._config.checkpoint_every == 0 and is_open():
                state = self._folder.state_dict()
                mean = self._ledger.recent_return()
                await in_thread(self._thread, self._folder.save_checkpoint, state, update.update, mean)
        return update

    async def _advance(self, *, has_more: bool) -> None:
        await in_thread(self._thread, self.curriculum.advance, has_more=has_more)

    def _publish(self, is_open: bool = True) -> None:
        parameters = self.learner.parameters()
        if not np.isfinite(parameters).all():
            raise DivergenceError(
                f"the policy's parameters are no longer finite after update {self.version}. Lower --learning-rate or "
                "--max-grad-norm, or see whether rewards or observations grow without bound"
            )
        self.parameters = parameters
        if is_open:
            self._collector.publish(parameters, self.version)
            self.curriculum.published()

    def save(self) -> None:
        """Write what is known at the end, and close the files.

        The checkpoint comes first: what the end cuts off goes on from it. Raises CheckpointError or CurriculumError if
        something cannot be saved.
        """
        updates, mean = len(self._ledger.returns), self._ledger.recent_return()
        phase, account = self._events.phase, self.batcher.counts.account()
        try:
            if self._folder is not None:
                self._save_all(self._folder, updates, mean)
            self.curriculum.end("budget" if phase == "finished" else phase)
        finally:
            self._events.note("end", phase=phase, episodes=self._ledger.episodes, **account)
            if self._folder is not None:
                self._folder.close()

    def _save_all(self, folder: RunFolder, updates: int, mean: float) -> None:
        try:
            folder.save(updates, mean, is_whole=self._is_whole)
        except CurriculumError:  # it has no state to save, which is no reason to lose the policy
            folder.save_policy(WEIGHTS)
            raise


def make_learner(ppo: Any, config: Config, spec: EnvSpec) -> Learner:
    """Return a new learner. ``ppo`` is what `import_learner` returned. Raises ConfigError."""
    try:
        device = ppo.pick_device(config.device)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if config.deterministic and device.type != "cpu":
        ppo.use_deterministic_algorithms()
    shape = PolicyShape.of(spec, config.ppo.hidden_sizes)
    learner: Learner = ppo.Learner(
        spec, shape, config.ppo, seed=config.seed, device=device, threads=config.learner_threads
    )
    return learner


def import_learner(threads: int) -> Any:
    """Import torch, and limit the threads that torch uses from the calling thread; return the module of the learner."""
    import torch

    from aiotrain.learn import ppo

    torch.set_num_threads(max(1, threads // 2))  # policy and value network have half of them each
    return ppo

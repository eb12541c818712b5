"""The folder of a run: its records, weights and checkpoints, and how its parts are restored from one."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiotrain.cage2.search.policies import WorkflowPolicies
from aiotrain.cage2.search.workflow_search import Training
from aiotrain.config import Config
from aiotrain.errors import CheckpointError, ConfigError
from aiotrain.play.policy import PolicyShape
from aiotrain.play.spaces import EnvSpec
from aiotrain.runs.checkpoints import Checkpoint, Checkpoints, library_versions, natural, save_weights
from aiotrain.runs.journals import JOURNALS, METRICS, Records
from aiotrain.training.batcher import Batcher
from aiotrain.training.reports import Ledger, Update

if TYPE_CHECKING:  # torch takes seconds to import
    from aiotrain.learn.ppo import Learner

__all__ = ["RunFolder"]

_HALF_WRITTEN = re.compile(r"\.(weights.*\.safetensors|config\.json|updates\.csv)\.\d+")
"""What `write_whole` calls a file of a run until it is whole."""


class RunFolder:
    """Writes what a run leaves behind, from `open` until `close`; before and after, it does nothing.

    While the run goes on, no full disk ends it: ``warn`` is told.
    """

    def __init__(
        self,
        config: Config,
        spec: EnvSpec,
        shape: PolicyShape,
        *,
        learner: Learner,
        batcher: Batcher,
        ledger: Ledger,
        workflows: WorkflowPolicies | None,
        warn: Callable[[str], None],
    ) -> None:
        assert config.run_dir is not None
        self.path = Path(config.run_dir)
        self._config, self._spec, self._shape = config, spec, shape
        self._learner, self._batcher, self._ledger, self._workflows = learner, batcher, ledger, workflows
        self._warn = warn
        self._records: Records | None = None
        self._checkpoints = Checkpoints(self.path, config.keep_checkpoints)
        self._unsaved: str | None = None  # what could not be written since the last checkpoint that could

    # -------------------------------------------------------------------- to begin

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore all parts. May take some tenths of a second. Raises CheckpointError."""
        state = checkpoint.state
        with checkpoint.refusing():
            then, now = state["environment"], json.loads(json.dumps(dataclasses.asdict(self._spec)))
            if changed := [name for name in now if then[name] != now[name]]:
                raise ValueError(f"the environment is another than it was then, in {', '.join(changed)}")
            self._lines = {name: natural(state["lines"][name]) for name in JOURNALS}
            self._checkpoints.best_return = float(state["best_return"])
            self._batcher.load_state_dict(state["batcher"])
            self._ledger.load_state_dict(state["ledger"])
            if self._ledger.last is not None and self._ledger.last.values.keys() != {each.name for each in METRICS}:
                raise ValueError("its last update has other metrics than there are now")
            if self._workflows is not None:
                self._workflows.load_state_dict(state["workflows"])
            self._learner.load_state_dict(state["learner"])
            then = state["made_with"]
            if changed := [f"{name} {then[name]}" for name, it in self._made_with().items() if then[name] != it]:
                self._warn(f"the checkpoint was made with {', '.join(changed)}: the run goes on, but not to the bit")

    def open(self, checkpoint: Checkpoint | None) -> None:
        """Begin to write, or go on after what was written at the ``checkpoint``. Raises ConfigError."""
        config, spec = self._config, self._spec
        lines = None if checkpoint is None else {**self._lines, "episodes": self._ledger.episodes}
        self._records = Records(self.path, config.resolved(), config.tensorboard, warn=self._warn, resumed=lines)
        self._remove_half_written()
        about = {"environment": spec.name, "device": str(self._learner.device), "workers": config.workers}
        if checkpoint is None:
            self.event("start", **about)
        else:
            try:
                self._checkpoints.forget_after(checkpoint.update)
            except OSError as error:
                raise ConfigError(f"run-dir: {self.path} cannot be written to: {error.strerror}") from error
            changes = checkpoint.config.differences(config)
            self.event("resume", checkpoint=checkpoint.path.name, changes=changes, **about)

    def _remove_half_written(self) -> None:
        """Remove what killed processes have left: as the folder is ours now, no other writes these."""
        for path in self.path.iterdir():
            if _HALF_WRITTEN.fullmatch(path.name):
                with contextlib.suppress(OSError):  # it is in nobody's way
                    path.unlink()

    # ---------------------------------------------------------- while it goes on

    def event(self, kind: str, **details: Any) -> None:
        """Write down that something happened."""
        if self._records is not None:
            self._records.event(kind, **details)

    def training(self, training: Training) -> None:
        """Write down a training of an order that is over, and the policy as it is now."""
        if self._records is None:
            return
        self._records.workflow(training._asdict())
        name = f"weights-{training.workflow.replace(',', '-')}.safetensors"
        try:
            self._save_weights(name)
        except OSError as error:
            self._note_failure(f"the policy of {training.workflow}", error)

    def update(self, update: Update, workflows: Sequence[str]) -> None:
        """Write down an update, with the orders that were trained."""
        if self._records is not None:
            self._records.update(update.values, ";".join(workflows))

    def state_dict(self) -> dict[str, Any]:
        """The run at this moment, but for the learner, which only the thread that learns may look into."""
        return {
            "update": len(self._ledger.returns),
            "config": self._config.resolved(),
            "environment": dataclasses.asdict(self._spec),
            "made_with": self._made_with(),
            "ledger": self._ledger.state_dict(),
            "batcher": self._batcher.state_dict(),
            "workflows": None if self._workflows is None else self._workflows.state_dict(),
            "lines": {} if self._records is None else self._records.state_dict(),
        }

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Save ``state``, with the learner. Where that fails, the checkpoints stay that there are."""
        assert self._records is not None
        try:
            self._records.sync()
            state = {**state, "learner": self._learner.state_dict()}
            self._checkpoints.save(state["update"], state, self._ledger.recent_return())
        except OSError as error:
            self._note_failure(f"update {state['update']}", error)
        else:
            self._unsaved = None

    def _note_failure(self, what: str, error: OSError) -> None:
        self._unsaved = f"{what} could not be saved in {self.path}: {error.strerror or error}. {self._last()}"
        self._warn(self._unsaved)

    def _made_with(self) -> dict[str, str]:
        return {**library_versions(), "device": str(self._learner.device)}

    def _last(self) -> str:
        last = self._checkpoints.newest()
        return "There is no checkpoint yet" if last is None else f"The last checkpoint is {last}"

    def _save_weights(self, name: str) -> None:
        save_weights(self.path / name, self._learner.tensors(), self._shape, self._spec)

    # ---------------------------------------------------------------------- to end

    def save(self, *, is_whole: bool) -> None:
        """Save the last checkpoint and the weights, unless an update failed half-way: only what ``is_whole``."""
        if self._records is None:
            return
        if not is_whole:
            self._warn(f"an update failed half-way, which is nothing to go on from. {self._last()}")
            return
        self.save_checkpoint(self.state_dict())
        try:
            self._save_weights("weights.safetensors")
        except OSError as error:
            self._note_failure("the weights", error)

    def close(self) -> None:
        """Close all files. Raises CheckpointError if the last checkpoint, or anything since, could not be saved."""
        records, self._records = self._records, None
        try:
            if records is not None:
                records.close()
        except OSError as error:
            self._note_failure("the last lines of updates.csv and its like", error)
        if self._unsaved is not None:
            raise CheckpointError(self._unsaved)

"""The folder of a run: its journals, weights and checkpoints, and how the parts of a run are restored from one."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from aiotrain.config import Config
from aiotrain.errors import CheckpointError, ConfigError
from aiotrain.play.spaces import EnvSpec
from aiotrain.runs.checkpoints import Checkpoint, Checkpoints, library_versions, natural, number
from aiotrain.runs.journals import UPDATES, Journals
from aiotrain.runs.policy_files import WEIGHTS, save_weights
from aiotrain.runs.tensor_files import Unfit

if TYPE_CHECKING:  # torch takes seconds to import
    from aiotrain.learn.ppo import Learner

__all__ = ["Part", "Resumed", "RunFolder", "restore"]

_HALF_WRITTEN = re.compile(r"\.(weights.*\.safetensors|config\.json|updates\.csv)\.\d+")
"""Name that `write_whole` gives to a file of a run until it is whole."""


class Part(Protocol):
    """What a checkpoint saves and restores."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return everything that decides how it goes on, as plain values and arrays."""
        ...

    def load_state_dict(self, state: Any) -> None:
        """Go on from what `state_dict` returned. Raises KeyError, RuntimeError, TypeError or ValueError."""
        ...


class Resumed(NamedTuple):
    """Where a run goes on that was restored from a checkpoint."""

    checkpoint: str
    """Name of its file."""
    update: int
    episodes: int
    """Episodes learned until then."""
    lines: Mapping[str, int]
    """How many lines each journal had."""
    best_return: float
    changes: list[str]
    """Settings that are others now, a sentence each."""


def restore(
    checkpoint: Checkpoint,
    config: Config,
    spec: EnvSpec,
    learner: Learner,
    parts: Mapping[str, Part],
    warn: Callable[[str], None],
) -> Resumed:
    """Restore ``learner`` and ``parts``, one of which is the ``ledger``; no file is touched.

    May take some tenths of a second. Raises CheckpointError.
    """
    state = checkpoint.state
    with checkpoint.refusing():
        then, now = state.part("environment"), json.loads(json.dumps(dataclasses.asdict(spec)))
        if changed := [name for name in now if then[name] != now[name]]:
            raise Unfit(f"the environment is another than it was then, in {', '.join(changed)}")
        lines = {_plain_name(name): natural(count) for name, count in state.part("lines").items()}
        if foreign := [name for name in lines if not name.endswith((".csv", ".jsonl"))]:
            raise Unfit(f"{foreign[0]} is no file that a run writes line by line")
        for name, part in {**parts, "learner": learner}.items():
            _restore(part, state.part(name))
        then = state.part("made_with")
        if changed := [f"{name} {then[name]}" for name, it in _made_with(config, learner).items() if then[name] != it]:
            warn(f"the checkpoint was made with {', '.join(changed)}: the run goes on, but not to the bit")
        return Resumed(
            checkpoint.path.name,
            checkpoint.update,
            natural(state.part("ledger")["episodes"]),
            lines,
            number(state["best_return"]),
            checkpoint.config.differences(config),
        )


def _restore(part: Part, state: Mapping[str, Any]) -> None:
    """Restore a part of a run. Raises Unfit.

    What a curriculum of the user's raises for a foreign state, and torch for tensors of another size, cannot be told
    from a fault in their code; the error has it as its cause.
    """
    try:
        part.load_state_dict(state)
    except Unfit:
        raise
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise Unfit(f"{error} is missing" if isinstance(error, KeyError) else str(error)) from error


def _made_with(config: Config, learner: Learner) -> dict[str, str]:
    libraries = () if config.domain is None else config.domain.libraries
    return {**library_versions(libraries), "device": str(learner.device)}


class RunFolder:
    """Writes what a run leaves behind, until it is closed. Making one begins the files, or goes on after ``resumed``.

    While the run goes on, no full disk ends it: ``warn`` is told. ``columns`` are those of Journals, ``parts`` are what
    a checkpoint saves beside the learner. Raises ConfigError.
    """

    def __init__(
        self,
        path: Path,
        config: Config,
        spec: EnvSpec,
        *,
        columns: Mapping[str, str],
        learner: Learner,
        parts: Mapping[str, Part],
        resumed: Resumed | None,
        warn: Callable[[str], None],
    ) -> None:
        self.path = path
        self._config, self._spec = config, spec
        self._learner, self._parts, self._warn = learner, parts, warn
        self._unsaved: str | None = None  # what could not be written since the last checkpoint that could
        best_return = -math.inf if resumed is None else resumed.best_return
        self._checkpoints = Checkpoints(path, config.keep_checkpoints, best_return)
        self._journals = Journals(
            path,
            config.resolved(),
            columns,
            tensorboard=config.tensorboard,
            warn=warn,
            resumed=None if resumed is None else resumed.lines,
            episodes=0 if resumed is None else resumed.episodes,
        )
        self._remove_half_written()
        about = {"environment": spec.name, "device": str(learner.device), "workers": config.workers}
        if resumed is None:
            self.event("start", **about)
            return
        try:
            self._checkpoints.forget_after(resumed.update)
        except OSError as error:
            raise ConfigError(f"run-dir: {path} cannot be written to: {error.strerror}") from error
        self.event("resume", checkpoint=resumed.checkpoint, changes=resumed.changes, **about)

    def _remove_half_written(self) -> None:
        """Remove what killed processes have left: as the folder is ours now, no other writes these."""
        for path in self.path.iterdir():
            if _HALF_WRITTEN.fullmatch(path.name):
                with contextlib.suppress(OSError):  # it is in nobody's way
                    path.unlink()

    # ---------------------------------------------------------- while it goes on

    def event(self, kind: str, **details: Any) -> None:
        """Write down that something happened."""
        self._journals.event(kind, **details)

    def update(self, row: Mapping[str, float | int | None], label: str) -> None:
        """Write down an update, with the label of its batch."""
        self._journals.update(row, label)

    def row(self, name: str, values: Mapping[str, Any]) -> None:
        """Write a row to the CSV file ``name``. Raises ValueError for a name that is taken or no such file's."""
        if not _plain_name(name).endswith(".csv") or name == UPDATES:
            raise ValueError(f"{name!r} is no file for rows of a curriculum; choose another name that ends with .csv")
        self._journals.row(name, values)

    def save_policy(self, name: str) -> None:
        """Write policy and value network, as they are now, to the file ``name``. A full disk is warned of.

        Raises ValueError for what is no name of a safetensors file.
        """
        if not _plain_name(name).endswith(".safetensors"):
            raise ValueError(f"{name!r} is no file for a policy; choose a name that ends with .safetensors")
        learner = self._learner
        try:
            save_weights(self.path / _plain_name(name), learner.tensors(), learner.network.shape, self._spec)
        except OSError as error:
            self._note_failure(name, error)

    def state_dict(self) -> dict[str, Any]:
        """Return the run at this moment, but for the learner, which only the thread that learns may look into."""
        return {
            "config": self._config.resolved(),
            "environment": dataclasses.asdict(self._spec),
            "made_with": _made_with(self._config, self._learner),
            "lines": self._journals.lines(),
            **{name: part.state_dict() for name, part in self._parts.items()},
        }

    def save_checkpoint(self, state: Mapping[str, Any], update: int, recent_return: float) -> None:
        """Save ``state``, with the learner, as that after ``update``. On failure, existing checkpoints are kept.

        The best checkpoint is the one with the highest ``recent_return``.
        """
        try:
            self._journals.sync()
            whole = {**state, "update": update, "learner": self._learner.state_dict()}
            self._checkpoints.save(update, whole, recent_return)
        except (OSError, Unfit) as error:
            self._note_failure(f"update {update}", error)
        else:
            self._unsaved = None

    def _note_failure(self, what: str, error: OSError | Unfit) -> None:
        why = getattr(error, "strerror", None) or error
        self._unsaved = f"{what} could not be saved in {self.path}: {why}. {self._last()}"
        self._warn(self._unsaved)

    def _last(self) -> str:
        last = self._checkpoints.newest()
        return "There is no checkpoint yet" if last is None else f"The last checkpoint is {last}"

    # ---------------------------------------------------------------------- to end

    def save(self, update: int, recent_return: float, *, is_whole: bool) -> None:
        """Save the last checkpoint and the weights, unless an update failed half-way: only what ``is_whole``."""
        if not is_whole:
            self._warn(f"an update failed half-way, which is nothing to go on from. {self._last()}")
            return
        self.save_checkpoint(self.state_dict(), update, recent_return)
        self.save_policy(WEIGHTS)

    def close(self) -> None:
        """Close all files. Raises CheckpointError if the last checkpoint, or anything since, could not be saved."""
        try:
            self._journals.close()
        except OSError as error:
            self._note_failure("the last lines of updates.csv and its like", error)
        if self._unsaved is not None:
            raise CheckpointError(self._unsaved)


def _plain_name(name: str) -> str:
    """Return ``name``, if it is that of a file in a folder. Raises Unfit, a ValueError."""
    if not isinstance(name, str) or Path(name).name != name or name.startswith("."):
        raise Unfit(f"{name!r} is no name of a file in the folder of a run")
    return name

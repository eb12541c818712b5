"""What a run left, as far as playing its policy needs it. All of it is read as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from aiotrain.config import Config
from aiotrain.domains import Domain, part_of
from aiotrain.errors import ConfigError
from aiotrain.play.policy import NumpyPolicy
from aiotrain.play.spaces import EnvSpec
from aiotrain.runs.checkpoints import Checkpoint, Checkpoints, load_checkpoint
from aiotrain.runs.policy_files import WEIGHTS, load_policy
from aiotrain.runs.tensor_files import Unfit, parsed

__all__ = ["FoundRun", "Trained", "find_run", "load_run", "name_of", "read_config"]

_MAY_DIFFER = ("name", "max_episode_steps", "metrics")
"""Fields of an EnvSpec that a policy does not depend on."""


@dataclass(frozen=True)
class Trained:
    """A policy that a run trained, and what it is played on."""

    run: Path
    """The run's folder, or one of its checkpoints."""
    config: Config
    """Settings of the run, with those by which the policy is played."""
    policy: NumpyPolicy
    spec: EnvSpec
    """Of the environment that it was trained on."""
    actions: str = "sampled"
    """How they are chosen: sampled or greedy."""

    def greedy(self) -> Trained:
        """Return the same, with the most probable actions."""
        return dataclasses.replace(self, policy=self.policy.greedy(), actions="greedy")

    def limited_to(self, max_episode_steps: int | None) -> Trained:
        """Return the same, with episodes truncated after so many steps; None: as they are. Raises ConfigError."""
        if max_episode_steps is None:
            return self
        return dataclasses.replace(self, config=dataclasses.replace(self.config, max_episode_steps=max_episode_steps))

    @property
    def name(self) -> str:
        """As `name_of` its run."""
        return name_of(self.run)

    def policy_for(self, spec: EnvSpec) -> NumpyPolicy:
        """Return the policy. Raises ConfigError if it was trained for other spaces than those of ``spec``."""
        differing = [
            f"{field.name.replace('_', ' ')} {was}, now {now}"
            for field in dataclasses.fields(EnvSpec)
            if field.name not in _MAY_DIFFER
            and (was := getattr(self.spec, field.name)) != (now := getattr(spec, field.name))
        ]
        if differing:
            raise ConfigError(
                f"{self.run} was trained on an environment with other spaces than {spec.name} has now: in training, "
                + "; ".join(differing)
            )
        return self.policy


class FoundRun(NamedTuple):
    """A run, or one of its checkpoints, whose settings were read, and whose policy was not yet."""

    run: Path
    """The run's folder, or the file of the checkpoint."""
    config: Config
    checkpoint: Checkpoint | None

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.run if self.checkpoint is None else self.checkpoint.path.parent.parent

    def load(self, config: Config, weights: str = WEIGHTS) -> Trained:
        """Return the policy, to be played by ``config``. ``weights``: the file of the run that holds it.

        Raises CheckpointError or ConfigError.
        """
        if self.checkpoint is not None:
            if weights != WEIGHTS:
                raise ConfigError(f"{self.run} has several policies, in {weights} and its like: name the folder")
            return Trained(self.run, config, *self.checkpoint.policy())
        path = self.folder / weights
        if weights == WEIGHTS and not path.exists() and (newest := Checkpoints(self.run, 1).newest()) is not None:
            raise ConfigError(
                f"there is no file {path}; a run writes its weights when it ends. What it has learned until now is in "
                f"its checkpoints, such as {newest}: name that"
            )
        return Trained(self.run, config, *load_policy(path))


def name_of(run: Path) -> str:
    """Return the name of a run's folder, and of a checkpoint, which one."""
    run = run.resolve()
    return f"{run.parents[1].name}, {run.stem}" if run.is_file() else run.name


def find_run(run: Path) -> FoundRun:
    """Find the run in a folder, or the one of a checkpoint. Raises CheckpointError or ConfigError."""
    if run.stem.startswith("weights") and run.is_file():
        raise ConfigError(f"{run} holds weights alone: name the folder of their run, {run.parent}")
    checkpoint = load_checkpoint(run) if run.is_file() else None
    return FoundRun(run, read_config(run) if checkpoint is None else checkpoint.config, checkpoint)


def load_run(run: Path, env: str | Callable[..., Any] | Domain | None = None) -> Trained:
    """Load what a run left, to be played on ``env``, or where it was trained.

    Raises CheckpointError or ConfigError.
    """
    found = find_run(run)
    config, weights = found.config, WEIGHTS
    if config.domain is not None:
        settings = config.domain
        domain, weights = part_of(settings, "to_play", tuple[Domain, str], lambda: settings.to_play(found.folder))
        config = dataclasses.replace(config, env=domain)
    return found.load(config if env is None else dataclasses.replace(config, env=env), weights)


def read_config(run: Path) -> Config:
    """Return the settings of a run, from the config.json in its folder or from a checkpoint.

    Raises CheckpointError or ConfigError.
    """
    if run.is_file():
        return load_checkpoint(run).config
    path = run / "config.json"
    if not path.is_file():
        if not run.is_dir():
            raise ConfigError(f"there is no {run}: name the folder of a run, or a checkpoint in it")
        raise ConfigError(f"{run} holds no run: there is no config.json")
    try:
        return Config.of(parsed(path.read_text()))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (ConfigError, UnicodeDecodeError, Unfit) as error:
        raise ConfigError(f"{path} is damaged, or of another version of aiotrain: {error}") from error

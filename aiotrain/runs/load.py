"""What a run left, as far as an evaluation needs it. All of it is parsed as data."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiotrain.cage2.domain import Cage2
from aiotrain.cage2.search.curriculum import weights_file
from aiotrain.cage2.search.strategies import GpUcb
from aiotrain.cage2.workflows import Order, order_text, parse_order
from aiotrain.config import Config
from aiotrain.errors import ConfigError
from aiotrain.play.policy import NumpyPolicy
from aiotrain.play.spaces import EnvSpec
from aiotrain.runs.checkpoints import Checkpoints, load_checkpoint, load_policy

__all__ = ["Trained", "load_run", "name_of", "order_of", "read_config"]

_WEIGHTS: Final = "weights.safetensors"


@dataclass(frozen=True)
class Trained:
    """What a run came to."""

    run: Path
    config: Config
    """As it trained, with the workflow to evaluate."""
    policy: NumpyPolicy
    spec: EnvSpec
    actions: str
    """How they are chosen."""

    def greedy(self) -> Trained:
        """The same, with the most probable actions."""
        return dataclasses.replace(self, policy=self.policy.greedy(), actions="greedy")

    @property
    def name(self) -> str:
        """As `name_of` its run."""
        return name_of(self.run)

    def policy_for(self, spec: EnvSpec) -> NumpyPolicy:
        """The policy. Raises ConfigError if it was trained for other spaces than those of ``spec``."""
        differing = [
            f"{field.name.replace('_', ' ')} {was}, now {now}"
            for field in dataclasses.fields(EnvSpec)
            if field.name not in ("name", "max_episode_steps", "metrics")
            and (was := getattr(self.spec, field.name)) != (now := getattr(spec, field.name))
        ]
        if differing:
            raise ConfigError(
                f"{self.run} was trained on an environment with other spaces than {spec.name} has now: in training, "
                + "; ".join(differing)
            )
        return self.policy


def name_of(run: Path) -> str:
    """The name of a run's folder, and of a checkpoint, which one."""
    run = run.resolve()
    return f"{run.parents[1].name}, {run.stem}" if run.is_file() else run.name


def load_run(run: Path, workflow: str | None = None, env: str | Callable[..., Any] | None = None) -> Trained:
    """Read what a run left in its folder, or one of its checkpoints, to be played on ``env`` or where it was trained.

    Raises CheckpointError or ConfigError.
    """
    if run.stem.startswith("weights") and run.is_file():
        of_order = run.stem.partition("-")[2].replace("-", ",")
        raise ConfigError(
            f"{run} holds weights alone: name the folder of their run, {run.parent}"
            + (f", and {of_order} by workflow (--workflow)" if of_order else "")
        )
    checkpoint = load_checkpoint(run) if run.is_file() else None
    config = read_config(run) if checkpoint is None else checkpoint.config
    folder = run if checkpoint is None else checkpoint.path.parent.parent
    weights = folder / _WEIGHTS
    if not isinstance(config.env, Cage2) or config.env.workflow == "none":
        if workflow is not None:
            raise ConfigError(f"workflow: the policy of {run} was trained without any, and is shown none")
    else:
        if workflow is not None:
            order = order_of(workflow)
        else:
            order = _best_order(folder, config.env) if config.env.searches else order_of(config.env.workflow)
        if config.env.searches and config.env.search.inherit != "latest":  # a policy of its own for each order
            weights = folder / weights_file(order)
            if checkpoint is not None:
                raise ConfigError(f"{run} has a policy for each order, in {weights.name} and its like: name the folder")
        config = dataclasses.replace(config, env=dataclasses.replace(config.env, workflow=order_text(order)))
    if env is not None:
        config = dataclasses.replace(config, env=env)
    if checkpoint is not None:
        return Trained(run, config, *checkpoint.policy(), "sampled")
    if weights.name == _WEIGHTS and not weights.exists() and (newest := Checkpoints(run, 1).newest()) is not None:
        raise ConfigError(
            f"there is no file {weights}; a run writes its weights when it ends. What it has learned until now is in "
            f"its checkpoints, such as {newest}: name that"
        )
    return Trained(run, config, *load_policy(weights), "sampled")


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
        return Config.of(json.loads(path.read_text()))
    except (AttributeError, OSError, RecursionError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is damaged, or of another version of aiotrain: {error}") from error


def _best_order(run: Path, settings: Cage2) -> Order:
    """The order that a search ranks first, from its workflows.csv. Raises ConfigError."""
    path = run / "workflows.csv"
    search = GpUcb()
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file, strict=True):
                if row["learned"] == "True":
                    complied = row["complied"] == "True" or settings.search.fixed_episodes is not None
                    search.observe(parse_order(row["workflow"]), float(row["value"]), complied)
    except FileNotFoundError:
        pass
    except (OSError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} is damaged ({type(error).__name__}: {error}); name an order by workflow (--workflow)"
        ) from error
    if (best := search.best()) is None:
        raise ConfigError(
            f"{run} is a search in which no training of an order has ended; name one by workflow (--workflow)"
        )
    return best


def order_of(workflow: str) -> Order:
    """The order that ``workflow`` means. Raises ConfigError."""
    try:
        return parse_order(workflow)
    except ValueError as error:
        raise ConfigError(str(error)) from None

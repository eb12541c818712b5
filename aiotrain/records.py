"""What a run leaves behind: configuration, a CSV row per update, a JSON line per event, TensorBoard files."""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from aiotrain.checkpoint import write_whole
from aiotrain.errors import ConfigError

__all__ = ["METRICS", "Metric", "Records", "refuse_old_run"]

_OLD_RUN = "holds a run already; name another folder or move it away"


class Metric(NamedTuple):
    """A number that every update reports."""

    name: str
    group: str
    """Where it stands in TensorBoard."""
    meaning: str


METRICS = (
    Metric("update", "progress", "number of the update, from 1"),
    Metric("elapsed_s", "progress", "wall time since the start, seconds"),
    Metric("episodes", "progress", "episodes learned so far"),
    Metric("steps", "progress", "environment steps learned so far"),
    Metric("mean_return", "return", "mean undiscounted return of the batch's finished episodes"),
    Metric("min_return", "return", "lowest return in the batch"),
    Metric("max_return", "return", "highest return in the batch"),
    Metric("mean_bonus", "return", "mean alignment bonus of an episode, which the learner gets on top of the return"),
    Metric("compliance", "return", "mean compliance with the workflow of the episodes that have one, 0 to 1"),
    Metric("compliance_share", "return", "share of the episodes that have a compliance: they fixed something"),
    Metric("mean_length", "return", "mean length of the batch's finished episodes, steps"),
    Metric("batch_episodes", "batch", "episodes that ended in the batch"),
    Metric("batch_steps", "batch", "steps in the batch"),
    Metric("policy_lag", "batch", "mean over steps of learner's version minus acting version, publishes"),
    Metric("max_policy_lag", "batch", "largest such lag in the batch, publishes"),
    Metric("policy_loss", "loss", "clipped surrogate"),
    Metric("value_loss", "loss", "half the mean squared error of the value, in units of the scaled reward"),
    Metric("entropy", "loss", "mean entropy of the policy, nats"),
    Metric("approx_kl", "loss", "divergence of the updated policy from what it was before, nats"),
    Metric("clip_fraction", "loss", "share of steps whose ratio was clipped"),
    Metric(
        "explained_variance", "loss", "1 - variance of the value's error / variance of the returns, before learning"
    ),
    Metric("learning_rate", "loss", "step size of this update"),
    Metric("collect_s", "time", "seconds that the learner waited for the batch"),
    Metric("learn_s", "time", "seconds that the update took, with the search where the training of an order ended"),
    Metric("episodes_per_s", "time", "episodes learned per second of wall time since the update before"),
)
"""Every metric of a run, defined here and nowhere else."""


class Records:
    """The files of a run in ``folder``, which is made.

    Raises ConfigError if it holds a run already, or cannot be written to; it can then be tried again.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], tensorboard: bool) -> None:
        self.folder = folder
        make_board = _tensorboard_writer() if tensorboard else None
        refuse_old_run(folder)
        updates = folder / "updates.csv"
        columns = [*(metric.name for metric in METRICS), "workflow"]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            updates.touch(exist_ok=False)  # this claims the folder
            try:
                write_whole(folder / "config.json", json.dumps(config, indent=2, default=str).encode() + b"\n")
                write_whole(updates, ",".join(columns).encode() + b"\r\n")
                self._board: Any = None if make_board is None else make_board(str(folder))
                self._events = (folder / "events.jsonl").open("a")
                self._updates = updates.open("a", newline="")
            except OSError:
                updates.unlink()
                raise
        except FileExistsError as error:  # claimed by another run since
            raise ConfigError(f"run-dir: {folder} {_OLD_RUN}") from error
        except OSError as error:
            raise ConfigError(f"run-dir: {folder} cannot be written to: {error.strerror}") from error
        self._rows = csv.DictWriter(self._updates, columns)

    def update(self, values: Mapping[str, float], workflow: str = "") -> None:
        """A row with the value of every metric, and the orders that were trained, in a search."""
        self._rows.writerow({name: _short(value) for name, value in values.items()} | {"workflow": workflow})
        self._updates.flush()
        if self._board is not None:
            for metric in METRICS:
                if not math.isnan(value := values[metric.name]):
                    self._board.add_scalar(f"{metric.group}/{metric.name}", value, int(values["episodes"]))

    def workflow(self, values: Mapping[str, Any]) -> None:
        """A row in workflows.csv about a finished training of an order."""
        with (self.folder / "workflows.csv").open("a", newline="") as file:
            rows = csv.DictWriter(file, list(values))
            if not file.tell():
                rows.writeheader()
            rows.writerow(values)

    def event(self, kind: str, **details: Any) -> None:
        """A line about something that happened, with the time."""
        self._events.write(json.dumps({"time": round(time.time(), 3), "event": kind, **details}, default=str) + "\n")
        self._events.flush()

    def close(self) -> None:
        """Close the files. May be called twice."""
        self._updates.close()
        self._events.close()
        if self._board is not None:
            self._board.close()


def refuse_old_run(folder: Path) -> None:
    """Raise ConfigError if ``folder`` holds a run, or is none."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"run-dir: {folder} is not a folder")
    if (folder / "updates.csv").exists():
        raise ConfigError(f"run-dir: {folder} {_OLD_RUN}")


def _short(value: float) -> float | int:
    """Six significant digits are enough for a file that people read."""
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _tensorboard_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "tensorboard is not installed; install aiotrain[tensorboard], or leave --tensorboard out"
        ) from error
    return SummaryWriter

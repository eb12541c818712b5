"""What a run leaves behind: configuration, a CSV row per update, a JSON line per event, TensorBoard files."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from aiotrain.errors import ConfigError
from aiotrain.runs.checkpoints import write_whole

__all__ = ["JOURNALS", "METRICS", "Metric", "Records", "refuse_old_run", "refuse_running"]

JOURNALS = ("updates.csv", "workflows.csv", "events.jsonl")
"""Files that grow by lines. The first one keeps other processes out."""
_OLD_RUN = "holds a run already; resume it if it has a checkpoint, name another folder, or move it away"
_GOES_ON = "holds a run that still goes on, in another process"


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
    Metric("played", "account", "attempts at episodes that came to an end: episodes + waiting + discarded + lost"),
    Metric("waiting", "account", "finished episodes in batches that are not learned yet"),
    Metric("discarded", "account", "episodes that waited when the run ended, before it was resumed"),
    Metric("lost", "account", "attempts lost with a worker or environment"),
    Metric("given_up", "account", "episodes that were lost and are not tried again"),
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
_COLUMNS = [*(metric.name for metric in METRICS), "workflow"]


class _Journal:
    """A file that lines are appended to. What a full disk refuses is kept, and written with the next line.

    One process at a time has it open. Raises OSError; BlockingIOError while another has it open, ELOOP for a link.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise
        self._unwritten = b""
        self._lock = threading.Lock()  # events come from the event loop and from the learner's thread
        self.lines = len(self._whole_lines())

    def cut(self, lines: int) -> None:
        """Forget all lines but the first so many, and a torn one."""
        kept = self._whole_lines()[:lines]
        os.ftruncate(self._file, sum(map(len, kept)))
        self.lines = len(kept)

    def _whole_lines(self) -> list[bytes]:
        with open(self._file, "rb", closefd=False) as file:
            file.seek(0)
            return [line for line in file if line.endswith(b"\n")]

    def append(self, lines: str) -> None:
        with self._lock:
            self.lines += lines.count("\n")
            self._unwritten += lines.encode()
        self.write()

    def write(self) -> None:
        with self._lock:
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._file, self._unwritten) :]

    def sync(self) -> None:
        self.write()
        os.fsync(self._file)

    def close(self) -> None:
        if self._file >= 0:
            file, self._file = self._file, -1
            os.close(file)


class Records:
    """The files of a run in ``folder``, which is made.

    A run goes on in its folder if ``resumed`` tells how many lines each of the `JOURNALS` had, and ``episodes``.
    What cannot be written now, because the disk is full, is written with what comes next; ``warn`` is told once. Only
    TensorBoard's files end there. Raises ConfigError if the folder holds a run already, or cannot be written to; it can
    then be tried again.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        tensorboard: bool,
        *,
        warn: Callable[[str], None] = lambda _: None,
        resumed: Mapping[str, int] | None = None,
    ) -> None:
        self.folder = folder
        self._warn, self._is_full = warn, False
        make_board = _tensorboard_writer() if tensorboard else None
        self._journals: dict[str, _Journal] = {}
        with contextlib.ExitStack() as undo:
            undo.callback(self._close_journals)
            try:
                if resumed is None:
                    self._claim(undo)
                self._open_journals(resumed)
                write_whole(folder / "config.json", json.dumps(config, indent=2, default=str).encode() + b"\n")
                after = None if resumed is None else resumed["episodes"] + 1
                self._board: Any = None if make_board is None else make_board(str(folder), purge_step=after)
            except (FileExistsError, BlockingIOError) as error:  # claimed by another run since
                raise ConfigError(f"run-dir: {folder} {_OLD_RUN if resumed is None else _GOES_ON}") from error
            except OSError as error:
                raise ConfigError(f"run-dir: {folder} cannot be written to: {error.strerror}") from error
            undo.pop_all()

    def _claim(self, undo: contextlib.ExitStack) -> None:
        refuse_old_run(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        updates = self.folder / "updates.csv"
        updates.touch(exist_ok=False)
        undo.callback(updates.unlink)
        write_whole(updates, _row(_COLUMNS).encode())

    def _open_journals(self, resumed: Mapping[str, int] | None) -> None:
        """Open all files, the one that keeps other processes out first; forget what came after a checkpoint."""
        for name in JOURNALS:
            wanted = None if resumed is None else resumed[name]
            if name == "workflows.csv" and not wanted and not (self.folder / name).exists():
                continue  # only a search has it, from its first training on
            journal = self._journals[name] = _Journal(self.folder / name)
            if wanted is not None:
                if journal.lines < wanted:
                    self._warn(f"{name} has {journal.lines} lines, where {wanted} were written: some are lost")
                journal.cut(wanted)
            if name == "updates.csv" and not journal.lines:  # all are lost
                journal.append(_row(_COLUMNS))

    def update(self, values: Mapping[str, float], workflow: str = "") -> None:
        """A row with the value of every metric, and the orders that were trained, in a search."""
        self._append("updates.csv", _row([*(_short(values[metric.name]) for metric in METRICS), workflow]))
        if self._board is not None:
            try:
                for metric in METRICS:
                    if not math.isnan(value := values[metric.name]):
                        self._board.add_scalar(f"{metric.group}/{metric.name}", value, int(values["episodes"]))
            except OSError as error:  # of its thread, which has ended by it
                self._board = None
                self._warn(f"the TensorBoard files in {self.folder} end here: {error.strerror or error}")

    def workflow(self, values: Mapping[str, Any]) -> None:
        """A row in workflows.csv about a finished training of an order."""
        row = _row(values.values())
        journal = self._journals.get("workflows.csv")
        self._append("workflows.csv", row if journal is not None and journal.lines else _row(values) + row)

    def event(self, kind: str, **details: Any) -> None:
        """A line about something that happened, with the time."""
        line = json.dumps({"time": round(time.time(), 3), "event": kind, **details}, default=str) + "\n"
        self._append("events.jsonl", line)

    def _append(self, name: str, lines: str) -> None:
        try:
            if name not in self._journals:
                self._journals[name] = _Journal(self.folder / name)
            self._journals[name].append(lines)
        except OSError as error:
            if not self._is_full:
                self._is_full = True  # first, for the warning is an event
                self._warn(f"{self.folder / name} cannot be written to now, and will be later: {error.strerror}")
        else:
            self._is_full = False

    def state_dict(self) -> dict[str, int]:
        """How many lines each file has, for ``resumed``."""
        return {name: self._journals[name].lines if name in self._journals else 0 for name in JOURNALS}

    def sync(self) -> None:
        """Have everything on disk. Raises OSError."""
        for journal in self._journals.values():
            journal.sync()

    def close(self) -> None:
        """Close the files. May be called twice. Raises OSError if something could not be written to the last."""
        try:
            for journal in self._journals.values():
                journal.write()
        finally:
            self._close_journals()
            if self._board is not None:
                self._board.close()

    def _close_journals(self) -> None:
        while self._journals:
            self._journals.popitem()[1].close()


def refuse_old_run(folder: Path) -> None:
    """Raise ConfigError if ``folder`` holds a run, or is none."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"run-dir: {folder} is not a folder")
    if (folder / "updates.csv").exists():
        raise ConfigError(f"run-dir: {folder} {_OLD_RUN}")


def _row(values: Iterable[Any]) -> str:
    """A row of a CSV file."""
    text = io.StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue()


def _short(value: float) -> float | int:
    """Six significant digits are enough for a file that people read."""
    return value if isinstance(value, int) else float(f"{value:.6g}")


def refuse_running(folder: Path) -> None:
    """Raise ConfigError if the run in ``folder`` still goes on, or its files cannot be written to."""
    try:
        _Journal(folder / "updates.csv").close()
    except BlockingIOError as error:
        raise ConfigError(f"run-dir: {folder} {_GOES_ON}") from error
    except OSError as error:
        raise ConfigError(f"run-dir: {folder} cannot be written to: {error.strerror}") from error


def _tensorboard_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "tensorboard is not installed; install aiotrain[tensorboard], or leave --tensorboard out"
        ) from error
    return SummaryWriter

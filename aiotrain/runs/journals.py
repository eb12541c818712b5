"""The files that a run writes line by line: a CSV row per update, a JSON line per event, TensorBoard files."""

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
from typing import Any, Final

from aiotrain.errors import ConfigError
from aiotrain.runs.tensor_files import write_whole

__all__ = ["EVENTS", "LABEL", "UPDATES", "Journals", "refuse_old_run", "refuse_running"]

UPDATES: Final = "updates.csv"
"""Holds a row per update. Its lock keeps other processes out of the folder."""
EVENTS: Final = "events.jsonl"
LABEL: Final = "curriculum"
"""Last column of updates.csv: what the curriculum calls the batch."""
_OLD_RUN = "holds a run already; resume it if it has a checkpoint, name another folder, or move it away"
_GOES_ON = "holds a run that still goes on, in another process"


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

    def columns(self) -> list[str]:
        """Return the columns that the first line names."""
        return next(csv.reader([self._whole_lines()[0].decode()]))

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


class Journals:
    """The growing files of a run in ``folder``, which is made, and its config.json.

    ``columns``: group of each column of updates.csv, by name; a last column takes the label of the batch. A run goes on
    in its folder if ``resumed`` tells how many lines each file had; ``episodes`` are those learned until then. What a
    full disk refuses is written with what comes next; ``warn`` is told once. Only TensorBoard's files end there.

    Raises ConfigError if the folder holds a run already, or cannot be written to; it can then be tried again.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        columns: Mapping[str, str],
        *,
        tensorboard: bool = False,
        warn: Callable[[str], None] = lambda _: None,
        resumed: Mapping[str, int] | None = None,
        episodes: int = 0,
    ) -> None:
        self.folder = folder
        self._columns, self._warn, self._is_full, self._is_closed = columns, warn, False, False
        self._header = _row([*columns, LABEL])
        make_board = _tensorboard_writer() if tensorboard else None
        self._journals: dict[str, _Journal] = {}
        with contextlib.ExitStack() as undo:
            undo.callback(self._close_journals)
            try:
                if resumed is None:
                    self._claim(undo)
                self._open_journals(resumed)
                write_whole(folder / "config.json", json.dumps(config, indent=2, default=str).encode() + b"\n")
                after = None if resumed is None else episodes + 1
                self._board: Any = None if make_board is None else make_board(str(folder), purge_step=after)
            except (FileExistsError, BlockingIOError) as error:  # claimed by another run since
                raise ConfigError(f"run-dir: {folder} {_OLD_RUN if resumed is None else _GOES_ON}") from error
            except OSError as error:
                raise ConfigError(f"run-dir: {folder} cannot be written to: {error.strerror}") from error
            undo.pop_all()

    def _claim(self, undo: contextlib.ExitStack) -> None:
        refuse_old_run(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        updates = self.folder / UPDATES
        updates.touch(exist_ok=False)
        undo.callback(updates.unlink)
        write_whole(updates, self._header.encode())

    def _open_journals(self, resumed: Mapping[str, int] | None) -> None:
        """Open all files, the one that keeps other processes out first; cut off what came after a checkpoint."""
        for name in {UPDATES: 0, EVENTS: 0, **(resumed or {})}:
            journal = self._journals[name] = _Journal(self.folder / name)
            if resumed is not None:
                wanted = resumed.get(name, 0)
                if journal.lines < wanted:
                    self._warn(f"{name} has {journal.lines} lines, where {wanted} were written: some are lost")
                journal.cut(wanted)
            if name == UPDATES and not journal.lines:  # all are lost
                journal.append(self._header)

    def update(self, row: Mapping[str, float | int | None], label: str = "") -> None:
        """Write a row about an update, with the label of its batch."""
        self._append(UPDATES, _row([*(_short(row[name]) for name in self._columns), label]))
        if self._board is not None:
            try:
                for name, group in self._columns.items():
                    if (value := row[name]) is not None and not math.isnan(value):
                        self._board.add_scalar(f"{group}/{name}", value, row["episodes"])
            except OSError as error:  # of its thread, which has ended by it
                self._board = None
                self._warn(f"the TensorBoard files in {self.folder} end here: {error.strerror or error}")

    def row(self, name: str, values: Mapping[str, Any]) -> None:
        """Write a row to the CSV file ``name``, under a header if it is the first.

        Raises ValueError for values that are not those of the header.
        """
        journal = self._journals.get(name)
        columns = list(values) if journal is None or not journal.lines else journal.columns()
        if set(columns) != set(values):
            raise ValueError(f"a row of {name} has the columns {', '.join(columns)}, not {', '.join(values)}")
        row = _row(values[column] for column in columns)
        self._append(name, row if journal is not None and journal.lines else _row(columns) + row)

    def event(self, kind: str, **details: Any) -> None:
        """Write a line about something that happened, with the time."""
        line = json.dumps({"time": round(time.time(), 3), "event": kind, **details}, default=str) + "\n"
        self._append(EVENTS, line)

    def _append(self, name: str, lines: str) -> None:
        if self._is_closed:
            return
        try:
            if name not in self._journals:
                self._journals[name] = _Journal(self.folder / name)
                self._journals[name].cut(0)  # what was written after the checkpoint that the run goes on from
            self._journals[name].append(lines)
        except OSError as error:
            if not self._is_full:
                self._is_full = True  # first, for the warning is an event
                self._warn(f"{self.folder / name} cannot be written to now, and will be later: {error.strerror}")
        else:
            self._is_full = False

    def lines(self) -> dict[str, int]:
        """Return how many lines each file has, for ``resumed``."""
        return {name: journal.lines for name, journal in self._journals.items()}

    def sync(self) -> None:
        """Have everything on disk. Raises OSError."""
        for journal in self._journals.values():
            journal.sync()

    def close(self) -> None:
        """Close the files; what is written later is dropped. Raises OSError if something could not be written."""
        self._is_closed = True
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
    if (folder / UPDATES).exists():
        raise ConfigError(f"run-dir: {folder} {_OLD_RUN}")


def _row(values: Iterable[Any]) -> str:
    """A row of a CSV file."""
    text = io.StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue()


def _short(value: float | int | None) -> float | int | str:
    """Return six significant digits, enough for a file that people read; nothing for None."""
    if value is None:
        return ""
    return value if isinstance(value, int) else float(f"{value:.6g}")


def refuse_running(folder: Path) -> None:
    """Raise ConfigError if the run in ``folder`` still goes on, or its files cannot be written to."""
    try:
        _Journal(folder / UPDATES).close()
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

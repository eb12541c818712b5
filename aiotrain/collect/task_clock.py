"""A clock for tasks that other processes play: since when each process is at its task, told through shared memory."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from aiotrain.collect.protocol import CollectorSettings
from aiotrain.transport.segments import Segment

__all__ = ["TaskClock", "not_counted"]

_ROW = np.dtype([("began_s", np.float64), ("is_playing", np.bool_), ("task", np.int64)])
_NONE = -1  # no task


class TaskClock:
    """Says of each worker which task it is at, and since when. Workers write, the main process reads.

    Pickled, it travels to workers on this host, where it is attached.
    """

    def __init__(self, segment: Segment, settings: CollectorSettings) -> None:
        self._segment, self._settings = segment, settings
        self._rows: npt.NDArray[Any] = segment.arrays["rows"]

    @classmethod
    def create(cls, settings: CollectorSettings) -> TaskClock:
        """Create a clock for ``settings.workers`` workers. Raises SharedMemoryError."""
        clock = cls(Segment.create({"rows": ((settings.workers,), _ROW)}, purpose="the clock of tasks"), settings)
        clock._rows["task"] = _NONE
        return clock

    def __reduce__(self) -> Any:
        return _attach, (self._segment.name, self._settings)

    def close(self) -> None:
        """Remove the segment if it was created here. May be called twice."""
        self._segment.close()

    # ---------------------------------------------------------------- in the worker

    def take(self, worker: int, task: int) -> None:
        """Note that the worker has taken the task, for which it now makes what it lacks."""
        self._rows[worker] = (time.monotonic(), False, task)

    def begin(self, worker: int) -> None:
        """Note that episodes begin, or go on in further slots."""
        self._rows["began_s"][worker] = time.monotonic()
        self._rows["is_playing"][worker] = True

    def not_counted(self, worker: int) -> contextlib.AbstractContextManager[None]:
        """Have what the body makes not count to the episodes that are playing."""
        limit_s = self._settings.start_timeout_s if self._rows["is_playing"][worker] else 0.0
        return not_counted(self._rows["began_s"], worker, limit_s)

    # ---------------------------------------------------------- in the main process

    def workers_at(self, task: int) -> list[int]:
        """Return the worker that is at the task, or was last, if there is one."""
        at: list[int] = np.flatnonzero(self._rows["task"] == task).tolist()
        return at

    def task_of(self, worker: int) -> int:
        """Return the task that the worker is at or was last; -1 if there was none."""
        return int(self._rows["task"][worker])

    def fault(self, worker: int, task: int, sent_s: float) -> str:
        """Return why the worker has taken too long for the task, which it could take since ``sent_s``; else empty."""
        row, settings = self._rows[worker].copy(), self._settings
        is_taken = row["task"] == task
        if is_taken and row["is_playing"]:
            return settings.hung if time.monotonic() - row["began_s"] > settings.episode_timeout_s else ""
        since_s = row["began_s"] if is_taken else sent_s
        return settings.not_ready if time.monotonic() - since_s > settings.start_timeout_s else ""


@functools.cache
def _attach(name: str, settings: CollectorSettings) -> TaskClock:
    return TaskClock(Segment.attach(name, {"rows": ((settings.workers,), _ROW)}), settings)


@contextlib.contextmanager
def not_counted(began_s: npt.NDArray[Any], where: Any, at_most_s: float) -> Iterator[None]:
    """Have what the body takes, up to ``at_most_s``, not count to what began at the times ``began_s[where]``.

    They are in shared memory: whoever watches them sees no time pass meanwhile.
    """
    now_s = time.monotonic()
    began_s[where] += at_most_s
    try:
        yield
    finally:
        began_s[where] -= max(0.0, at_most_s - (time.monotonic() - now_s))

"""The phase of a run, and its warnings, errors and events."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["RunEvents"]

_KEPT = 100


class RunEvents:
    """Keeps what happened for whoever asks, and writes it down; events before `write_by` are written then."""

    def __init__(self) -> None:
        self.phase = "starting"
        """As of status.Status."""
        self.warnings: deque[str] = deque(maxlen=_KEPT)
        """The last ones."""
        self.warnings_count = 0
        """How many there were in all."""
        self.first_error: str | None = None
        self._ending = ""  # the phase at the end, where it is not that of a run left in order
        self._write: Callable[..., None] | None = None
        self._unwritten: deque[tuple[str, dict[str, Any]]] = deque(maxlen=_KEPT)  # a run without a folder never does

    def write_by(self, write: Callable[..., None]) -> None:
        """From now on, hand each event to ``write``: its kind, and its details by keyword."""
        self._write = write
        while self._unwritten:
            kind, details = self._unwritten.popleft()
            write(kind, **details)

    def note(self, kind: str, **details: Any) -> None:
        """Note that something happened."""
        if self._write is None:
            self._unwritten.append((kind, details))
        else:
            self._write(kind, **details)

    def warn(self, text: str) -> None:
        """Note that something went wrong, and does not end the run."""
        self.warnings.append(text)
        self.warnings_count += 1
        self.note("warning", message=text)

    def error(self, error: BaseException) -> None:
        """Note that something ends the run."""
        self.phase = "stopping"
        if isinstance(error, asyncio.CancelledError | KeyboardInterrupt | GeneratorExit):
            self._ending = self._ending or "interrupted"
            self.note("interrupted")
        elif (text := f"{type(error).__name__}: {error}") != self.first_error:  # not noted when it ended the gathering
            self._ending = "failed"
            self.first_error = self.first_error or text
            self.note("error", type=type(error).__name__, message=str(error))

    def end(self, phase: str) -> None:
        """Note that the run has ended, in ``phase`` unless something ended it."""
        self.phase = self._ending or phase

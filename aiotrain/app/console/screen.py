"""A terminal's alternate screen, redrawn line by line, and the output kept away from it while it is in use."""

from __future__ import annotations

import io
import os
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self, TextIO

# Alternate screen, no cursor, no wrapping: the last cell of the screen can be written without scrolling it.
_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
LEAVE: Final = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_REPAINT_EVERY: Final = 10  # redraws; whatever a child process wrote over the frame is gone after these
_HELD_LINES: Final = 500
_LOG_BYTES: Final = 2**24
_Kind = type[BaseException] | None
_Trace = TracebackType | None


class Screen:
    """Draws frames on the alternate screen: scrollback stays clean, and resizing leaves nothing behind.

    Only lines that changed are written. Leaving gives the terminal back as it was.
    """

    def __init__(self, terminal: IO[str]) -> None:
        self._terminal = terminal
        self._shown: list[str] = []
        self._size = (0, 0)
        self._redraws = 0

    def __enter__(self) -> Self:
        self._write(_ENTER)
        return self

    def __exit__(self, kind: _Kind, error: BaseException | None, trace: _Trace) -> None:
        self._write(LEAVE)

    def draw(self, lines: Sequence[str], size: tuple[int, int]) -> None:
        """Show `lines` (each already as wide as the screen) on a screen of `size` columns and lines."""
        written = []
        if size != self._size or self._redraws % _REPAINT_EVERY == 0 or len(lines) < len(self._shown):
            self._shown = []
            written.append("\x1b[2J" if size != self._size or self._redraws else "")
        for number, line in enumerate(lines):
            if number >= len(self._shown) or line != self._shown[number]:
                written.append(f"\x1b[{number + 1};1H{line}")
        self._shown, self._size = list(lines), size
        self._redraws += 1
        self._write("".join(written))

    def _write(self, text: str) -> None:
        self._terminal.write(text)
        self._terminal.flush()


class HeldOutput(io.TextIOBase):
    """Stands in for `sys.stdout` and `sys.stderr` while frames are drawn, and keeps what is written there.

    A line printed over a frame spoils it and is painted over a moment later; held back, it can be read after
    the end. The oldest lines are dropped beyond a bound.
    """

    encoding = "utf-8"

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_HELD_LINES)
        self._rest = ""
        self._replaced: tuple[TextIO, TextIO] | None = None

    def __enter__(self) -> Self:
        self._replaced = (sys.stdout, sys.stderr)
        sys.stdout = sys.stderr = self
        return self

    def __exit__(self, kind: _Kind, error: BaseException | None, trace: _Trace) -> None:
        if self._replaced:
            # whoever has replaced them meanwhile keeps theirs
            sys.stdout = self._replaced[0] if sys.stdout is self else sys.stdout
            sys.stderr = self._replaced[1] if sys.stderr is self else sys.stderr

    def isatty(self) -> bool:
        """Say no, so that nobody colours or animates what is read later."""
        return False

    def writable(self) -> bool:
        """Say yes."""
        return True

    def write(self, text: str) -> int:
        """Keep `text`; a line that is overwritten by carriage returns is kept in its last form."""
        *lines, self._rest = (self._rest + text).split("\n")
        self._rest = self._rest.rpartition("\r")[2]
        self._lines.extend(line.removesuffix("\r").rpartition("\r")[2] for line in lines)
        return len(text)

    def text(self) -> str:
        """Return what was kept, ending in a line break unless empty."""
        lines = [*self._lines, self._rest] if self._rest else list(self._lines)
        return "".join(f"{line}\n" for line in lines)


class DivertedOutput:
    """Appends what child processes and compiled code write to standard output and error to a file, until closed.

    They would write over the frame. Children inherit the file as their output and keep it for good. `sys.stdout` and
    `sys.stderr` of this process still lead to the terminal, whose file descriptor is `terminal`. Raises OSError if the
    file, or its folder, cannot be made or is a link.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._streams = sys.stdout, sys.stderr
        for stream in self._streams:
            stream.flush()
        self._made_folder = not path.parent.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
        self._before = os.fstat(log).st_size
        self._kept = []
        for number, stream in enumerate(self._streams, 1):
            kept = open(os.dup(number), "w", encoding=stream.encoding, errors=stream.errors, buffering=1)  # noqa: SIM115
            self._kept.append(kept)
            os.dup2(log, number)
        os.close(log)
        sys.stdout, sys.stderr = self._kept
        self.terminal = sys.stdout.fileno()

    def trim(self) -> None:
        """Empty the file if it has become too large; what is written next begins it anew."""
        if os.fstat(1).st_size > _LOG_BYTES:
            os.ftruncate(1, 0)

    def close(self) -> bool:
        """Give standard output and error back, and say whether anything was written to the file; if not, remove it."""
        sys.stdout, sys.stderr = self._streams
        written = os.fstat(1).st_size
        for number, kept in enumerate(self._kept, 1):
            with suppress(OSError):  # the terminal was closed
                kept.flush()
            os.dup2(kept.fileno(), number)
            with suppress(OSError):
                kept.close()
        if not written:
            self._path.unlink(missing_ok=True)
            if self._made_folder:
                with suppress(OSError):  # it holds a run
                    self._path.parent.rmdir()
        return written != self._before

"""Keeps a terminal up to date while a run lives; for where there is none, a log with one plain line per update."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from rich.console import Console, RenderableType

from aiotrain.app.console import charts
from aiotrain.app.console.frame import render
from aiotrain.app.console.screen import HeldOutput, Screen
from aiotrain.app.console.text_report import plain_line
from aiotrain.domains import Panel
from aiotrain.training.status import Status

REDRAWS_PER_S: Final = 4.0
"""How often a terminal is redrawn, per second. The numbers are means over seconds."""


def can_draw(console: Console) -> bool:
    """Return whether `console` is a terminal that can show frames."""
    return console.is_terminal and not console.is_dumb_terminal and console.encoding.startswith("utf")


async def show(
    get_status: Callable[[], Status],
    console: Console,
    panel: Panel | None = None,
    *,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Draw a run on a terminal until its phase says that it is over, or until cancelled.

    Frames are drawn on the alternate screen; the last one stays on the normal screen, followed by what was printed
    meanwhile. When the terminal goes away, drawing ends and the run goes on.

    `get_status` is called on the event loop; drawing happens in a thread, because a terminal may block
    (a slow connection, Ctrl-S). `panel` shows the curriculum. `sleep` waits between redraws, in seconds; tests give
    their own.
    """
    with suppress(OSError):  # the terminal was closed: nobody is looking
        await _frames(get_status, console, panel, sleep)


class PlainLog:
    """Writes what is new about a run as lines of text, for a log or a terminal that cannot show frames.

    When whoever reads it has gone, the log ends and the run goes on.
    """

    def __init__(self, console: Console, panel: Panel | None = None) -> None:
        self._console = console
        self._panel = panel
        self._warnings = 0
        self._first_error: str | None = None
        self._updates = 0
        self._closed = False

    def write(self, status: Status) -> None:
        """Write the warnings, the first error and the plain line of the update that were not written yet."""
        unseen = status.warnings_count - self._warnings
        news = [f"warning: {_brief(text)}" for text in status.warnings[-unseen:]] if unseen else []
        if status.first_error and not self._first_error:
            news.append(f"error: {_brief(status.first_error)}")
        if status.updates > self._updates:
            news.append(plain_line(status, self._panel))
        self._warnings, self._first_error, self._updates = status.warnings_count, status.first_error, status.updates
        if not news or self._closed:
            return
        encoding = self._console.encoding
        # a log may be in any encoding, and a warning must not fail for the sake of a letter
        lines = [charts.printable(line).encode(encoding, "replace").decode(encoding) for line in news]
        try:
            self._console.file.write("".join(f"{line}\n" for line in lines))
            self._console.file.flush()
        except OSError:
            self._closed = True


async def _frames(
    get_status: Callable[[], Status],
    console: Console,
    panel: Panel | None,
    sleep: Callable[[float], Awaitable[object]],
) -> None:
    loop = asyncio.get_running_loop()
    terminal = console.file  # before standard output is held back
    held = HeldOutput()
    status = get_status()
    try:
        with (
            held,
            Screen(terminal) as screen,
            # Left before the screen is: the thread may still be drawing when the task is cancelled.
            ThreadPoolExecutor(1, thread_name_prefix="aiotrain-console") as thread,
        ):
            while True:
                await loop.run_in_executor(thread, _draw, console, screen, status, panel)
                if status.over:
                    break
                await sleep(1 / REDRAWS_PER_S)
                status = get_status()
    finally:
        # One line less than the screen has, for the prompt.
        width, height = console.size
        last = get_status()
        # What failed before it has learned anything has no numbers: the error shall stand alone.
        nothing = last.phase == "failed" and not last.updates
        terminal.write(("" if nothing else ansi(console, render(last, width, height - 1, panel))) + held.text())
        terminal.flush()


def _draw(console: Console, screen: Screen, status: Status, panel: Panel | None) -> None:
    width, height = console.size
    screen.draw(ansi(console, render(status, width, height, panel)).splitlines(), (width, height))


def ansi(console: Console, frame: RenderableType) -> str:
    """Return a frame as text for the terminal of ``console``, with its colours."""
    # On a console of its own: one whose terminal was closed ends the process, even while it captures.
    canvas = Console(
        file=io.StringIO(),
        force_terminal=True,
        color_system=console.color_system,  # type: ignore[arg-type]  # a property of type str
        no_color=console.no_color,
        legacy_windows=False,
        width=80,  # which a frame does not ask for
        height=24,
        _environ={},
    )
    with canvas.capture() as capture:
        canvas.print(frame, end="", crop=False)
    return capture.get()


def _brief(text: str) -> str:
    """Return `text` on one line. Of a traceback, the first line says where it belongs and the last what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ... ".join([lines[0], lines[-1]] if len(lines) > 1 else lines)

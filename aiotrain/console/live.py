"""Keeps a terminal up to date while a run lives; where there is none, writes one plain line per update."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from rich.console import Console

from aiotrain.console import charts
from aiotrain.console.frame import render
from aiotrain.console.report import plain_line
from aiotrain.console.screen import HeldOutput, Screen
from aiotrain.status import Status

REDRAWS_PER_S: Final = 4.0
"""How often a terminal is redrawn, per second. The numbers are means over seconds."""
_OVER: Final = frozenset({"finished", "stopped", "interrupted", "failed"})


async def show(
    get_status: Callable[[], Status],
    console: Console,
    *,
    plain: bool = False,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Show a run until its phase says that it is over, or until cancelled.

    On a terminal: frames on the alternate screen; the last one stays on the normal screen, followed by what
    was printed meanwhile. Without a terminal, on one that cannot show the frame, or with `plain`: a plain
    line for each update, warning and error. When the terminal goes away, showing ends and the run goes on.

    `get_status` is called on the event loop; drawing happens in a thread, because a terminal may block
    (a slow connection, Ctrl-S). `sleep` waits between redraws, in seconds; tests give their own.
    """
    drawable = console.is_terminal and not console.is_dumb_terminal and console.encoding.startswith("utf")
    with suppress(OSError):  # the terminal or the pipe was closed: nobody is looking
        if plain or not drawable:
            await _lines(get_status, console, sleep)
        else:
            await _frames(get_status, console, sleep)


async def _frames(
    get_status: Callable[[], Status], console: Console, sleep: Callable[[float], Awaitable[object]]
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
                await loop.run_in_executor(thread, _draw, console, screen, status)
                if status.phase in _OVER:
                    break
                await sleep(1 / REDRAWS_PER_S)
                status = get_status()
    finally:
        # One line less than the screen has, for the prompt.
        width, height = console.size
        terminal.write(_ansi(console, get_status(), width, height - 1) + held.text())
        terminal.flush()


def _draw(console: Console, screen: Screen, status: Status) -> None:
    width, height = console.size
    screen.draw(_ansi(console, status, width, height).splitlines(), (width, height))


def _ansi(console: Console, status: Status, width: int, height: int) -> str:
    # On a console of its own: one whose terminal was closed ends the process, even while it captures.
    canvas = Console(
        file=io.StringIO(),
        force_terminal=True,
        color_system=console.color_system,  # type: ignore[arg-type]  # a property of type str
        no_color=console.no_color,
        legacy_windows=False,
        width=width,
        height=height,
        _environ={},
    )
    with canvas.capture() as capture:
        canvas.print(render(status, width, height), end="", crop=False)
    return capture.get()


async def _lines(
    get_status: Callable[[], Status], console: Console, sleep: Callable[[float], Awaitable[object]]
) -> None:
    seen: Status | None = None
    try:
        while seen is None or seen.phase not in _OVER:
            if seen is not None:
                await sleep(1 / REDRAWS_PER_S)
            status = get_status()
            _write_news(console, seen, status)
            seen = status
    except asyncio.CancelledError:
        _write_news(console, seen, get_status())
        raise


def _write_news(console: Console, seen: Status | None, status: Status) -> None:
    """Write what `status` has and `seen` had not yet."""
    news = [f"warning: {text}" for text in _added(seen.warnings if seen else (), status.warnings)]
    if status.first_error and not (seen and seen.first_error):
        news.append(f"error: {status.first_error}")
    if status.updates > (seen.updates if seen else 0):
        news.append(plain_line(status))
    for line in news:
        # a log may be in any encoding, and a warning must not fail for the sake of a letter
        line = charts.printable(line).encode(console.encoding, "replace").decode(console.encoding)
        console.file.write(f"{line}\n")
    if news:
        console.file.flush()


def _added(old: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...]:
    """Return the texts at the end of `new` that `old` did not have; the oldest may have been dropped."""
    for start in range(len(old) + 1):
        kept = old[start:]
        if new[: len(kept)] == kept:
            return new[len(kept) :]
    return new

"""Shows an episode in a terminal, by itself or by keys."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal, Self

from rich.console import Console

from aiotrain.app.console.lines import Frame
from aiotrain.app.console.live import ansi
from aiotrain.app.console.screen import Screen

__all__ = ["Key", "Keys", "watch"]

Render = Callable[[int, int, int, bool], Frame]
"""``(place, width, height, keys)``: draws the frame at this place in the episode; ``keys``: with a legend of keys."""
Key = Literal["", "pause", "on", "back", "quit"]
"""What a pressed key asks for; empty: none was pressed."""

_PATIENCE_S: Final = 0.25
"""How soon it is seen that the terminal has another size."""
_KEY: Final = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
_MEANING: Final[dict[bytes, Key]] = {
    b" ": "pause",
    **dict.fromkeys((b"\r", b"\n", b"\x1b[C", b"\x1bOC"), "on"),
    **dict.fromkeys((b"\x1b[D", b"\x1bOD"), "back"),
    b"q": "quit",
}


class Keys:
    """Within it, keys of the terminal that is standard input are read as they are pressed, without Enter.

    Where standard input is no terminal, nobody presses any.
    """

    def __enter__(self) -> Self:
        self._pressed: deque[Key] = deque()
        self._terminal = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        if self._terminal is not None:
            self._before = termios.tcgetattr(self._terminal)
            tty.setcbreak(self._terminal)
        return self

    def __exit__(self, *error: object) -> None:
        if self._terminal is not None:
            with suppress(termios.error):  # it was closed
                termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._before)

    def wait(self, seconds: float) -> Key:
        """Return the next key that means something, pressed within so many seconds; empty if there is none."""
        if self._pressed:
            return self._pressed.popleft()
        if self._terminal is None:
            time.sleep(seconds)
        else:
            until = time.monotonic() + seconds
            while not self._pressed and select.select([self._terminal], [], [], max(0, until - time.monotonic()))[0]:
                read = os.read(self._terminal, 1024)
                if not read:
                    return "quit"  # the terminal is gone
                self._pressed.extend(_MEANING[key] for key in _KEY.findall(read) if key in _MEANING)
        return self._pressed.popleft() if self._pressed else ""


def watch(
    render: Render, count: int, console: Console, *, fps: float, paused: bool, wait: Callable[[float], Key]
) -> None:
    """Show ``count`` frames of an episode one after the other on the alternate screen of a terminal.

    It goes on at ``fps`` frames a second, or if ``paused`` by keys alone, until the last one is passed or somebody
    quits; that frame stays on the normal screen. ``wait`` gives the next key, or "" after the seconds it is given.
    """
    at, left_s = 0, 1 / fps
    with Screen(console.file) as screen:
        while at < count:
            width, height = console.size
            screen.draw(ansi(console, render(at, width, height, True)).splitlines(), (width, height))
            pause_s = _PATIENCE_S if paused else min(left_s, _PATIENCE_S)
            match wait(pause_s):
                case "quit":
                    break
                case "pause":
                    paused, left_s = not paused, 1 / fps
                case "on":
                    paused, at = True, at + 1
                case "back":
                    paused, at = True, max(0, at - 1)
                case "" if not paused:
                    left_s -= pause_s
                    if left_s <= 0:
                        at, left_s = at + 1, 1 / fps
    width, height = console.size
    last = render(min(at, count - 1), width, height - 1, False)  # a line less, for the prompt
    console.file.write(ansi(console, last))
    console.file.flush()

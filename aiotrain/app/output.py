"""Standard output, as the command line writes to it."""

from __future__ import annotations

import contextlib
import os
import sys

from rich.console import Console, ConsoleDimensions

__all__ = ["Output"]


class Output(Console):
    """Writes to standard output and takes no text for markup. It falls silent when the reader has gone."""

    terminal = 1
    """File descriptor of what it writes to."""

    def __init__(self) -> None:
        super().__init__(highlight=False, markup=False, emoji=False)

    @property  # type: ignore[misc]  # the one of the base class can be set
    def size(self) -> ConsoleDimensions:
        """Return columns and lines of this terminal rather than of the one that the process was started with."""
        with contextlib.suppress(OSError):
            if all(size := os.get_terminal_size(self.terminal)):
                return ConsoleDimensions(*size)
        return super().size

    def on_broken_pipe(self) -> None:
        """Write nothing more."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter's last flush fails

"""The program: training by flags alone, commands by their names, and the exit codes.

Exit codes: 0 the budget was used up; 1 the run failed; 2 it could not start as configured; 129, 130 and 143 it was
ended by a closed terminal, by Ctrl-C and by SIGTERM.
"""

from __future__ import annotations

import atexit
import bdb
import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Final, NoReturn

from rich.console import Console

from aiotrain.app.commands import command
from aiotrain.app.console import printable_lines
from aiotrain.app.train_command import train
from aiotrain.domains import DomainLeftOut
from aiotrain.errors import AiotrainError, CheckpointError, ConfigError, EnvError, SharedMemoryError

__all__ = ["main", "run"]

_PYTHONS: Final = warnings.formatwarning
_MAKE_NO_ENVIRONMENT: Final = ("plot", "export")


def run() -> NoReturn:
    """Run `main` as the program, and end the process with its exit code.

    It ends right after the exit handlers: Python would take another second to take torch apart.
    """
    warnings.formatwarning = _formatted
    code = main()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # whoever reads it has gone
            stream.flush()
    os._exit(code)


def _formatted(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Return the text of a warning: a line alone where it is not the code's author that it is for."""
    if issubclass(category, DomainLeftOut):
        return f"aiotrain: {printable_lines(str(message))}\n"
    return _PYTHONS(message, category, filename, lineno, line)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, or carry out a command, as ``arguments`` say (default: those of the process); return the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    errors = Console(stderr=True, highlight=False, markup=False, emoji=False)
    errors.soft_wrap = not errors.is_terminal  # a terminal breaks lines between words, a log keeps them whole
    try:
        return _carry_out(arguments)
    except (CheckpointError, ConfigError, EnvError, SharedMemoryError) as error:
        errors.print(f"aiotrain: {printable_lines(str(error))}", style="red")
        return 2
    except AiotrainError as error:
        errors.print(f"aiotrain: {printable_lines(str(error))}", style="red")
        return 1
    except BrokenPipeError:  # whoever reads the help has gone
        return 128 + signal.SIGPIPE
    # Before the run has taken over the signals, or after it, and nobody else has done so.
    except (KeyboardInterrupt, bdb.BdbQuit):
        return 128 + signal.SIGINT


def _carry_out(arguments: Sequence[str]) -> int:
    name = next(iter(arguments), "-")
    if name not in _MAKE_NO_ENVIRONMENT and (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)  # as python -m does: a module:factory may lie in the folder you start in
    return train(arguments) if name.startswith("-") else command(name, arguments[1:])(arguments[1:])

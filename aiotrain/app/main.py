"""The command line: training, pictures, evaluations, replays and exports, their signals and exit codes.

Exit codes: 0 the budget was used up; 1 the run failed; 2 it could not start as configured; 129, 130 and 143 it was
ended by a closed terminal, by Ctrl-C and by SIGTERM.
"""

from __future__ import annotations

import atexit
import bdb
import contextlib
import dataclasses
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, NoReturn

import tyro
from rich.console import Console

from aiotrain.app.console import printable, printable_lines
from aiotrain.app.evaluate_command import evaluate
from aiotrain.app.export_command import export
from aiotrain.app.replay_command import replay
from aiotrain.app.train_command import Arguments, train
from aiotrain.errors import AiotrainError, CheckpointError, ConfigError, EnvError, SharedMemoryError, unknown_name

__all__ = ["Arguments", "main", "run"]

_COMMANDS: Final = ("plot", "evaluate", "replay", "export")


@dataclasses.dataclass(frozen=True)
class PlotArguments:
    """Draw a run's return, and a search's orders, into PNG files in its folder, while it goes on or afterwards."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""


def run() -> NoReturn:
    """Be the program: ``main``, and an end with its exit code.

    After what is registered to be done at the end, Python itself would take a second to take torch apart.
    """
    code = main()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # whoever reads it has gone
            stream.flush()
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, plot, evaluate, replay or export as ``arguments`` say (default: those of the process); the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    errors = Console(stderr=True, highlight=False, markup=False, emoji=False)
    errors.soft_wrap = not errors.is_terminal  # a terminal breaks lines between words, a log keeps them whole
    try:
        if arguments[:1] == ["plot"]:
            return _plot(tyro.cli(PlotArguments, prog="aiotrain plot", args=arguments[1:]).run)
        if arguments[:1] == ["export"]:
            return export(arguments[1:])
        if (here := os.getcwd()) not in sys.path:
            sys.path.insert(0, here)  # as python -m does: a module:factory may lie in the folder you start in
        if arguments[:1] == ["evaluate"]:
            return evaluate(arguments[1:])
        if arguments[:1] == ["replay"]:
            return replay(arguments[1:])
        if arguments and not arguments[0].startswith("-"):
            raise ConfigError(f"{unknown_name('command', arguments[0], _COMMANDS)}; training has flags alone")
        return train(arguments)
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


def _plot(run: Path) -> int:
    """Draw the pictures of a run, and say where they are."""
    from aiotrain.runs.plot import plot_run

    for path in plot_run(run):
        print(printable(str(path)))
    return 0

"""Evaluating: flags to an evaluation, its table and its file."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from aiotrain.app.console import printable
from aiotrain.app.output import Output
from aiotrain.app.signals import SignalsInterrupt
from aiotrain.errors import ConfigError, documented

if TYPE_CHECKING:
    from rich.console import RenderableType

    from aiotrain.runs.evaluation_episodes import Progress

__all__ = ["EvaluateArguments", "evaluate", "show_evaluation"]

_LOG_WIDTH = 120  # columns of tables that go to no terminal


@documented
@dataclasses.dataclass(frozen=True)
class EvaluateArguments:
    """Play episodes with the policy of a finished run: its mean return, and how sure that is."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or one of its checkpoints."""
    episodes: int = 100
    """Episodes to play."""
    greedy: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Take the most probable action. Default: draw it, as training does, so that its returns can be compared."""
    seed: int = 0
    """Seed of all randomness; none repeats episodes of the training."""
    env: str | None = None
    """Environment, where the run's cannot be found again: a Gymnasium id, or module:factory."""
    max_episode_steps: int | None = None
    """Truncate episodes after so many steps, where some never end. Default: as in training."""
    json: Path | None = None
    """File for the numbers. Default: evaluation.json in the run's folder, if that is named."""


def evaluate(arguments: Sequence[str]) -> int:
    """Evaluate as ``arguments`` say, show what came of it, and write it down; the exit code. Raises AiotrainError."""
    chosen = tyro.cli(EvaluateArguments, prog="aiotrain evaluate", args=arguments)

    def play(progress: Progress) -> tuple[RenderableType, Mapping[str, Any]]:
        from aiotrain.app.console.score_tables import evaluation_table
        from aiotrain.runs import evaluate as evaluating

        how = {name: value for name, value in vars(chosen).items() if name not in ("run", "json")}
        evaluation = evaluating.evaluate(chosen.run, **how, progress=progress)
        return evaluation_table(evaluation), {**evaluation.settings, **evaluation.summary()}

    return show_evaluation(play, chosen.run, chosen.json)


def show_evaluation(
    play: Callable[[Progress], tuple[RenderableType, Mapping[str, Any]]], run: Path | None, path: Path | None
) -> int:
    """Evaluate with a bar of progress, show the table, and write the numbers to a file; return the exit code.

    ``play`` returns table and numbers. The file is ``path``, else evaluation.json in the folder ``run``, else there is
    none. Raises AiotrainError.
    """
    if path is None and run is not None and run.is_dir():
        path = run / "evaluation.json"
    if path is not None and ((path.exists() and not path.is_file()) or not os.access(path.parent, os.W_OK)):
        raise ConfigError(f"json: {path} cannot be written: name a file in a folder that can be written to")
    from rich.progress import Progress as Bars

    from aiotrain.runs.tensor_files import write_whole

    output = Output()
    if not output.is_terminal:
        output.width = _LOG_WIDTH
    signals = SignalsInterrupt()
    try:
        with signals, Bars(console=output, transient=True, disable=not output.is_terminal) as bars:
            bar = bars.add_task("playing", total=None)
            table, numbers = play(lambda count, of: bars.update(bar, completed=count, total=of))
    except KeyboardInterrupt:
        return 128 + signals.last
    output.print(table)
    if path is not None:
        try:
            write_whole(path, json.dumps(numbers, indent=2).encode() + b"\n")
        except OSError as error:
            raise ConfigError(f"json: {path} cannot be written: {error.strerror}") from error
        output.print(f"written to {printable(str(path))}", soft_wrap=True)
    return 0

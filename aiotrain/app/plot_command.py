"""Plotting: the pictures of a run, and where they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from aiotrain.app.console import printable

__all__ = ["plot"]


@dataclasses.dataclass(frozen=True)
class PlotArguments:
    """Draw what a run learned into PNG files in its folder, while it goes on or afterwards."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""


def plot(arguments: Sequence[str]) -> int:
    """Draw pictures as ``arguments`` say, and say where they are; the exit code. Raises AiotrainError."""
    chosen = tyro.cli(PlotArguments, prog="aiotrain plot", args=arguments)
    from aiotrain.runs.plot import plot_run

    for path in plot_run(chosen.run):
        print(printable(str(path)))
    return 0

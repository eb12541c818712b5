"""Exporting: flags to an export, and where its files are."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from aiotrain.app.console import printable
from aiotrain.errors import documented

__all__ = ["ExportArguments", "export", "print_paths"]


@documented
@dataclasses.dataclass(frozen=True)
class ExportArguments:
    """Write the policy of a run to files that need neither torch nor aiotrain.

    policy.safetensors: its weights, and what they mean.

    policy.onnx: the network, from observation to logits or Gaussian.

    agent.py: an agent on NumPy alone.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or a checkpoint in it."""
    folder: Path | None = None
    """Folder for the files; earlier exports there are replaced. Default: export (of a checkpoint: export-CHECKPOINT) in
    the run's folder."""
    formats: tuple[Literal["safetensors", "onnx", "numpy"], ...] | None = None
    """Which files to write (numpy: agent.py). Default: all, but onnx only where that package is installed."""
    greedy: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Let the agent take the most probable action. Default: it draws it, unless made as Agent(greedy=True)."""


def export(arguments: Sequence[str]) -> int:
    """Export as ``arguments`` say, and say where it is; the exit code. Raises AiotrainError."""
    chosen = tyro.cli(ExportArguments, prog="aiotrain export", args=arguments)
    from aiotrain.runs.export import export as exporting

    print_paths(exporting.export(**vars(chosen)), chosen)
    return 0


def print_paths(paths: Sequence[Path], chosen: ExportArguments) -> None:
    """Say where the files of an export are, and which one is missing that nobody has left out."""
    from aiotrain.runs.export.export import FILES

    for path in paths:
        print(printable(str(path)))
    if chosen.formats is None and len(paths) < len(FILES):
        print(f"without {FILES['onnx']}: the package onnx is not installed; pip install 'aiotrain[onnx]'")

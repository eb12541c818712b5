"""Exporting a run on CAGE 2: the flags of every export, and the order that the agent acts by."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tyro

from aiotrain.app.export_command import ExportArguments, print_paths
from aiotrain.errors import documented

__all__ = ["export"]


@documented
@dataclasses.dataclass(frozen=True)
class Cage2ExportArguments(ExportArguments):
    """Write the policy of a run to files that need neither torch nor aiotrain.

    policy.safetensors: its weights, and what they mean.

    policy.onnx: the network, from observation to logits or Gaussian.

    agent.py: an agent on NumPy alone; for CAGE 2, as its evaluation script takes it.
    """

    workflow: str | None = None
    """The order that the agent acts by. Default: the run's; of a search, the best in workflows.csv."""


def export(arguments: Sequence[str]) -> int:
    """Export as ``arguments`` say, and say where it is; the exit code. Raises AiotrainError."""
    chosen = tyro.cli(Cage2ExportArguments, prog="aiotrain export", args=arguments)
    from aiotrain.cage2 import trained_runs

    print_paths(trained_runs.export(**vars(chosen)), chosen)
    return 0

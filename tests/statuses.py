"""Statuses of runs that the console's tests draw, and frames as text."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from aiotrain.app.console import render
from aiotrain.collect.protocol import WorkerState, WorkerStatus
from aiotrain.domains import Line, Panel
from aiotrain.training.status import Status

__all__ = ["LOSSES", "SIZES", "Telling", "frame", "status"]

SIZES = [(80, 24), (110, 36), (160, 50)]
"""Columns and lines of terminals."""
LOSSES = {
    "policy_loss": -0.0123,
    "value_loss": 12.3,
    "entropy": 2.41,
    "approx_kl": 0.0087,
    "clip_fraction": 0.112,
    "explained_variance": 0.873,
    "learning_rate": 2.5e-4,
}
_CYCLE = [WorkerState.PLAYING] * 7 + list(WorkerState)


def status(workers: int = 100, **changes: Any) -> Status:
    """Return the status of a run in training with so many workers, with ``changes``."""
    default = Status(
        run_name="search-7",
        environment="CAGE 2 (compiled)",
        collector="shared_memory",
        device="cpu",
        phase="training",
        elapsed_s=754.2,
        remaining_s=3723.0,
        episodes_total=100_000,
        steps_total=None,
        episodes_finished=43_210,
        steps_finished=4_321_000,
        episodes_played=43_215,
        episodes_learned=43_000,
        episodes_waiting=210,
        episodes_discarded=3,
        episodes_lost=2,
        episodes_given_up=0,
        episodes_in_flight=120,
        episodes_per_s=74.3,
        steps_per_s=7430.0,
        mean_episodes_per_s=70.1,
        mean_steps_per_s=7010.0,
        episodes_per_s_history=tuple(float(second % 20) for second in range(120)),
        workers=tuple(WorkerStatus(_CYCLE[i % len(_CYCLE)], int(i == 17), 430 + i) for i in range(workers)),
        slots=256,
        slots_in_use=188,
        ring_bytes=12_900_000,
        policy_version=412,
        policy_lag=0.8,
        collect_share=0.27,
        learn_share=0.63,
        idle_share=0.1,
        worker_busy_share=0.58,
        returns=tuple((100 * i, -100.0 / i) for i in range(1, 431)),
        batch_episodes=50,
        metrics={},
        losses=LOSSES,
        updates=430,
        warnings=("Worker 17 was killed by signal 9; restarted.",),
        warnings_count=1,
        first_error=None,
    )
    if "warnings" in changes:
        changes.setdefault("warnings_count", len(changes["warnings"]))
    return dataclasses.replace(default, **changes)


def frame(shown: Status, width: int, height: int, panel: Panel | None = None) -> str:
    """Return the frame of a status as text without colours."""
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    with console.capture() as capture:
        console.print(render(shown, width, height, panel), end="", crop=False)
    return capture.get()


class Telling(Panel):
    """Shows the texts that the curriculum's status is."""

    def __init__(self, title: str = "difficulty") -> None:
        self.title = title

    def headline(self, status: list[str]) -> Line:
        return [(text, "value") for text in status[:1]]

    def lines(self, status: list[str], width: int, height: int) -> list[Line]:
        return [[("told ", "label"), (text, "good")] for text in status]

    def log(self, status: list[str]) -> Mapping[str, str]:
        return {"level": status[0], status[0]: "2"}

    def summary(self, status: list[str]) -> Mapping[str, str]:
        return {"difficulty": "\n".join(status)}

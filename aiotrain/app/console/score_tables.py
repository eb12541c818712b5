"""Evaluations as tables."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table

from aiotrain.app.console import charts
from aiotrain.runs.evaluate import Evaluation

__all__ = ["evaluation_table"]


def evaluation_table(evaluation: Evaluation) -> RenderableType:
    """Tell what was evaluated and what came of it, a line each."""
    table = Table.grid(padding=(0, 2))
    for name, value in evaluation.settings.items():
        table.add_row(_words(name), charts.printable(str(value)))
    numbers = evaluation.summary()
    mean = charts.mean_and_deviation(numbers.pop("mean_return"), numbers.pop("standard_error"))
    table.add_row("mean return", f"{mean} (standard error)", style="bold")
    for name, number in numbers.items():
        table.add_row(_words(name), charts.number(number) if isinstance(number, float) else f"{number:,}")
    return table


def _words(name: str) -> str:
    return name.replace("_", " ")

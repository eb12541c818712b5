"""What came of the official protocol, beside the leaderboard, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from aiotrain.app.console import charts
from aiotrain.cage2.official.evaluation import OfficialEvaluation
from aiotrain.cage2.official.protocol import CELLS, LEADERBOARD
from aiotrain.cage2.scenario import B_LINE_AGENT, MEANDER_AGENT, RED_AGENTS
from aiotrain.cage2.workflows import order_words
from aiotrain.runs.load_run import name_of

__all__ = ["official_tables"]

_LENGTHS = sorted({cell.steps for cell in CELLS})
_SHORT_NAMES = {B_LINE_AGENT: "B_line", MEANDER_AGENT: "Meander"}
"""Red agents with columns of their own; against the third, nearly all score 0."""


def official_tables(evaluation: OfficialEvaluation) -> RenderableType:
    """Tell what came of the official protocol of CAGE Challenge 2, and the leaderboard beside it."""
    settings = evaluation.settings
    name = charts.printable(str(settings["agent"] or name_of(Path(settings["run"]))))
    cells = Table(box=SIMPLE_HEAD, title=f"mean return ± standard error of {name}", title_justify="left")
    cells.add_column("red agent")
    for steps in _LENGTHS:
        cells.add_column(f"{steps} steps", justify="right", no_wrap=True)
    for red_agent in RED_AGENTS:
        each = [evaluation.cells[cell] for cell in CELLS if cell.red_agent == red_agent]
        cells.add_row(red_agent, *(f"{one.mean_return:,.2f} ± {one.standard_error:.2f}" for one in each))
    total, half_width = evaluation.total
    how = [f"{settings['episodes']:,} episodes a cell", f"simulator {settings['simulator']}"]
    how += [f"rules {settings['rules']}", *([f"{actions} actions"] if (actions := settings.get("actions")) else [])]
    if (workflow := settings.get("workflow", "none")) != "none":
        how.append(f"workflow {order_words(workflow)}")
    confidence = f" total {total:,.2f} ± {half_width:.2f}", "bold"
    return Group(
        cells,
        Text.assemble(confidence, " (95% confidence)\n ", ", ".join(how), "\n"),
        _leaderboard(name, evaluation),
        Text(_comparison(settings["rules"])),
    )


def _leaderboard(name: str, evaluation: OfficialEvaluation) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title="beside the leaderboard", title_justify="left")
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("team, method")
    table.add_column("total", justify="right", no_wrap=True)
    for cell in CELLS:
        if cell.red_agent in _SHORT_NAMES:
            table.add_column(f"{_SHORT_NAMES[cell.red_agent]}\n{cell.steps}", justify="right", no_wrap=True)
    table.add_column("Sleep\nall", justify="right", no_wrap=True)
    means = [one.mean_return for one in evaluation.cells.values()]
    table.add_row("", name, _total(*evaluation.total), *_columns(means), style="bold", end_section=True)
    for rank, entry in enumerate(LEADERBOARD, 1):
        who = f"{entry.team}, {entry.method}"
        table.add_row(str(rank), who, _total(entry.total, entry.half_width), *_columns(entry.means))
    return table


def _comparison(rules: str) -> str:
    source = "The leaderboard: github.com/cage-challenge/cage-challenge-2, 1,000 episodes a cell, 95% confidence, "
    if rules == "leaderboard":
        return source + "by the rules of CybORG at commit 606813b, as this."
    return source + (
        "by the rules of CybORG at commit 606813b. This was played by today's (rules main), which are harder against "
        "B_line: to compare, evaluate with --rules leaderboard."
    )


def _columns(means: Sequence[float]) -> list[str]:
    shown = [_score(mean) for mean, cell in zip(means, CELLS, strict=True) if cell.red_agent in _SHORT_NAMES]
    asleep = sum(mean for mean, cell in zip(means, CELLS, strict=True) if cell.red_agent not in _SHORT_NAMES)
    return [*shown, _score(asleep)]


def _total(total: float, half_width: float) -> str:
    return f"{_score(total)} ±{_score(half_width)}"


def _score(value: float) -> str:
    """Two digits after the point, fewer of large numbers, so that the table fits a terminal."""
    size = abs(value)
    digits = 2 if size < 100 else 1 if size < 1000 else 0
    return f"{round(value, digits) + 0.0:.{digits}f}"  # no -0.00

"""Pictures of a run on CAGE 2: its compliance beside the threshold, and what its search found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import numpy as np

from aiotrain.cage2.scenario import HOST_TYPES
from aiotrain.cage2.search.strategies import GpUcb
from aiotrain.cage2.search.workflow_curriculum import TRAININGS
from aiotrain.cage2.workflows import ORDER_INDEX, ORDERS, Order, parse_order
from aiotrain.domains import Drawing
from aiotrain.runs.load_run import read_config
from aiotrain.runs.plot import draw_return, read_updates, rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from aiotrain.cage2.domain import Cage2


__all__ = ["plots"]

_SHOWN: Final = 30
"""Orders in the picture of orders: all 120 could not be read."""


class _Training(NamedTuple):
    """A row of workflows.csv, as far as it is drawn."""

    iteration: int
    order: Order
    ucb: float
    value: float
    complied: bool


def plots(run: Path) -> Mapping[str, Drawing]:
    """Return how the pictures of a run in the folder ``run`` are drawn, by their names. See Domain.

    return: as of every run, with the threshold of compliance in a search. Of a search, besides:
    orders: posterior mean and deviation of the best orders, from a Gaussian process fitted to workflows.csv;
    ucb: upper confidence bound of each training when its order was chosen, and the return that it came to;
    positions: mean return of the trainings that had a host type at a position.
    Raises ConfigError for a damaged file.
    """
    settings = cast("Cage2", read_config(run).env)
    if not settings.searches:
        return {}
    updates, trainings, threshold = read_updates(run), _trainings(run), settings.search.compliance_threshold

    def draw_compliance(figure: Figure) -> None:
        if (axes := draw_return(figure, updates).get("compliance")) is not None:
            axes.set_ylim(0, 1.02)
            axes.axhline(threshold, color="grey", ls="--", lw=1, label="threshold")
            axes.legend(loc="lower right")

    pictures: dict[str, Drawing] = {"return": draw_compliance}
    if trainings:
        pictures["orders"] = lambda figure: _draw_orders(figure, trainings)
        pictures["ucb"] = lambda figure: _draw_ucb(figure, trainings)
        pictures["positions"] = lambda figure: _draw_positions(figure, trainings)
    return pictures


def _trainings(run: Path) -> list[_Training]:
    """Return the rows of workflows.csv that the search learned from; none if it just began."""

    def training(row: dict[str, str]) -> _Training | None:
        order, ucb, value = parse_order(row["workflow"]), float(row["ucb"]), float(row["value"])
        learned, complied = (_boolean(row[name]) for name in ("learned", "complied"))
        return _Training(int(row["iteration"]), order, ucb, value, complied) if learned else None

    path = run / TRAININGS
    columns = ("iteration", "workflow", "ucb", "value", "complied", "learned")
    rows = rows_of(path, columns, training) if path.exists() else []
    return [row for row in rows if row is not None]


def _boolean(text: str) -> bool:
    if text not in ("True", "False"):
        raise ValueError(f"{text!r} is neither True nor False")
    return text == "True"


def _draw_orders(figure: Figure, trainings: list[_Training]) -> None:
    """The best orders by posterior mean, trained or not, with what was observed of them."""
    search = GpUcb()
    for training in trainings:
        search.observe(training.order, training.value, training.complied)
    posterior = search.posterior()
    best = np.argsort(-posterior.mean, kind="stable")[:_SHOWN]
    place = {int(order): row for row, order in enumerate(best)}
    trained = np.array([ORDERS[order] in {training.order for training in trainings} for order in best])
    figure.set_size_inches(9, 8)
    axes = figure.subplots()
    for which, style, label in ((trained, "o", "trained"), (~trained, "D", "not trained yet")):
        chosen = best[which]
        if len(chosen):
            axes.errorbar(
                posterior.mean[chosen],
                np.flatnonzero(which),
                xerr=posterior.std[chosen],
                fmt=style,
                ms=5,
                capsize=3,
                label=f"posterior mean ± deviation, {label}",
            )
    shown = [(place[ORDER_INDEX[t.order]], t) for t in trainings if ORDER_INDEX[t.order] in place]
    for complied, colour, label in ((True, "C2", "complied"), (False, "C3", "missed the threshold")):
        points = [(training.value, row) for row, training in shown if training.complied is complied]
        if points:
            axes.scatter(*zip(*points, strict=True), marker="x", color=colour, zorder=3, label=f"observed, {label}")
    axes.set_yticks(range(len(best)), [_words(ORDERS[order]) for order in best], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("environment return")
    axes.set_title(f"the {len(best)} best of {len(ORDERS)} orders after {_count(trainings)}")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize=8, ncols=2)


def _draw_ucb(figure: Figure, trainings: list[_Training]) -> None:
    from matplotlib.ticker import MaxNLocator

    trainings = sorted(trainings, key=lambda training: training.iteration)  # finished in any order, if several at once
    figure.set_size_inches(8, 4)
    axes = figure.subplots()
    iterations = [training.iteration for training in trainings]
    axes.plot(iterations, [t.ucb for t in trainings], "o-", ms=4, lw=1.2, label="upper confidence bound when chosen")
    axes.plot(iterations, [t.value for t in trainings], "x", color="C1", label="mean return that it came to")
    best = np.maximum.accumulate([training.value for training in trainings])
    axes.step(iterations, best, where="post", color="C1", lw=1, ls="--", label="highest so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("training")
    axes.set_ylabel("environment return")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _draw_positions(figure: Figure, trainings: list[_Training]) -> None:
    size = len(HOST_TYPES)
    values: list[list[list[float]]] = [[[] for _ in range(size)] for _ in range(size)]  # [type][position]
    for training in trainings:
        for position, kind in enumerate(training.order):
            values[HOST_TYPES.index(kind)][position].append(training.value)
    means = np.array([[np.mean(cell) if cell else math.nan for cell in row] for row in values])
    figure.set_size_inches(7, 5)
    axes = figure.subplots()
    image = axes.imshow(means, cmap="viridis")
    middle = (np.nanmin(means) + np.nanmax(means)) / 2
    for row in range(size):
        for column in range(size):
            count, mean = len(values[row][column]), means[row, column]
            text = f"{mean:.4g}\nof {count}" if count else "none"
            axes.text(column, row, text, ha="center", va="center", color="white" if mean < middle else "black")
    axes.set_xticks(range(size), [str(position + 1) for position in range(size)])
    axes.set_yticks(range(size), HOST_TYPES)
    axes.set_xlabel("position in the order, 1 is fixed first")
    axes.set_title(f"mean return of the trainings with a type at a position, {_count(trainings)}")
    figure.colorbar(image, label="mean environment return")


def _words(order: Order) -> str:
    return " > ".join(order)


def _count(trainings: list[_Training]) -> str:
    return f"{len(trainings):,} training{'' if len(trainings) == 1 else 's'}"

"""Pictures of a run from the files that it left or is still writing: aiotrain plot RUN.

Headless: figures are drawn by matplotlib's Agg, without pyplot and its global state.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from aiotrain.cage2.scenario import HOST_TYPES
from aiotrain.cage2.search.strategies import GpUcb
from aiotrain.cage2.workflows import ORDER_INDEX, ORDERS, Order, parse_order
from aiotrain.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_run"]

_SHOWN: Final = 30
"""Orders in the picture of orders: all 120 could not be read."""
_DPI: Final = 120
_Row = TypeVar("_Row")


class _Training(NamedTuple):
    """A row of workflows.csv, as far as it is drawn."""

    iteration: int
    order: Order
    ucb: float
    value: float
    complied: bool


def plot_run(run: Path) -> list[Path]:
    """Draw the run in the folder ``run`` into PNG files there, and return their paths.

    return.png: mean return (with its range) over episodes, and compliance where the run has one. Of a search, besides:
    orders.png: posterior mean and deviation of the best orders, from a Gaussian process fitted to workflows.csv;
    ucb.png: upper confidence bound of each training when its order was chosen, and the return that it came to;
    positions.png: mean return of the trainings that had a host type at a position.
    Raises ConfigError if there is no run, no update yet, a damaged file, or no matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("plot: matplotlib is not installed; pip install 'aiotrain[plot]'") from error
    updates, threshold, trainings = _updates(run), _threshold(run), _trainings(run)
    pictures: dict[str, Callable[[Figure], None]] = {"return": lambda figure: _draw_return(figure, updates, threshold)}
    if trainings:
        pictures["orders"] = lambda figure: _draw_orders(figure, trainings)
        pictures["ucb"] = lambda figure: _draw_ucb(figure, trainings)
        pictures["positions"] = lambda figure: _draw_positions(figure, trainings)
    paths = []
    for name, draw in pictures.items():
        figure = Figure(layout="constrained", dpi=_DPI)
        draw(figure)
        paths.append(run / f"{name}.png")
        try:
            paths[-1].unlink(missing_ok=True)  # else a link in a foreign run would have another file written over
            figure.savefig(paths[-1])
        except OSError as error:
            raise ConfigError(f"plot: {paths[-1]} cannot be written: {error.strerror}") from error
    return paths


# ---------------------------------------------------------------- the files


def _updates(run: Path) -> dict[str, NDArray[np.float64]]:
    """The columns of updates.csv that are drawn, float64 [updates] each."""
    path = run / "updates.csv"
    if not path.is_file():
        if not run.is_dir():
            raise ConfigError(f"plot: there is no folder {run}; name that of a run, such as runs/Cage2-v0-…")
        inside = sorted(run.glob("*/updates.csv"))
        hint = f"; did you mean a run in it, such as {inside[-1].parent}?" if inside else ""
        raise ConfigError(f"plot: {run} holds no run: there is no updates.csv{hint}")
    names = ("episodes", "mean_return", "min_return", "max_return", "compliance")
    rows = _rows(path, names, lambda row: [float(row[name]) for name in names])
    if not rows:
        raise ConfigError(f"plot: {run} has no update yet; try again when it has learned something")
    return dict(zip(names, np.array(rows).T, strict=True))


def _trainings(run: Path) -> list[_Training]:
    """The rows of workflows.csv that the search learned from; none if the run was no search, or just began."""

    def training(row: dict[str, str]) -> _Training | None:
        order, ucb, value = parse_order(row["workflow"]), float(row["ucb"]), float(row["value"])
        learned, complied = (_boolean(row[name]) for name in ("learned", "complied"))
        return _Training(int(row["iteration"]), order, ucb, value, complied) if learned else None

    path = run / "workflows.csv"
    columns = ("iteration", "workflow", "ucb", "value", "complied", "learned")
    rows = _rows(path, columns, training) if path.exists() else []
    return [row for row in rows if row is not None]


def _threshold(run: Path) -> float | None:
    """The compliance at which trainings end; None in a run that searches for no workflow."""
    path = run / "config.json"
    try:
        config = json.loads(path.read_text())
        return float(config["workflow_search"]["compliance_threshold"]) if config["workflow"] == "search" else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"plot: {path} is missing or damaged ({type(error).__name__}: {error})") from error


def _rows(path: Path, columns: Sequence[str], parse: Callable[[dict[str, str]], _Row]) -> list[_Row]:
    """What ``parse`` makes of each row. Raises ConfigError that names file and line for what it cannot."""
    parsed = []
    line = 1
    try:
        with path.open(newline="") as file:
            rows = csv.DictReader(file, restkey="", strict=True)
            missing = [name for name in columns if name not in (rows.fieldnames or ())]
            if missing:
                raise ValueError(f"no column {', '.join(missing)}")
            for row in rows:
                line = rows.line_num
                if None in row.values() or "" in row:
                    raise ValueError(f"not {len(rows.fieldnames or ())} values")
                parsed.append(parse(row))
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(
            f"plot: {path} is damaged in line {line}: {error}. If the run was cut off while it wrote its last line, "
            "delete that line"
        ) from error
    return parsed


def _boolean(text: str) -> bool:
    if text not in ("True", "False"):
        raise ValueError(f"{text!r} is neither True nor False")
    return text == "True"


# ------------------------------------------------------------- the pictures


def _draw_return(figure: Figure, updates: dict[str, NDArray[np.float64]], threshold: float | None) -> None:
    episodes, compliance = updates["episodes"], updates["compliance"]
    complies = bool(np.isfinite(compliance).any())
    figure.set_size_inches(8, 6 if complies else 4)
    panels: Any = figure.subplots(2 if complies else 1, sharex=True, squeeze=False)[:, 0]
    panels[0].fill_between(
        episodes, updates["min_return"], updates["max_return"], alpha=0.2, lw=0, label="lowest to highest"
    )
    panels[0].plot(episodes, updates["mean_return"], lw=1.2, marker="." if len(episodes) == 1 else "", label="mean")
    panels[0].set_ylabel("return of an update's episodes")
    if complies:
        panels[1].plot(episodes, compliance, lw=1.2, color="C2", marker="." if len(episodes) == 1 else "")
        panels[1].set_ylabel("compliance")
        panels[1].set_ylim(0, 1.02)
        if threshold is not None:
            panels[1].axhline(threshold, color="grey", ls="--", lw=1, label="threshold")
            panels[1].legend(loc="lower right")
    panels[0].legend(loc="lower right")
    panels[-1].set_xlabel("episodes learned")
    for axes in panels:
        axes.grid(alpha=0.3)


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

"""Pictures of a run from the files that it left or is still writing: aiotrain plot RUN.

Headless: figures are drawn by matplotlib's Agg, without pyplot and its global state.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from aiotrain.domains import Domain, Drawing, part_of
from aiotrain.errors import ConfigError
from aiotrain.play.env_factory import named
from aiotrain.runs.journals import UPDATES
from aiotrain.runs.load_run import read_config

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Updates", "draw_return", "plot_run", "read_updates", "rows_of"]

_DPI: Final = 120
_RETURNS: Final = ("episodes", "mean_return", "min_return", "max_return")
_PLAIN_NAME: Final = re.compile(r"[\w-][\w -]*")
_Row = TypeVar("_Row")

Updates = Mapping[str, NDArray[np.float64]]
"""Columns of updates.csv by name, ``[updates]`` each; NaN for empty cells. The metrics come last."""


def plot_run(run: Path) -> list[Path]:
    """Draw the run in the folder ``run`` into PNG files there, and return their paths.

    return.png: mean return (with its range) over episodes, and below it each metric that some episode told. Others are
    of the run's domain, which may replace this one too. Raises ConfigError if there is no run, no update yet, a damaged
    file, or no matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("plot: matplotlib is not installed; pip install 'aiotrain[plot]'") from error
    updates = read_updates(run)
    pictures: dict[str, Callable[[Figure], object]] = {"return": lambda figure: draw_return(figure, updates)}
    if (domain := read_config(run).domain) is not None:
        pictures |= _pictures_of(domain, run)
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


def _pictures_of(domain: Domain, run: Path) -> dict[str, Drawing]:
    """Return the pictures of the run's domain. They raise ConfigError where they cannot be drawn."""
    if (plots := domain.plots) is None:
        return {}
    found = part_of(domain, "plots", Mapping[str, Callable[..., object]], lambda: named(plots)(run))
    for name in found:
        if not _PLAIN_NAME.fullmatch(name):  # it could lie outside the run's folder
            raise ConfigError(
                f"the part plots of the domain {domain.env_id} names a picture {name!r:.80}; a name has letters, "
                "digits, blanks, - and _ only"
            )

    def guarded(name: str, draw: Drawing) -> Drawing:
        return lambda figure: part_of(domain, f"plots ({name})", object, lambda: draw(figure))

    return {name: guarded(name, draw) for name, draw in found.items()}


def read_updates(run: Path) -> Updates:
    """Return the columns of updates.csv that are drawn: episodes, returns, and the metrics. Raises ConfigError."""
    path = run / UPDATES
    if not path.is_file():
        if not run.is_dir():
            raise ConfigError(f"plot: there is no folder {run}; name that of a run, such as runs/NAME")
        inside = sorted(run.glob(f"*/{UPDATES}"))
        hint = f"; did you mean a run in it, such as {inside[-1].parent}?" if inside else ""
        raise ConfigError(f"plot: {run} holds no run: there is no updates.csv{hint}")
    metrics: list[str] = []

    def numbers(row: dict[str, str]) -> list[float]:
        metrics[:] = [name for name in row if f"{name}_count" in row]
        return [*(float(row[name]) for name in _RETURNS), *(float(row[name] or math.nan) for name in metrics)]

    rows = rows_of(path, _RETURNS, numbers)
    if not rows:
        raise ConfigError(f"plot: {run} has no update yet; try again when it has learned something")
    return dict(zip((*_RETURNS, *metrics), np.array(rows).T, strict=True))


def rows_of(path: Path, columns: Sequence[str], parse: Callable[[dict[str, str]], _Row]) -> list[_Row]:
    """Return what ``parse`` makes of each row of a CSV file. Raises ConfigError that names file and line otherwise."""
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


def draw_return(figure: Figure, updates: Updates) -> Mapping[str, Any]:
    """Draw returns over episodes, and below them the metrics that were told; return the axes of each metric."""
    episodes = updates["episodes"]
    told = {name: values for name, values in updates.items() if name not in _RETURNS and np.isfinite(values).any()}
    figure.set_size_inches(8, 4 + 2 * len(told))
    panels: Any = figure.subplots(1 + len(told), sharex=True, squeeze=False)[:, 0]
    marker = "." if len(episodes) == 1 else ""
    panels[0].fill_between(
        episodes, updates["min_return"], updates["max_return"], alpha=0.2, lw=0, label="lowest to highest"
    )
    panels[0].plot(episodes, updates["mean_return"], lw=1.2, marker=marker, label="mean")
    panels[0].set_ylabel("return of an update's episodes")
    panels[0].legend(loc="lower right")
    for axes, (name, values) in zip(panels[1:], told.items(), strict=True):
        axes.plot(episodes, values, lw=1.2, color="C2", marker=marker)
        axes.set_ylabel(name.replace("_", " "))
    panels[-1].set_xlabel("episodes learned")
    for axes in panels:
        axes.grid(alpha=0.3)
    return dict(zip(told, panels[1:], strict=True))

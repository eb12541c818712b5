"""Pictures of a run in the maze."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from aiotrain.domains import Drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plots(run: Path) -> Mapping[str, Drawing]:
    """Return the picture of the lessons over updates."""
    with (run / "updates.csv").open(newline="") as file:
        starts = [int(row["curriculum"].split()[-1]) for row in csv.DictReader(file)]

    def draw(figure: Figure) -> None:
        figure.subplots().step(range(1, len(starts) + 1), starts)

    return {"lessons": draw}

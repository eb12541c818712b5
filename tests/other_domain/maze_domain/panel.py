"""How the console shows the lessons."""

from __future__ import annotations

from collections.abc import Mapping

from aiotrain import Panel
from aiotrain.domains import Line
from maze_domain.lessons import LessonStatus


class LessonPanel(Panel):
    """Draws the corridor with the cell that walks begin in."""

    title = "lessons"

    def headline(self, status: LessonStatus) -> Line:
        return [("begins at ", "label"), (f"{status.start}", "value")]

    def lines(self, status: LessonStatus, width: int, height: int) -> list[Line]:
        cells = ["·"] * status.length
        cells[0], cells[status.start] = "G", "S"
        return [[("".join(cells), "value")]][:height]

    def log(self, status: LessonStatus) -> Mapping[str, str]:
        return {"lesson": f"{status.start} of {status.length - 1}"}

    def summary(self, status: LessonStatus) -> Mapping[str, str]:
        return {"lessons": f"walks begin at cell {status.start}"}

"""Lines of styled text: what the console's frames are put together from.

A line is a list of (text, style name) runs. Assembling these by hand and handing Rich the finished segments
is several times cheaper than its tables and panels, and a frame is drawn several times a second for days.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import Final

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

from aiotrain.app.console.charts import printable
from aiotrain.domains import Line as Line

# Middle tones, and bold in the terminal's own colour for values: legible on dark and on light backgrounds.
STYLES: Final = {
    name: Style.parse(definition)
    for name, definition in {
        "": "none",
        "value": "bold",
        "label": "grey58",
        "border": "grey42",
        "title": "bold #5fafd7",
        "brand": "bold #ffffff on #005f87",
        "good": "bold #5faf5f",
        "warn": "#d7af00",
        "bad": "bold #ff5f5f",
        "collect": "#5f87d7",
        "learn": "#af87d7",
        "idle": "grey50",
        "hint": "italic #d7af00",
        "blue": "bold #ffffff on #005faf",
        "red": "bold #ffffff on #af0000",
        # from the bottom of a chart to its top
        "ramp0": "#5f87d7",
        "ramp1": "#5fafd7",
        "ramp2": "#5fd7d7",
        "ramp3": "#5fd7af",
    }.items()
}


class Frame:
    """Finished lines as a Rich renderable."""

    def __init__(self, lines: list[Line]) -> None:
        self.lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.lines:
            for text, style in line:
                yield Segment(text, STYLES[style])
            yield Segment.line()


def field(label: str, value: str, style: str = "value") -> Line:
    """Return a label and its value."""
    return [(f"{label} ", "label"), (value, style)]


def printed(line: Line) -> Line:
    """Return a line from outside without any character that could act on a terminal, and without unknown styles."""
    return [(printable(text), style if style in STYLES else "") for text, style in line]


def length(line: Line) -> int:
    """Return the cells that `line` takes."""
    return sum(len(text) if text.isascii() else cell_len(text) for text, _ in line)


def fit(line: Line, width: int) -> Line:
    """Pad or crop `line` to exactly `width` cells; a crop ends in an ellipsis."""
    missing = width - length(line)
    if missing == 0:
        return line
    if missing > 0:
        return [*line, (" " * missing, "")]
    fitted: Line = []
    room = max(0, width - 1)
    for text, style in line:
        taken = set_cell_size(text, min(room, cell_len(text)))
        fitted.append((taken, style))
        room -= cell_len(taken)
    return [*fitted, ("…"[:width], "label")]


def clip(text: str, style: str, width: int) -> Line:
    """Return text from outside as a line of at most `width` cells."""
    line: Line = [(printable(text), style)]
    return line if length(line) <= width else fit(line, width)


def flow(items: Iterable[Line], width: int, gap: int = 3) -> list[Line]:
    """Set items side by side, `gap` cells apart, as many to a line as fit."""
    lines: list[Line] = []
    room = 0
    for item in items:
        taken = length(item)
        if lines and taken + gap <= room:
            lines[-1] += [(" " * gap, ""), *item]
            room -= taken + gap
        else:
            lines.append(list(item))
            room = width - taken
    return lines


def spread(left: Line, right: Line, width: int, filler: str = " ") -> Line:
    """Set `left` and `right` at the two ends; the left one gives way where there is no room for both."""
    room = width - length(right)
    if room < 8:
        return fit(left, width)
    if length(left) > room:
        left = fit(left, room)
    return [*left, (filler * (room - length(left)), "border"), *right]


def rule(title: str, right: Line, width: int) -> Line:
    """Draw a horizontal rule with a title at its left and a line in its right end."""
    tail: Line = [(" ", ""), *right, (" ─", "border")] if right else [("─", "border")]
    return spread([("─ ", "border"), (title, "title"), (" ", "")], tail, width, "─")


def box(title: str, right: Line, lines: Sequence[Line], width: int, height: int) -> list[Line]:
    """Draw a border around lines; `width` and `height` include it, and lines beyond it are dropped."""
    blank: Line = []
    rows = [fit(line, width - 4) for line in [*lines, *[blank] * height][: height - 2]]
    return [
        [("╭", "border"), *rule(title, right, width - 2), ("╮", "border")],
        *([("│ ", "border"), *row, (" │", "border")] for row in rows),
        [("╰" + "─" * (width - 2) + "╯", "border")],
    ]


def beside(left: Sequence[Line], right: Sequence[Line], left_width: int, gap: int = 0) -> list[Line]:
    """Set two columns side by side; the shorter one is filled up with blank lines."""
    rows = max(len(left), len(right))
    return [
        [
            *fit(left[row] if row < len(left) else [], left_width),
            (" " * gap, ""),
            *(right[row] if row < len(right) else []),
        ]
        for row in range(rows)
    ]


def paragraph(text: str, style: str, width: int, height: int) -> list[Line]:
    """Break text from outside into at most `height` lines; where that cuts it off, an ellipsis says so."""
    width = max(2, width)
    text = printable(text[: width * (height + 1)])
    # flags stay whole; words are counted in characters: text with wide ones is cut at any cell instead
    pieces = wrap(text, width, break_on_hyphens=False) if cell_len(text) == len(text) else chop_cells(text, width)
    if len(pieces) > height > 0:  # the last line takes what is left, as far as it goes
        last = " ".join(pieces[height - 1 :])
        return [*([(piece, style)] for piece in pieces[: height - 1]), clip(last, style, width)]
    return [[(piece, style)] for piece in pieces[:height]]

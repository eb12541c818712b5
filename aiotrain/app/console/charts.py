"""Text pictures and number formats for the console: pure functions from numbers to strings.

Nothing here knows about colours or terminals; every character returned is one cell wide.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

_LEVELS = " ▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉"
_BRAILLE_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # [column][row from the top]
_CURVE_POINTS = 2000  # a plot has some 200 columns: more points change nothing that can be seen
_NONE = "-"


@lru_cache(maxsize=512)
def printable(text: str) -> str:
    """Return `text` on one line, without any character that could act on a terminal or shift the cells.

    Line breaks become spaces; control, formatting and unassigned characters become U+FFFD; combining marks
    that do not compose are dropped.
    """
    if text.isascii() and text.isprintable():
        return text
    kept = []
    for character in unicodedata.normalize("NFC", text):
        if character.isprintable():
            if not unicodedata.category(character).startswith("M"):
                kept.append(character)
        else:
            kept.append(" " if character.isspace() else "\ufffd")
    return "".join(kept)


def printable_lines(text: str) -> str:
    """Return `text` with its line breaks, and each line as `printable` returns it."""
    return "\n".join(map(printable, text.splitlines()))


def number(value: float) -> str:
    """Format a number of any size in at most nine characters; NaN is a dash."""
    size = abs(value)
    if math.isnan(value):
        return _NONE
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if size >= 1e6:
        return f"{value:.2e}".replace("e+0", "e").replace("e+", "e")
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.1f}"
    if size >= 1 or size == 0:
        return f"{value:.2f}"
    return f"{value:.4f}" if size >= 1e-3 else f"{value:.1e}"


def rate(value: float) -> str:
    """Format a rate per second in three or four digits."""
    if not math.isfinite(value):
        return _NONE
    if value >= 1e9:
        return f"{value:.2e}"
    if value >= 1e6:
        return f"{value / 1e6:,.2f}M"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def short(count: int) -> str:
    """Format a count in at most four characters."""
    for unit, name in ((10**9, "G"), (10**6, "M"), (1000, "k")):
        if count >= unit:
            return f"{count / unit:.1f}{name}" if count < 9.95 * unit else f"{count // unit}{name}"
    return str(count)


def percent(share: float) -> str:
    """Format a share from 0 to 1 as a whole percentage, three or four characters wide."""
    return f"{100 * share:3.0f}%" if math.isfinite(share) else f"{_NONE:>4}"


def duration(seconds: float | None) -> str:
    """Format seconds as 1:23, 1:02:03 or 2d 03:04; None or a number without sense is a dash."""
    if seconds is None or not 0 <= seconds < 1e10:
        return _NONE
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days:,}d {hour:02}:{minute:02}"
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def counted(count: int, what: str) -> str:
    """Return a number with what it counts, whose plural ends in s."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def mean_and_deviation(mean: float, deviation: float) -> str:
    """Format a mean and its standard deviation."""
    return f"{number(mean)} ± {number(deviation)}"


def bar(share: float, width: int) -> tuple[str, str]:
    """Return the filled and the empty part of a horizontal bar, `width` cells together."""
    share = min(1.0, max(0.0, share)) if math.isfinite(share) else 0.0
    eighths = int(share * width * 8)
    filled = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
    return filled, "░" * (width - len(filled))


def stacked(shares: Sequence[float], glyphs: str, width: int) -> list[str]:
    """Return one run of its glyph for each share, `width` cells together when the shares sum to 1."""
    runs, total, done = [], 0.0, 0
    for share, glyph in zip(shares, glyphs, strict=True):
        total += share if math.isfinite(share) and share > 0 else 0.0
        end = max(done, min(width, round(total * width)))
        runs.append(glyph * (end - done))
        done = end
    return runs


def sparkline(values: Sequence[float], width: int, height: int = 1) -> list[str]:
    """Draw the newest `width` values as columns, the newest at the right, in `height` rows from the top.

    The scale goes from zero to the largest value drawn. A value above zero shows at least the lowest mark;
    zero, NaN and the time before the first value stay blank.
    """
    shown = values[-width:] if width > 0 else ()
    top = max((value for value in shown if math.isfinite(value)), default=0.0)
    marks = []
    for value in shown:
        drawn = top > 0 and math.isfinite(value) and value > 0
        marks.append(max(1, round(value / top * 8 * height)) if drawn else 0)
    return [
        "".join(_LEVELS[min(8, max(0, mark - 8 * row))] for mark in marks).rjust(width)
        for row in reversed(range(height))
    ]


def finite(points: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the points whose second number is finite."""
    return [point for point in points if math.isfinite(point[1])]


def curve(points: Sequence[tuple[int, float]], width: int, height: int) -> tuple[list[str], float, float]:
    """Draw a line through points of rising x in braille, two by four dots a cell.

    Returns `height` rows from the top, and the values that the lowest and the highest row of dots stand for.
    The points must be finite and there must be at least one. Points that share a column of dots are averaged.
    """
    stride = max(1, len(points) // _CURVE_POINTS)
    # counted from the end, so that the latest point is always among those drawn
    points = points[::-stride][::-1]
    # Divided by the largest size first: a sum or a span of huge values would overflow to infinity.
    scale = max(max(abs(y) for _, y in points), 1e-300)
    columns, rows = 2 * width, 4 * height
    first, last = points[0][0], points[-1][0]
    sums, counts = [0.0] * columns, [0] * columns
    for x, y in points:
        column = (x - first) * (columns - 1) // (last - first) if last > first else columns - 1
        sums[column] += y / scale
        counts[column] += 1
    means = {column: sums[column] / counts[column] for column in range(columns) if counts[column]}
    low, high = min(means.values()), max(means.values())
    if high - low < 1e-9:  # a flat line runs through the middle
        margin = 0.05 if high else 1.0
        low, high = low - margin, high + margin

    cells = [[0] * width for _ in range(height)]
    previous_column, previous_level = -1, -1
    for column, mean in means.items():
        level = round((high - mean) / (high - low) * (rows - 1))
        if previous_column < 0:
            previous_column, previous_level = column - 1, level
        for step in range(previous_column + 1, column + 1):
            # Each column reaches from where the one before it ended: the line has no holes when it is steep.
            share = (step - previous_column) / (column - previous_column)
            before = (step - 1 - previous_column) / (column - previous_column)
            here = round(previous_level + (level - previous_level) * share)
            there = round(previous_level + (level - previous_level) * before)
            start = min(here, there + (here > there) - (here < there))
            for dot in range(start, max(here, there + (here > there) - (here < there)) + 1):
                cells[dot // 4][step // 2] |= _BRAILLE_DOTS[step % 2][dot % 4]
        previous_column, previous_level = column, level
    # blanks are spaces: not every font has an empty braille cell
    drawn = ["".join(chr(0x2800 + dots) if dots else " " for dots in row) for row in cells]
    return drawn, low * scale, high * scale

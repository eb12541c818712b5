"""Frames as a film: one SVG file that browsers play by themselves, without any script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape

from rich.cells import cell_len
from rich.terminal_theme import SVG_EXPORT_THEME as THEME

from aiotrain.app.console.charts import printable
from aiotrain.app.console.lines import STYLES, Frame, Line

__all__ = ["film"]

_CELL_WIDTH: Final = 8.4
_LINE_HEIGHT: Final = 16.0  # low enough for vertical lines to meet
_BASELINE: Final = 12.0
_FONT_SIZE: Final = 14.0
_MARGIN: Final = 12.0
_LAST_S: Final = 3.0
"""What the last frame stays longer than the others, in seconds."""
_FONTS: Final = "ui-monospace,'Fira Code',Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace"


def film(frames: Sequence[Frame], *, title: str, width: int, height: int, frame_s: float) -> str:
    """Return an SVG document that shows ``frames`` of ``width`` cells and ``height`` lines again and again.

    Each is a group of the class ``frame`` and stays for ``frame_s`` seconds, the last one for longer; whatever does not
    animate shows that one. A line is written once, however many frames have it.
    """
    duration = len(frames) * frame_s + _LAST_S
    rows: dict[str, int] = {}
    shown = []
    for number, frame in enumerate(frames):
        drawn = [(_row(line), y * _LINE_HEIGHT) for y, line in enumerate(frame.lines)]
        uses = "".join(f'<use href="#r{rows.setdefault(row, len(rows))}" y="{y:g}"/>' for row, y in drawn if row)
        delay = number * frame_s - duration  # negative, so that all of them run from the first moment
        shown.append(f'<g class="frame" style="animation-delay:{delay:g}s">{uses}</g>')
    styles = "".join(f".{_class(name)}{{{_css(name)}}}" for name in STYLES if name)
    inner_width, inner_height = width * _CELL_WIDTH, height * _LINE_HEIGHT
    size = f'width="{inner_width + 2 * _MARGIN:g}" height="{inner_height + 2 * _MARGIN:g}"'
    viewed = f'viewBox="{-_MARGIN:g} {-_MARGIN:g} {inner_width + 2 * _MARGIN:g} {inner_height + 2 * _MARGIN:g}"'
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {viewed} xml:space="preserve" role="img">',
            f"<title>{escape(printable(title))}</title>",
            "<style>",
            f"text{{font:{_FONT_SIZE:g}px {_FONTS};fill:{THEME.foreground_color.hex};white-space:pre}}",
            styles,
            f".frame{{visibility:hidden;animation:show {duration:g}s step-end infinite}}",
            ".frame:last-child{visibility:visible;animation-name:show-last}",
            _keyframes("show", frame_s / duration),
            _keyframes("show-last", (frame_s + _LAST_S) / duration),
            "@media(prefers-reduced-motion:reduce){.frame,.frame:last-child{animation:none}}",
            "</style>",
            "<defs>",
            *(f'<g id="r{number}">{row}</g>' for row, number in rows.items()),
            "</defs>",
            f'<rect x="{-_MARGIN:g}" y="{-_MARGIN:g}" {size} rx="8" fill="{THEME.background_color.hex}"/>',
            f"<g>{''.join(shown)}</g>",
            "</svg>\n",
        )
    )


def _row(line: Line) -> str:
    """A line as elements at the top of the picture; neighbouring runs of a style are one, blanks are none."""
    runs: list[tuple[str, str]] = []
    for text, style in line:
        if runs and runs[-1][1] == style:
            runs[-1] = (runs[-1][0] + text, style)
        else:
            runs.append((text, style))
    elements, column = [], 0
    for text, style in runs:
        cells = cell_len(text)
        if (background := STYLES[style].bgcolor) is not None:
            where = f'x="{_x(column)}" width="{_x(cells)}" height="{_LINE_HEIGHT:g}"'
            elements.append(f'<rect {where} fill="{background.get_truecolor(THEME).hex}"/>')
        if bare := text.strip():
            at, taken = column + cell_len(text[: len(text) - len(text.lstrip())]), cell_len(bare)
            of = f' class="{_class(style)}"' if style else ""
            length = f' textLength="{_x(taken)}"' if taken > 1 else ""
            elements.append(f'<text x="{_x(at)}" y="{_BASELINE:g}"{length}{of}>{escape(bare)}</text>')
        column += cells
    return "".join(elements)


def _x(cells: int) -> str:
    return f"{cells * _CELL_WIDTH:.5g}"


def _keyframes(name: str, share: float) -> str:
    """An animation that shows what it is given for a ``share`` of its time, from its beginning."""
    return f"@keyframes {name}{{0%{{visibility:visible}}{100 * share:.6g}%,to{{visibility:hidden}}}}"


def _class(style: str) -> str:
    return f"s{list(STYLES).index(style)}"


def _css(name: str) -> str:
    style = STYLES[name]
    rules = [] if style.color is None else [f"fill:{style.color.get_truecolor(THEME).hex}"]
    rules += ["font-weight:bold"] * bool(style.bold) + ["font-style:italic"] * bool(style.italic)
    return ";".join(rules)

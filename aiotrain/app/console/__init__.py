"""The console: a pure function from a run's status to a frame of text, and what draws it while a run lives.

`render` makes one frame; `show` keeps a terminal up to date with frames, where `can_draw` says that it can show them;
`PlainLog` writes a `plain_line` per update anywhere else; `summary` is the last word of a run; `save_svg` makes a
picture. Text from outside (names, warnings, errors) reaches the terminal as printable characters only, and never as
markup; `printable` and `printable_lines` make it so for whoever prints it otherwise. `DivertedOutput` keeps what
child processes write away from the frames.
"""

from aiotrain.app.console.charts import printable, printable_lines
from aiotrain.app.console.frame import render
from aiotrain.app.console.live import REDRAWS_PER_S, PlainLog, can_draw, show
from aiotrain.app.console.screen import DivertedOutput
from aiotrain.app.console.text_report import plain_line, save_svg, summary

__all__ = [
    "REDRAWS_PER_S",
    "DivertedOutput",
    "PlainLog",
    "can_draw",
    "plain_line",
    "printable",
    "printable_lines",
    "render",
    "save_svg",
    "show",
    "summary",
]

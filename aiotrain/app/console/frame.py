"""The console's frame: which part goes where, for a small and for a large terminal."""

from __future__ import annotations

from rich.console import RenderableType

from aiotrain.app.console import charts, panels
from aiotrain.app.console.lines import Frame, Line, beside, box, fit, flow, length, paragraph, printed, rule
from aiotrain.domains import Panel
from aiotrain.training.status import Status

_BOXED_WIDTH, _BOXED_HEIGHT, _BOXED_HEIGHT_WITH_PANEL = 100, 32, 40


def render(status: Status, width: int, height: int, panel: Panel | None = None) -> RenderableType:
    """Draw `status` as a frame of exactly `width` cells and at most `height` lines.

    ``panel`` shows its curriculum; without one, or without a status of the curriculum, nothing of it is shown.
    """
    width, height = max(1, width), max(1, height)
    if status.curriculum is None:
        panel = None
    enough = _BOXED_HEIGHT if panel is None else _BOXED_HEIGHT_WITH_PANEL
    large = width >= _BOXED_WIDTH and height >= enough
    lines = _boxed(status, width, height, panel) if large else _ruled(status, width, height, panel)
    return Frame([fit(line, width) for line in lines[:height]])


def _ruled(status: Status, width: int, height: int, panel: Panel | None) -> list[Line]:
    """Lay out one column under rules; where lines are few, the least important parts are left out."""
    messages = 1 if height < 30 else 3
    hint = panels.hint(status)
    # In reading order, each part with its rank: the lowest rank is the last to be left out.
    parts: list[tuple[int, list[Line]]] = [
        (0, [panels.identity(status, width)]),
        (2, [panels.progress(status, width)]),
        (8, flow(panels.clock(status), width)),
        (3, _rates_and_spark(status, width)),
        (7, _workers_under_rule(status, width, max(1, height // 4))),
        (12, panels.restarts(status, width)),
        (9, panels.time_lines(status, width)),
        (5, [] if panel is None else _shown_by(panel, status, width, _panel_height(height))),
        (11, paragraph(f"▸ {hint}", "hint", width, 2) if hint else []),
        (10, flow([panels.policy(status), panels.ring(status)], width)),
        (6, panels.metrics(status, width, 1 if height < 45 else 2)),
        (-1, []),  # the return curve, which takes what is left
        (4, panels.accounting(status, width)),
        (13, panels.warnings(status, width, messages)),
        (1, panels.error(status, width, messages)),
    ]
    left = height
    kept = set()
    for rank, lines in sorted(parts, key=lambda part: part[0]):
        if len(lines) <= left:
            kept.add(rank)
            left -= len(lines)
    curve = _return_under_rule(status, width, min(left, 24)) if left >= 4 else []
    return [line for rank, lines in parts if rank in kept for line in (curve if rank == -1 else lines)]


def _panel_height(height: int) -> int:
    """Return the lines that a panel has in a frame of ``height`` lines."""
    return 2 if height < 45 else 6


def _shown_by(panel: Panel, status: Status, width: int, height: int) -> list[Line]:
    return [printed(line) for line in panel.lines(status.curriculum, width, height)][:height]


def _rates_and_spark(status: Status, width: int) -> list[Line]:
    rates = panels.rates(status)
    room = min(120, width - length(rates[0]) - 3)
    return beside(rates, panels.spark(status, room, 2), length(rates[0]), 3) if room >= 8 else rates


def _workers_under_rule(status: Status, width: int, height: int) -> list[Line]:
    title, legend = f"workers {len(status.workers)}", panels.legend(status)
    grid = panels.grid(status, width, height)
    beside_title = flow(legend, width - len(title) - 8, gap=2)
    if len(beside_title) == 1 and length(beside_title[0]) <= width - len(title) - 8:
        return [rule(title, beside_title[0], width), *grid]
    return [rule(title, [], width), *flow(legend, width, gap=2), *grid]


def _return_under_rule(status: Status, width: int, height: int) -> list[Line]:
    rows = height - 1
    side = 38 if len(status.losses) > rows else 22 if width < 100 else 30
    losses = panels.losses(status.losses, side, rows)[:rows] if width >= 72 else []
    room = width - side - 3 if losses else width
    curve = panels.return_curve(status, room, rows)
    title = rule("return", panels.return_title(status), width)
    return [title, *(beside(curve, losses, room, 3) if losses else curve)]


def _boxed(status: Status, width: int, height: int, panel: Panel | None) -> list[Line]:
    """Lay out boxes: what the run achieves at the left, what it is doing at the right."""
    inner = width - 4
    footer = [
        *panels.accounting(status, inner),
        *panels.error(status, inner, 2 if height < 45 else 4),
        *panels.warnings(status, inner, 2 if height < 45 else 5),
    ]
    head = [panels.progress(status, inner), *flow(panels.clock(status), inner, gap=5)]
    curriculum: list[Line] = []
    if panel is not None:
        room = _panel_height(height)  # kept free while the panel has fewer lines: nothing moves when one joins
        shown, headline = _shown_by(panel, status, inner, room), printed(panel.headline(status.curriculum))
        curriculum = box(charts.printable(panel.title), headline, shown, width, room + 2)
    body = height - len(head) - len(footer) - len(curriculum) - 4 - 1
    right = max(46, min(76, width * 42 // 100))
    left = width - right
    return [
        panels.identity(status, width),
        *box("progress", [], head, width, len(head) + 2),
        *curriculum,
        *beside(_achieved(status, left, body), _doing(status, right, body), left),
        *box("episodes", [], footer, width, len(footer) + 2),
    ]


def _achieved(status: Status, width: int, height: int) -> list[Line]:
    inner = width - 4
    sparks = max(2, min(6, height // 7))
    seconds = min(inner, len(status.episodes_per_s_history))
    peak = charts.rate(max(status.episodes_per_s_history[-inner:], default=0.0))
    caption: Line = [(f"last {seconds} s, peak {peak}", "label")] if seconds else []
    rates = [*panels.rates(status), *panels.spark(status, inner, sparks)]
    metrics = panels.metrics(status, inner, 2)
    curve = panels.return_curve(status, inner, height - len(rates) - 4 - len(metrics))
    return [
        *box("throughput", caption, rates, width, len(rates) + 2),
        *box("return", panels.return_title(status), [*curve, *metrics], width, height - len(rates) - 2),
    ]


def _doing(status: Status, width: int, height: int) -> list[Line]:
    inner = width - 4
    hint = panels.hint(status)
    # Lines are kept free for the hint: boxes that move as it comes and goes are hard to read.
    room = 2 if inner >= 56 else 3
    time = [*panels.time_bars(status, inner), *paragraph(f"▸ {hint}" if hint else "", "hint", inner, room)]
    time += [[]] * (4 + room - len(time))
    legend, restarts = flow(panels.legend(status), inner, gap=2), panels.restarts(status, inner)
    short = -(-len(status.losses) // 2)
    rows = height - len(time) - 2 - 2 - (2 + 2 + short)  # of the workers' box, at most
    grid = panels.grid(status, inner, max(1, rows - len(legend) - len(restarts)))
    workers = [*legend, *grid, *restarts][: max(1, rows)]
    rest = height - len(workers) - 2 - len(time) - 2
    state = [panels.policy(status), panels.ring(status)]
    losses = panels.losses(status.losses, inner, rest - 2 - len(state))
    if rest - 2 - len(state) - len(losses) >= 2:
        state = [*state, []]
    return [
        *box(f"workers {len(status.workers)}", [], workers, width, len(workers) + 2),
        *box("where the time goes", [], time, width, len(time) + 2),
        *box("learner", [], [*state, *losses], width, rest),
    ]

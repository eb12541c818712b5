"""The parts of the console's frame: each turns a status into lines, for the room that it is given."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from aiotrain.app.console import charts
from aiotrain.app.console.lines import Line, clip, field, fit, flow, length, paragraph, spread
from aiotrain.collect.protocol import WorkerState
from aiotrain.training.status import Status
from aiotrain.transport.segments import human_bytes

# Each state has a glyph of its own, so that the grid can be read without colours. Worst state first.
_WORKERS: Final = {
    WorkerState.HUNG: ("✗", "bad"),
    WorkerState.RESTARTING: ("↻", "warn"),
    WorkerState.STARTING: ("◌", "label"),
    WorkerState.WAITING: ("□", "collect"),
    WorkerState.PLAYING: ("■", "good"),
    WorkerState.ENDED: ("·", "label"),
}
_SEVERITY: Final = {state: severity for severity, state in enumerate(_WORKERS)}
_PHASES: Final = {
    "compiling": "learn",
    "training": "good",
    "finished": "good",
    "failed": "bad",
    "interrupted": "warn",
    "stopped": "warn",
}
_COMPILING: Final = "compiling the environment's player, once for this machine; later it is loaded"
_COUNTED_PITCH: Final = 6  # cells of the grid that hold a glyph, up to four characters and a space
_SHORT_LOSSES: Final = {
    "policy_loss": "policy",
    "value_loss": "value",
    "approx_kl": "kl",
    "clip_fraction": "clipped",
    "explained_variance": "expl.var",
    "learning_rate": "lr",
}


def ramp(row: int, height: int) -> str:
    """Return the style of a chart's row, counted from the top."""
    return f"ramp{3 - 4 * row // height}"


def identity(status: Status, width: int) -> Line:
    """Say what is running, where, and how it stands."""
    right: Line = [("  ● ", _PHASES.get(status.phase, "label")), (charts.printable(status.phase), "value")]
    where = (status.environment, status.collector, status.device)
    tail: Line = [(f" · {charts.printable(text)}", "label") for text in where]
    # What is played says what the numbers mean: a long run name gives way to it, but device and collector to the name.
    name = length([(charts.printable(status.run_name), "")])
    while len(tail) > 1 and 11 + name + length(tail) + length(right) > width:
        tail.pop()
    room = max(12, width - 11 - length(tail) - length(right))
    return spread([(" aiotrain ", "brand"), (" ", ""), *clip(status.run_name, "value", room), *tail], right, width)


def progress(status: Status, width: int) -> Line:
    """Draw the part of the budget that is played."""
    # down, so that 100% is shown when all is done and not before
    head = charts.percent(math.floor(100 * status.progress) / 100) + " "
    played = status.episodes_finished if status.steps_total is None else status.steps_finished
    tail = f" {played:,} / {budget(status)}"
    filled, empty = charts.bar(status.progress, max(0, width - len(head) - len(tail)))
    return [(head, "value"), (filled, "ramp1"), (empty, "border"), (tail, "value")]


def budget(status: Status) -> str:
    """Name the budget: in steps, if it is counted in them."""
    return f"{status.episodes_total:,} episodes" if status.steps_total is None else f"{status.steps_total:,} steps"


def clock(status: Status) -> list[Line]:
    """Say how long it has been, how long it will be, and how much is under way."""
    return [
        field("elapsed", charts.duration(status.elapsed_s)),
        field("left", charts.duration(status.remaining_s)),
        field("updates", f"{status.updates:,}"),
        field("in flight", f"{status.episodes_in_flight:,}"),
    ]


def rates(status: Status) -> list[Line]:
    """Say how fast it goes, now and on average; all lines have the same length."""
    rows = (
        ("episodes/s", status.episodes_per_s, status.mean_episodes_per_s),
        ("steps/s", status.steps_per_s, status.mean_steps_per_s),
    )
    return [
        [
            (f"{label:<10}", "label"),
            (f"{charts.rate(now):>9}", "value"),
            (" now", "label"),
            (f"{charts.rate(mean):>9}", "value"),
            (" mean", "label"),
        ]
        for label, now, mean in rows
    ]


def spark(status: Status, width: int, height: int) -> list[Line]:
    """Draw episodes per second over the last seconds, a column a second."""
    rows = charts.sparkline(status.episodes_per_s_history, width, height)
    return [[(text, ramp(row, height))] for row, text in enumerate(rows)]


def legend(status: Status) -> list[Line]:
    """Count the workers in each state that occurs."""
    counts = Counter(worker.state for worker in status.workers)
    return [
        [(f"{glyph} ", style), (f"{counts[state]:,}", "value"), (f" {state.value}", "label")]
        for state, (glyph, style) in reversed(_WORKERS.items())
        if counts[state]
    ]


def grid(status: Status, width: int, height: int) -> list[Line]:
    """Draw a cell per worker, in tens; each row begins with the number of its first worker.

    Where there is room, each cell also tells the worker's finished episodes; where there is less, cells stand
    apart or close together; where there is too little for all, a cell stands for several workers and shows
    the worst of their states.
    """
    workers, states = status.workers, [worker.state for worker in status.workers]
    if not workers or height < 1:
        return []
    label = len(str(len(workers) - 1)) + 1
    room = max(1, width - label)
    for pitch in (_COUNTED_PITCH, 2, 1):
        tens = (room + 1) // (10 * pitch + 1)
        rows = -(-len(workers) // (10 * tens)) if tens else height + 1
        if rows <= height:
            even = -(-len(workers) // (10 * rows))  # rows as even as tens allow
            cells = [
                (state, charts.short(worker.episodes) if pitch == _COUNTED_PITCH else "")
                for state, worker in zip(states, workers, strict=True)
            ]
            return _cells(cells, 10 * even, pitch, label, 1)
    per_row = 10 * tens or room  # less than ten only where the whole line is too narrow
    each = 1
    if -(-len(workers) // per_row) > height:
        each = -(-len(workers) // (per_row * max(1, height - 1)))
    worst = [
        (min(states[start : start + each], key=_SEVERITY.__getitem__), "") for start in range(0, len(workers), each)
    ]
    note: Line = [(f"a cell is {each} workers and shows the worst", "label")]
    return [*_cells(worst, per_row, 1, label, each), *([note] if each > 1 else [])][:height]


def _cells(cells: Sequence[tuple[WorkerState, str]], per_row: int, pitch: int, label: int, each: int) -> list[Line]:
    lines = []
    for start in range(0, len(cells), per_row):
        line: Line = [(f"{start * each:>{label - 1}} ", "label")]
        run, run_style = "", ""
        for place, (state, text) in enumerate(cells[start : start + per_row]):
            glyph, style = _WORKERS[state]
            if style != run_style or text:
                line.append((run, run_style))
                run, run_style = "", style
            run += " " * (place % 10 == 0 and place > 0) + glyph
            if text:
                line.append((run, style))
                run, run_style = text.ljust(pitch - 1), "label"
            else:
                run += " " * (pitch - 1)
        lines.append([*line, (run.rstrip(), run_style)])
    return lines


def restarts(status: Status, width: int) -> list[Line]:
    """Name the workers that had to be restarted, those that had it most often first."""
    most = sorted((-worker.restarts, number) for number, worker in enumerate(status.workers) if worker.restarts)
    if not most:
        return []
    total = -sum(count for count, _ in most)
    items: list[Line] = [[("restarts ", "label"), (f"{total:,}", "warn"), (" · worker", "label")]]
    # a comma after each but the last, so that the cut between lines cannot separate the two
    for place, (count, number) in enumerate(most[:99], 1):
        times = f" ({-count}x)" if count < -1 else ""
        items.append([(f"{number}{times}{',' if place < len(most) else ''}", "label")])
    lines = flow(items, width - 2, gap=1)
    return [lines[0] if len(lines) == 1 and len(most) < 100 else [*lines[0], (" …", "label")]]


def shares(status: Status) -> list[tuple[str, float, str, str]]:
    """Return where the main process's time goes: name, share, glyph, style."""
    return [
        ("collect", status.collect_share, "█", "collect"),
        ("learn", status.learn_share, "▓", "learn"),
        ("idle", status.idle_share, "░", "idle"),
    ]


def time_lines(status: Status, width: int) -> list[Line]:
    """Draw where the time goes as one stacked bar with its legend; without room, the bar is left out."""
    key: list[Line] = [
        [(f"{glyph} ", style), (f"{name} ", "label"), (charts.percent(share), "value")]
        for name, share, glyph, style in shares(status)
    ]
    key.append([("workers busy ", "label"), (charts.percent(status.worker_busy_share), "value")])
    room = min(60, width - sum(length(item) + 2 for item in key) - 5)
    if room < 8:
        return flow(key, width, gap=2)
    runs = charts.stacked([share for _, share, _, _ in shares(status)], "█▓░", room)
    bars = zip(runs, ("collect", "learn", "idle"), strict=True)
    return [[*fit([("time ", "label"), *bars], room + 7), *flow(key, width, gap=2)[0]]]


def time_bars(status: Status, width: int) -> list[Line]:
    """Draw where the time goes, a bar for each part."""
    parts = [*shares(status), ("workers busy", status.worker_busy_share, "█", "good")]
    lines: list[Line] = []
    for name, share, _, style in parts:
        filled, empty = charts.bar(share, max(0, width - 18))
        lines.append([(f"{name:<13}", "label"), (filled, style), (empty, "border"), (" ", "")])
        lines[-1].append((charts.percent(share), "value"))
    return lines


def hint(status: Status) -> str:
    """Name the bottleneck and what to change, in one sentence; empty when it is not clear."""
    # The shares are known up to the last update: the first few say little.
    if status.phase != "training" or status.updates < 3 or not status.workers:
        return ""
    if status.learn_share >= 0.85:
        return "The learner is always at work: lower --epochs, raise --minibatch-size or --learner-threads."
    if status.learn_share >= 0.5 and status.worker_busy_share < 0.7:
        return "Workers wait for the learner: raise --max-policy-lag, lower --epochs or raise --minibatch-size."
    if status.collect_share >= 0.6 and status.worker_busy_share >= 0.85:
        return "The learner waits for episodes, as it should: more cores, or --workers while cores are free, help."
    if status.collect_share >= 0.6 and status.worker_busy_share < 0.6:
        return "Learner and workers both wait: raise --max-policy-lag or --episodes-per-update."
    if status.idle_share >= 0.5:
        return "Neither collecting nor learning: the program that iterates over the updates takes the time."
    return ""


def ring(status: Status) -> Line:
    """Say how full the ring is."""
    if not status.slots:  # not made yet, or given back
        return field("ring", "-")
    share = status.slots_in_use / status.slots
    filled, empty = charts.bar(share, 10)
    used: Line = [
        (filled, "ramp1"),
        (empty, "border"),
        (f" {status.slots_in_use:,}/{status.slots:,}", "value"),
    ]
    return [("ring ", "label"), *used, (f" slots · {human_bytes(status.ring_bytes)}", "label")]


def policy(status: Status) -> Line:
    """Say which weights are out and how old those of the last batch were."""
    version = [*field("policy", f"v{status.policy_version:,}"), (" · ", "label")]
    return [*version, *field("lag", charts.rate(status.policy_lag))]


def losses(values: Mapping[str, float], width: int, height: int) -> list[Line]:
    """List the losses: in one column with full names if they fit, else in two columns with short ones."""
    columns = 1 if len(values) <= height else 2
    room = (width - 2 * (columns - 1)) // columns
    items: list[Line] = []
    for name, value in values.items():
        shown = name if columns == 1 and room >= 29 else _SHORT_LOSSES.get(name, name)
        items.append([*fit(clip(shown, "label", room - 10), room - 9), (f"{charts.number(value):>9}", "value")])
    rows = -(-len(items) // columns)
    both = zip(items[:rows], [*items[rows:], [], []][:rows], strict=True) if columns == 2 else ()
    return [[*one, ("  ", ""), *other] for one, other in both] if columns == 2 else items


def return_title(status: Status) -> Line:
    """Say the latest and the best mean return of an update."""
    points = charts.finite(status.returns)
    if not points:
        return []
    best = max(value for _, value in points)
    latest = field("latest", charts.number(status.returns[-1][1]))
    return [*latest, ("  ", ""), *field("best", charts.number(best), "good")]


def return_curve(status: Status, width: int, height: int) -> list[Line]:
    """Plot mean return over episodes learned, with labels on both axes, in `height` lines."""
    points = charts.finite(status.returns)
    rows, room = height - 1, width - 11
    if not points or rows < 1 or room < 4:
        why = "no finite return yet"
        if not status.returns:
            why = _COMPILING if status.phase == "compiling" else "no update yet"
        blank: Line = []
        return [*[blank] * (height // 2 - 1), [(why.center(width) if not points else "", "label")]]
    drawn, low, high = charts.curve(points, room, rows)
    labels = {0: high, rows - 1: low} if rows > 1 else {0: high}
    if rows >= 5:
        middle = rows // 2
        labels[middle] = high + (low - high) * (middle / (rows - 1))
    lines: list[Line] = [
        [
            (f"{charts.number(labels[row]) if row in labels else '':>9} ", "label"),
            ("┤" if row in labels else "│", "border"),
            (text, ramp(row, rows)),
        ]
        for row, text in enumerate(drawn)
    ]
    first, last = f"{points[0][0]:,}", f"{points[-1][0]:,} episodes"
    axis = f"{first}{last:>{room - len(first)}}" if room > len(first) + len(last) else f"{last:>{room}}"
    return [*lines, [(" " * 10, ""), ("└", "border"), (axis, "label")]]


def metrics(status: Status, width: int, height: int) -> list[Line]:
    """Tell the environment's metrics in the last update, and how many episodes told one where not all did."""
    items: list[Line] = []
    for name, told in status.metrics.items():
        of = "" if told.count == status.batch_episodes else f" ({told.count:,} of {status.batch_episodes:,})"
        items.append([*clip(name, "label", 30), (f" {charts.number(told.mean)}", "value"), (of, "label")])
    lines = flow(items, width - 2)
    return lines if len(lines) <= height else [*lines[: height - 1], [*lines[height - 1], (" …", "label")]]


def accounting(status: Status, width: int) -> list[Line]:
    """Say where every episode went, to the digit."""
    fields = [
        field("played", f"{status.episodes_played:,}"),
        field("= learned", f"{status.episodes_learned:,}"),
        field("+ waiting", f"{status.episodes_waiting:,}"),
        field("+ discarded", f"{status.episodes_discarded:,}"),
        field("+ lost", f"{status.episodes_lost:,}", "bad" if status.episodes_lost else "value"),
    ]
    if status.episodes_given_up:
        fields.append(field("given up", f"{status.episodes_given_up:,}", "bad"))
    return flow(fields, width, gap=1)


def error(status: Status, width: int, height: int) -> list[Line]:
    """Repeat the first error of the run, in at most `height` lines."""
    return paragraph(f"✗ first error: {status.first_error}", "bad", width, height) if status.first_error else []


def warnings(status: Status, width: int, height: int) -> list[Line]:
    """List the newest warnings, at most `height`, one to a line."""
    newest = status.warnings[-height:] if height > 0 else ()
    return [clip(f"! {text}", "warn", width) for text in newest]

"""A run in words: one line per update for logs, the summary at the end, and a picture for documents."""

from __future__ import annotations

import io
import math
from pathlib import Path

from rich.console import Console
from rich.text import Text

from aiotrain.app.console import charts, panels
from aiotrain.app.console.frame import render
from aiotrain.domains import Panel
from aiotrain.training.status import Status


def plain_line(status: Status, panel: Panel | None = None) -> str:
    """Return the run's state as one line of `key=value` pairs, always the same keys first.

    Keys: update (count), episodes (finished/budget), played, learned, waiting, discarded, lost, given_up (counts, as of
    Status), return and best (mean return of the last update and of the best one), eps and sps (episodes and steps per
    second), lag (publishes), elapsed_s; then those that ``panel`` has for the curriculum, the environment's metrics
    that some episode of the last update told (their means), and the losses by name. A quantity without a value is nan.
    """
    best = max((value for _, value in charts.finite(status.returns)), default=math.nan)
    latest = status.returns[-1][1] if status.returns else math.nan
    pairs = {
        "update": f"{status.updates}",
        "episodes": f"{status.episodes_finished}/{status.episodes_total}",
        "played": f"{status.episodes_played}",
        "learned": f"{status.episodes_learned}",
        "waiting": f"{status.episodes_waiting}",
        "discarded": f"{status.episodes_discarded}",
        "lost": f"{status.episodes_lost}",
        "given_up": f"{status.episodes_given_up}",
        "return": f"{latest:.6g}",
        "best": f"{best:.6g}",
        "eps": f"{status.episodes_per_s:.4g}",
        "sps": f"{status.steps_per_s:.6g}",
        "lag": f"{status.policy_lag:.3g}",
        "elapsed_s": f"{status.elapsed_s:.1f}",
    }
    if panel is not None and status.curriculum is not None:
        told_by_panel = panel.log(status.curriculum)
        pairs |= {_key(name): "_".join(charts.printable(value).split()) for name, value in told_by_panel.items()}
    pairs |= {_key(name): f"{told.mean:.4g}" for name, told in status.metrics.items()}
    pairs |= {_key(name): f"{value:.4g}" for name, value in status.losses.items()}
    return " ".join(f"{name}={value}" for name, value in pairs.items())


def _key(name: str) -> str:
    return "".join(character if character.isascii() and character.isalnum() else "_" for character in name)


def summary(status: Status, panel: Panel | None = None) -> Text:
    """Return the last word of a run: how it ended, the exact accounting, throughput, return, first error.

    ``panel`` says what the curriculum came to.
    """
    text = Text()

    def row(label: str, value: str, style: str = "") -> None:
        text.append(f"{label:<12}", "bold")
        text.append(f"{value}\n", style)

    row(status.phase, f"{charts.printable(status.run_name)} after {charts.duration(status.elapsed_s)}")
    accounts = (
        f"{status.episodes_played:,} played = {status.episodes_learned:,} learned + {status.episodes_waiting:,} waiting"
        f" + {status.episodes_discarded:,} discarded + {status.episodes_lost:,} lost"
    )
    row("episodes", f"{accounts}\n{'':12}of a budget of {panels.budget(status)}, {status.episodes_given_up:,} given up")
    episodes_rate, steps_rate = charts.rate(status.mean_episodes_per_s), charts.rate(status.mean_steps_per_s)
    mean = f"{episodes_rate} episodes/s, {steps_rate} steps/s"
    row("throughput", f"{mean} on average, {status.steps_finished:,} steps")
    points = charts.finite(status.returns)
    if points:
        episodes, best = max(points, key=lambda point: point[1])
        latest = charts.number(status.returns[-1][1])
        row("return", f"best {charts.number(best)} after {episodes:,} episodes, latest {latest}")
    else:
        row("return", "none measured")
    if panel is not None and status.curriculum is not None:
        for label, told in panel.summary(status.curriculum).items():
            row(charts.printable(label), _indented(told))
    restarts = sum(worker.restarts for worker in status.workers)
    counts = f"restarted {charts.counted(restarts, 'time')}, {charts.counted(status.warnings_count, 'warning')}"
    row("workers", f"{len(status.workers):,}, {counts}")
    if status.first_error:
        row("error", _indented(status.first_error), "bold red")
    return text


def _indented(text: str) -> str:
    """Return the lines of a text from outside, all but the first one indented as far as a label reaches."""
    return f"\n{'':12}".join(charts.printable(line) for line in text.splitlines() if line.strip())


def save_svg(status: Status, path: str | Path, panel: Panel | None = None, width: int = 110, height: int = 36) -> None:
    """Write the frame of `status` to an SVG file: a terminal of `width` cells by `height` lines."""
    recorder = Console(
        record=True,
        file=io.StringIO(),
        width=width,
        height=height,
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
        _environ={},  # NO_COLOR and the like belong to the caller's terminal, not to the picture
    )
    recorder.print(render(status, width, height, panel), end="")
    title = charts.printable(status.run_name)
    # a fixed id: the same status gives the same file
    Path(path).write_text(recorder.export_svg(title=title, unique_id="aiotrain"), encoding="utf-8")

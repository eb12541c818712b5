"""CPU time of one redraw of the console, and the share of a core that it takes at the console's own rate.

    python -m bench.console --workers 100 --redraws 300

Every redraw draws another status, goes through the whole path (frame, ANSI codes, changed lines) and is written to
/dev/null. CPU time is that of the process; wall time tells how long a redraw keeps the interpreter lock busy.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import math
import random
import statistics
import time
from pathlib import Path

from rich.console import Console

from aiotrain import Trainer
from aiotrain.app.console import REDRAWS_PER_S, show
from aiotrain.cage2.search.status import OrderEstimate, TrainingStatus, WorkflowStatus
from aiotrain.collect.protocol import WorkerState, WorkerStatus
from aiotrain.training.status import Status
from bench.tools.figures import Figures
from bench.tools.progress import say
from bench.tools.report import Report
from bench.tools.runs import config_of
from bench.tools.script import Script

TAKES = "40 seconds"
SMALLEST = "--workers 10 --updates 20 --redraws 5"

SIZES = ((80, 24), (110, 36), (160, 50), (240, 70))
WARM_UP = 2
"""Redraws that do not count: styles and cell widths are cached."""


def statuses(workers: int, updates: int, count: int) -> list[Status]:
    """Return what a run of the default job looks like at so many moments."""
    chance = random.Random(1)
    states = [WorkerState.PLAYING] * 17 + list(WorkerState)
    order = "enterprise,user,op_host,op_server,defender"
    first = dataclasses.replace(
        Trainer(config_of(["--workers", str(workers)])).status(),
        phase="training",
        slots=256,
        slots_in_use=188,
        ring_bytes=12_900_000,
        policy_version=412,
        collect_share=0.27,
        learn_share=0.63,
        returns=tuple((107 * i, -100 * math.exp(-i / 80) + chance.gauss(0, 3)) for i in range(1, updates + 1)),
        updates=updates,
        warnings=("Worker 17 was killed by signal 9; restarted.",) * 5,
        warnings_count=5,
        first_error="Worker 3: ValueError",
        curriculum=WorkflowStatus(
            running=tuple(TrainingStatus(order, 12 + place, 250, 0.92) for place in range(3)),
            threshold=0.95,
            trainings=11,
            complied=7,
            best=tuple(OrderEstimate(order, -50.0 - place, 2.5, place < 3) for place in range(5)),
        ),
    )
    losses = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "explained_variance")
    return [
        dataclasses.replace(
            first,
            elapsed_s=0.5 * i,
            episodes_finished=40 * i,
            episodes_per_s=chance.uniform(60, 80),
            episodes_per_s_history=tuple(chance.uniform(60, 80) for _ in range(120)),
            workers=tuple(WorkerStatus(chance.choice(states), int(n % 40 == 0), i) for n in range(workers)),
            losses={name: chance.gauss(0, 1) for name in losses},
        )
        for i in range(count)
    ]


def redraw(shown: list[Status], width: int, height: int) -> tuple[float, list[float]]:
    """Draw each status; return the CPU ms of a redraw, and the wall ms of each."""
    moments: list[tuple[float, float]] = []
    coming = iter([*shown, dataclasses.replace(shown[-1], phase="finished")])
    last = shown[-1]

    async def note_moment(_: float) -> None:
        moments.append((time.perf_counter(), time.process_time()))

    with Path("/dev/null").open("w", encoding="utf-8") as sink:
        console = Console(file=sink, force_terminal=True, color_system="truecolor", width=width, height=height)
        asyncio.run(show(lambda: next(coming, last), console, sleep=note_moment))
    walls, cpus = zip(*moments[WARM_UP:], strict=True)
    cpu_ms = 1e3 * (cpus[-1] - cpus[0]) / (len(cpus) - 1)
    return cpu_ms, [1e3 * (after - before) for before, after in itertools.pairwise(walls)]


def main() -> None:
    script = Script.of(__file__)
    parser = script.parser()
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--redraws", type=int, default=300)
    arguments = script.parse(parser)
    report = Report(script, arguments)
    shown = statuses(arguments.workers, arguments.updates, WARM_UP + 1 + arguments.redraws)
    figures = Figures()
    for width, height in SIZES:
        say(f"drawing {width}x{height}")
        cpu_ms, walls_ms = redraw(shown, width, height)
        size = f"{width}x{height}"
        figures.note(size, "a redraw", cpu_ms, "CPU ms")
        figures.note(size, "wall time, p50", statistics.median(walls_ms), "ms")
        figures.note(size, "wall time, max", max(walls_ms), "ms")
        figures.note(size, f"at {REDRAWS_PER_S:g} redraws/s", cpu_ms * REDRAWS_PER_S / 10, "% of a core")
    report.finish(figures, f"The console with {arguments.workers} workers")


if __name__ == "__main__":
    main()

"""Time of ``aiotrain --workers 100`` to its first finished episode, its memory, and how late its event loop gets.

    python -m bench.startup
    python -m bench.startup --workers 2 10 100 --simulator cyborg

Each repeat starts the real program in a terminal of 160x50 (a pseudo-terminal), so that the console is drawn, waits for
the first finished episode (also with an empty cache of compiled code), and sums up the memory (PSS: shared pages
counted once) of its processes in full training. Lateness is measured in a training of its own, with the console drawn,
by a coroutine that asks to be woken every 5 ms. Every other flag is one of aiotrain's own.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console

from aiotrain import Config, Trainer
from aiotrain.app.console import show
from aiotrain.collect.protocol import WorkerState
from bench.tools.figures import Figures
from bench.tools.program import open_terminal, start_up
from bench.tools.progress import say
from bench.tools.report import Report
from bench.tools.runs import ENDLESS, config_of
from bench.tools.script import Script
from bench.tools.training import run

TAKES = "4 minutes"
SMALLEST = "--workers 1 --repeats 1 --seconds 0.3 --warm-only"

PROBE_S = 0.005


async def lateness(config: Config, seconds: float) -> dict[str, float]:
    """Return how many ms later than asked the event loop wakes a coroutine, in training with the console drawn."""
    late: list[float] = []

    async def probe() -> None:
        while True:
            due = time.perf_counter() + PROBE_S
            await asyncio.sleep(PROBE_S)
            late.append(1e3 * (time.perf_counter() - due))

    with os.fdopen(open_terminal(), "w") as terminal:
        console = Console(file=terminal, force_terminal=True, width=160, height=50)
        async with Trainer(config) as trainer:
            showing = asyncio.create_task(show(trainer.status, console))
            probing: asyncio.Task[None] | None = None
            async for _ in trainer:
                up = all(worker.state is not WorkerState.STARTING for worker in trainer.status().workers)
                if probing is None and up:
                    probing = asyncio.create_task(probe())
                if len(late) * PROBE_S > seconds:
                    break
            if probing is not None:
                probing.cancel()
        await asyncio.wait([showing], timeout=5)
        showing.cancel()
    quantiles = statistics.quantiles(late, n=1000)
    return {"loop late, p50": quantiles[499], "p99": quantiles[989], "max": max(late)}


def measure(workers: int, flags: list[str], seconds: float, warm_only: bool, figures: Figures) -> None:
    """Note one repeat."""
    subject = f"{workers} workers"
    budget = [*ENDLESS, *flags]
    if not warm_only:
        with tempfile.TemporaryDirectory(prefix="bench-") as empty:
            cold = start_up(budget, workers, cache=Path(empty))
        say(f"{subject}: first episode after {cold['first_episode_s']:.1f} s with an empty cache")
        figures.note(subject, "first episode, empty cache", cold["first_episode_s"], "s")
    started = start_up(budget, workers)
    say(f"{subject}: first episode after {started['first_episode_s']:.1f} s")
    figures.note(subject, "first episode", started["first_episode_s"], "s")
    figures.note(subject, "until then", started["first_episode_cpu_s"], "CPU s")
    figures.note(subject, "memory (PSS)", started["pss_mib"], "MiB")
    figures.note(subject, "end", started["end_s"], "s")
    for name, late_ms in run(lateness(config_of([*budget, "--workers", str(workers)]), seconds)).items():
        figures.note(subject, name, late_ms, "ms")


def main() -> None:
    script = Script.of(__file__)
    parser = script.parser()
    parser.add_argument("--workers", type=int, nargs="+", default=[100])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each lateness measurement")
    parser.add_argument("--warm-only", action="store_true", help="leave out the start with an empty cache")
    arguments, flags = script.parse_known(parser)
    report = Report(script, arguments)
    figures = Figures()
    for repeat in range(arguments.repeats):
        say(f"repeat {repeat + 1} of {arguments.repeats}")
        for workers in arguments.workers:
            measure(workers, flags, arguments.seconds, arguments.warm_only, figures)
    report.finish(figures, " ".join(["aiotrain", *flags]))


if __name__ == "__main__":
    main()

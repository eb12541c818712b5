"""A long training at the highest rate: does anything grow, or slow down?

    python -m bench.soak                            # 100 workers for 20 minutes
    python -m bench.soak --minutes 2 --workers 8

Every ten seconds: memory of the main process and of all workers (PSS), file descriptors, threads and processes, and
episodes/s since. Reported for each are the first and the last fifth of the run after a warm-up of two minutes (a tenth
of shorter runs), and the slope of the straight line through all samples, per hour.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path

import numpy as np
import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from aiotrain import Config, Trainer
from bench.tools.processes import family, memory

SAMPLE_S = 10.0
WARM_UP_S = 120.0
WHAT = {
    "main_mib": "main process, PSS MiB",
    "others_mib": "all other processes, PSS MiB",
    "descriptors": "file descriptors of the main process",
    "threads": "threads of the main process",
    "processes": "processes",
    "episodes_per_s": "episodes/s",
}


def sample() -> dict[str, float]:
    """What the processes hold now; reading it takes a while."""
    me, *others = family(psutil.Process().pid)
    return {
        "main_mib": memory(me) / 2**20,
        "others_mib": sum(memory(process) for process in others) / 2**20,
        "descriptors": me.num_fds(),
        "threads": me.num_threads(),
        "processes": len(others),
    }


async def soak(config: Config, seconds: float) -> list[dict[str, float]]:
    """Train for so long, and sample."""
    samples: list[dict[str, float]] = []

    async def watch(trainer: Trainer) -> None:
        at_s, episodes = time.monotonic(), trainer.episodes
        while True:
            await asyncio.sleep(SAMPLE_S)
            now_s, now = time.monotonic(), trainer.episodes
            taken = await asyncio.to_thread(sample)
            samples.append({"at_s": now_s - began, "episodes_per_s": (now - episodes) / (now_s - at_s)} | taken)
            at_s, episodes = now_s, now

    async with Trainer(config) as trainer:
        began = time.monotonic()
        watching = asyncio.create_task(watch(trainer))
        async for _ in trainer:
            if time.monotonic() - began > seconds:
                break
        watching.cancel()
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--workflow", default="none", help="as of run.py")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    config = Config(workers=arguments.workers, workflow=arguments.workflow, total_episodes=10**12)
    seconds = 60 * arguments.minutes
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        samples = runner.run(soak(config, seconds))
    warm = [each for each in samples if each["at_s"] > min(WARM_UP_S, seconds / 10)]
    hours = np.array([each["at_s"] for each in warm]) / 3600
    fifth = max(len(warm) // 5, 1)
    table = Table(title=f"{arguments.workers} workers, {arguments.minutes:g} minutes")
    for column in ("", "first fifth", "last fifth", "slope per hour"):
        table.add_column(column, justify="right" if column else "left")
    for key, heading in WHAT.items():
        values = np.array([each[key] for each in warm])
        slope = float(np.polyfit(hours, values, 1)[0])
        first, last = float(np.mean(values[:fifth])), float(np.mean(values[-fifth:]))
        table.add_row(heading, f"{first:,.1f}", f"{last:,.1f}", f"{slope:+,.1f}")
    Console(width=120).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(samples, indent=1))


if __name__ == "__main__":
    main()

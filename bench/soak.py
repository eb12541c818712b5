"""A long training at the highest rate: does anything grow, or slow down?

    python -m bench.soak                            # 100 workers for 20 minutes
    python -m bench.soak --minutes 2 --workers 8

Every ten seconds: memory of the main process and of all workers (PSS), file descriptors, threads and processes, and
episodes/s since. Reported for each are the first and the last fifth of the run after a warm-up of two minutes (a tenth
of shorter runs), and the slope of the straight line through all samples, per hour. Every other flag is one of
aiotrain's own.
"""

from __future__ import annotations

import asyncio
import time

import numpy as np
import psutil

from aiotrain import Config, Trainer
from bench.tools.figures import Figures
from bench.tools.processes import family, memory
from bench.tools.progress import say
from bench.tools.report import Report
from bench.tools.runs import ENDLESS, config_of
from bench.tools.script import Script
from bench.tools.training import run

TAKES = "20 minutes"
SMALLEST = "--minutes 0.03 --sample-s 0.3 --workers 1"

WARM_UP_S = 120.0
WHAT = {
    "main_mib": ("main process, PSS", "MiB"),
    "others_mib": ("all other processes, PSS", "MiB"),
    "descriptors": ("file descriptors of the main process", ""),
    "threads": ("threads of the main process", ""),
    "processes": ("processes", ""),
    "episodes_per_s": ("speed", "episodes/s"),
}


def sample() -> dict[str, float]:
    """Return what the processes hold now; reading it takes a while."""
    me, *others = family(psutil.Process().pid)
    return {
        "main_mib": memory(me) / 2**20,
        "others_mib": sum(memory(process) for process in others) / 2**20,
        "descriptors": me.num_fds(),
        "threads": me.num_threads(),
        "processes": len(others),
    }


async def soak(config: Config, seconds: float, sample_s: float) -> list[dict[str, float]]:
    """Train for so long, and sample."""
    samples: list[dict[str, float]] = []

    async def watch(trainer: Trainer) -> None:
        at_s, episodes = time.monotonic(), trainer.episodes
        while True:
            await asyncio.sleep(sample_s)
            now_s, now = time.monotonic(), trainer.episodes
            taken = await asyncio.to_thread(sample)
            samples.append({"at_s": now_s - began, "episodes_per_s": (now - episodes) / (now_s - at_s)} | taken)
            say(f"{samples[-1]['episodes_per_s']:,.0f} episodes/s, main process {taken['main_mib']:,.1f} MiB")
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
    script = Script.of(__file__)
    parser = script.parser()
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--workflow", default="none", help="as of aiotrain")
    parser.add_argument("--sample-s", type=float, default=10.0, help="seconds between samples")
    arguments, flags = script.parse_known(parser)
    report = Report(script, arguments)
    mine = ["--workers", str(arguments.workers), "--workflow", arguments.workflow]
    seconds = 60 * arguments.minutes
    samples = run(soak(config_of([*ENDLESS, *mine, *flags]), seconds, arguments.sample_s))
    warm = [each for each in samples if each["at_s"] > min(WARM_UP_S, seconds / 10)]
    if len(warm) < 2:
        raise SystemExit("there are not two samples: more --minutes are needed")
    hours = np.array([each["at_s"] for each in warm]) / 3600
    fifth = max(len(warm) // 5, 1)
    figures = Figures()
    for key, (subject, unit) in WHAT.items():
        values = np.array([each[key] for each in warm])
        name = f"{subject}, {unit}" if unit else subject
        figures.note(name, "first fifth", float(np.mean(values[:fifth])))
        figures.note(name, "last fifth", float(np.mean(values[-fifth:])))
        figures.note(name, "slope per hour", float(np.polyfit(hours, values, 1)[0]))
    report.finish(figures, f"{arguments.workers} workers, {arguments.minutes:g} minutes", {"samples": samples})


if __name__ == "__main__":
    main()

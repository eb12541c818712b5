"""Training on CAGE 2 while workers are killed at random.

    python -m bench.chaos                               # one every 0.5 s, beside undisturbed runs
    python -m bench.chaos --every 5 --simulator cyborg --total-episodes 5000     # what a lost worker costs

In each repeat an undisturbed run and a disturbed one of the same seed and budget take turns. Reported are how they
ended, the account of the disturbed one to the digit, the mean return of all episodes and of the last thousand,
episodes/s, and the seconds from a kill until the worker that replaces it is ready. Every other flag is one of
aiotrain's own. The exit code is 1 if a run did not finish, or if its account does not add up.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import sys
import time

import psutil

from aiotrain import Config, Trainer
from aiotrain.collect.protocol import WorkerState
from bench.tools.figures import Figures
from bench.tools.progress import say
from bench.tools.report import Report
from bench.tools.runs import config_of
from bench.tools.script import Script
from bench.tools.training import run

TAKES = "5 minutes"
SMALLEST = "--workers 4 --repeats 1 --every 0.4 --total-episodes 1500"

LAST_EPISODES = 1_000
READY = (WorkerState.WAITING, WorkerState.PLAYING)


def worker_processes() -> list[psutil.Process]:
    """Return the workers: they, and nothing else here, run at a niceness of their own."""
    me = psutil.Process()
    found = []
    for child in me.children(recursive=True):
        try:
            if child.nice() > me.nice():
                found.append(child)
        except psutil.NoSuchProcess:
            pass
    return found


async def kill_workers(trainer: Trainer, every_s: float, replaced_s: list[float]) -> None:
    """Kill a random worker every so often, and note how long each took to be replaced."""
    chance = random.Random(0)
    watching: set[asyncio.Task[None]] = set()
    while True:
        await asyncio.sleep(every_s)
        before = [worker.restarts for worker in trainer.status().workers]
        if victims := await asyncio.to_thread(worker_processes):
            os.kill(chance.choice(victims).pid, signal.SIGKILL)
            watching.add(asyncio.create_task(note_replacement(trainer, before, replaced_s)))


async def note_replacement(trainer: Trainer, before: list[int], replaced_s: list[float]) -> None:
    """Wait until a worker was restarted, and is ready."""
    began = time.monotonic()
    while True:
        for worker, restarts in zip(trainer.status().workers, before, strict=True):
            if worker.restarts == restarts + 1 and worker.state in READY:
                replaced_s.append(time.monotonic() - began)
                return
        await asyncio.sleep(0.01)


async def train(config: Config, every_s: float | None, subject: str, figures: Figures) -> tuple[float, bool]:
    """Train to the end; with ``every_s``, workers are killed. Return episodes/s, and whether it ended as it must."""
    replaced_s: list[float] = []
    points: list[tuple[float, int]] = []
    returns: list[float] = []
    killing: asyncio.Task[None] | None = None
    async with Trainer(config) as trainer:
        async for update in trainer:
            if every_s is not None and killing is None:
                killing = asyncio.create_task(kill_workers(trainer, every_s, replaced_s))
            points.append((time.monotonic(), update.episodes))
            returns.extend(update.returns)
        if killing is not None:
            killing.cancel()
    status = trainer.status()
    seconds = points[-1][0] - points[0][0]
    rate = (points[-1][1] - points[0][1]) / seconds
    for name, value, unit in (
        ("duration", seconds, "s"),
        ("restarts", sum(worker.restarts for worker in status.workers), ""),
        ("played", status.episodes_played, ""),
        ("learned", status.episodes_learned, ""),
        ("waiting", status.episodes_waiting, ""),
        ("lost", status.episodes_lost, ""),
        ("given up", status.episodes_given_up, ""),
        ("mean return", statistics.fmean(returns), ""),
        (f"of the last {LAST_EPISODES:,}", statistics.fmean(returns[-LAST_EPISODES:]), ""),
    ):
        figures.note(subject, name, value, unit)
    for taken_s in replaced_s:
        figures.note(f"replacements, {subject}", "a worker is replaced after", taken_s, "s")
    if replaced_s:
        figures.note(f"replacements, {subject}", "the longest", max(replaced_s), "s")
    figures.remarks[subject] = status.phase if status.adds_up else f"{status.phase}; the account does not add up"
    return rate, status.phase == "finished" and status.adds_up


def main() -> int:
    script = Script.of(__file__)
    parser = script.parser()
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--every", type=float, default=0.5, metavar="SECONDS", help="between two kills")
    parser.add_argument("--total-episodes", type=int, default=60_000)
    parser.add_argument("--repeats", type=int, default=3, help="each with a seed of its own")
    arguments, flags = script.parse_known(parser)
    report = Report(script, arguments)
    budget = ["--workers", str(arguments.workers), "--total-episodes", str(arguments.total_episodes)]
    figures = Figures()
    all_well = True
    for seed in range(arguments.repeats):
        config = config_of(["--workflow", "none", *budget, "--seed", str(seed), *flags])
        rates = {}
        for name, every_s in (("undisturbed", None), ("killed", arguments.every)):
            subject = f"{name}, seed {seed}"
            rates[name], well = run(train(config, every_s, subject, figures))
            all_well &= well
            say(f"{subject}: {rates[name]:,.1f} episodes/s, {figures.remarks[subject]}")
        figures.note("killed", "speed", rates["killed"], "episodes/s", ceiling=("undisturbed", rates["undisturbed"]))
        figures.note("undisturbed", "speed", rates["undisturbed"], "episodes/s")
    report.finish(figures, f"{arguments.workers} workers, one killed every {arguments.every:g} s")
    return int(not all_well)


if __name__ == "__main__":
    sys.exit(main())

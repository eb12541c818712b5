"""Training on CAGE 2 while workers are killed at random.

    python -m bench.chaos                               # one every 0.5 s, beside undisturbed runs
    python -m bench.chaos --every 5 --simulator cyborg --total-episodes 5000     # what a lost worker costs

In each repeat an undisturbed run and a disturbed one of the same seed and budget take turns. Reported are how they
ended, the account of the disturbed one to the digit, the mean return of all episodes and of the last thousand,
episodes/s, and the seconds from a kill until the worker that replaces it is ready.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import time
from pathlib import Path
from typing import Any

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from aiotrain import Config, Trainer
from aiotrain.cage2 import SIMULATORS
from aiotrain.collect.protocol import WorkerState
from aiotrain.training.status import Status

LAST_EPISODES = 1_000
READY = (WorkerState.WAITING, WorkerState.PLAYING)


def worker_processes() -> list[psutil.Process]:
    """They, and nothing else here, run at a niceness of their own."""
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


async def run(config: Config, every_s: float | None) -> dict[str, Any]:
    """A whole run, in which, with ``every_s``, workers are killed."""
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
    status: Status = trainer.status()
    return {
        "phase": status.phase,
        "seconds": points[-1][0] - points[0][0],
        "episodes_per_s": (points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0]),
        "played": status.episodes_played,
        "learned": status.episodes_learned,
        "waiting": status.episodes_waiting,
        "lost": status.episodes_lost,
        "given_up": status.episodes_given_up,
        "restarts": sum(worker.restarts for worker in status.workers),
        "mean_return": statistics.fmean(returns),
        "last_return": statistics.fmean(returns[-LAST_EPISODES:]),
        "replaced_s": replaced_s,
    }


def row(name: str, result: dict[str, Any]) -> list[str]:
    replaced = result["replaced_s"]
    return [
        name,
        result["phase"],
        f"{result['seconds']:.1f}",
        f"{result['restarts']}",
        f"{result['played']:,} = {result['learned']:,} + {result['waiting']:,} + {result['lost']:,}",
        f"{result['given_up']:,}",
        f"{result['mean_return']:.1f}",
        f"{result['last_return']:.1f}",
        f"{result['episodes_per_s']:,.1f}",
        f"{statistics.median(replaced):.2f}, {max(replaced):.2f}" if replaced else "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--every", type=float, default=0.5, metavar="SECONDS", help="between two kills")
    parser.add_argument("--simulator", choices=SIMULATORS, default="compiled")
    parser.add_argument("--total-episodes", type=int, default=60_000)
    parser.add_argument("--repeats", type=int, default=3, help="each with a seed of its own")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    table = Table(title=f"{arguments.workers} workers, one killed every {arguments.every:g} s")
    for column in (
        "run",
        "phase",
        "seconds",
        "restarts",
        "played = learned + waiting + lost",
        "given up",
        "mean return",
        "of the last 1,000",
        "episodes/s",
        "replaced after, s (median, worst)",
    ):
        table.add_column(column, justify="left" if column == "run" else "right")
    results: list[dict[str, Any]] = []
    for seed in range(arguments.repeats):
        config = Config(
            workers=arguments.workers,
            simulator=arguments.simulator,
            workflow="none",
            total_episodes=arguments.total_episodes,
            seed=seed,
        )
        pair = {}
        for name, every_s in (("undisturbed", None), ("killed", arguments.every)):
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                pair[name] = runner.run(run(config, every_s))
            table.add_row(*row(f"{name}, seed {seed}", pair[name]))
        results.append(pair)
    console = Console(width=190)
    console.print(table)
    ratios = [pair["killed"]["episodes_per_s"] / pair["undisturbed"]["episodes_per_s"] for pair in results]
    console.print(f"episodes/s, killed ÷ undisturbed: {statistics.median(ratios):.3f} (median of {len(ratios)})")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

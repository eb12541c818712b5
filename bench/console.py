"""CPU time of one redraw of the console, and the share of a core that it takes at the console's own rate.

    python -m bench.console [--workers 100] [--redraws 300] [--json FILE]

Every redraw draws another status, goes through the whole path (frame, ANSI codes, changed lines) and is
written to /dev/null. CPU time is that of the process; wall time tells how long a redraw keeps the GIL busy.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
import statistics
import time
from pathlib import Path

from rich.console import Console

from aiotrain.app.console import REDRAWS_PER_S
from aiotrain.app.console.live import _draw
from aiotrain.app.console.screen import Screen
from aiotrain.collect.protocol import WorkerState, WorkerStatus
from aiotrain.training.status import OrderEstimate, Status, TrainingStatus, WorkflowStatus


def statuses(workers: int, updates: int, count: int) -> list[Status]:
    rng = random.Random(1)
    states = [WorkerState.PLAYING] * 17 + list(WorkerState)
    returns = tuple((107 * i, -100 * math.exp(-i / 80) + rng.gauss(0, 3)) for i in range(1, updates + 1))
    names = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "explained_variance")
    order = "enterprise,user,op_host,op_server,defender"
    running = tuple(TrainingStatus(order, 12 + place, 250, 0.92) for place in range(3))
    best = tuple(OrderEstimate(order, -50.0 - place, 2.5, place < 3) for place in range(5))
    first = Status(
        "bench", "CAGE 2", "shared_memory", "cpu", "training", 0.0, 0.0, 10**6, None, 0, 0, 0, 0, 0, 0, 2, 0, 120,
        74.3, 7430.0, 70.1, 7010.0, (), (), 256, 188, 12_900_000, 412, 0.8, 0.27, 0.63, 0.1, 0.58,
        returns, 0.92, {}, updates, ("Worker 17 was killed by signal 9; restarted.",) * 5, 5, "Worker 3: ValueError",
        WorkflowStatus(running, 0.95, 11, 7, best),
    )  # fmt: skip
    return [
        dataclasses.replace(
            first,
            elapsed_s=0.5 * i,
            episodes_finished=40 * i,
            episodes_per_s=rng.uniform(60, 80),
            episodes_per_s_history=tuple(rng.uniform(60, 80) for _ in range(120)),
            workers=tuple(WorkerStatus(rng.choice(states), int(n % 40 == 0), i) for n in range(workers)),
            losses={name: rng.gauss(0, 1) for name in names},
        )
        for i in range(count)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--redraws", type=int, default=300)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    shown = statuses(args.workers, args.updates, args.redraws)
    results = []
    for width, height in ((80, 24), (110, 36), (160, 50), (240, 70)):
        with Path("/dev/null").open("w", encoding="utf-8") as sink:
            console = Console(file=sink, force_terminal=True, color_system="truecolor", width=width, height=height)
            screen = Screen(sink)
            _draw(console, screen, shown[0])  # styles and cell widths are cached from here on
            walls = []
            start = time.process_time()
            for status in shown:
                began = time.perf_counter()
                _draw(console, screen, status)
                walls.append(1000 * (time.perf_counter() - began))
            cpu_ms = 1000 * (time.process_time() - start) / len(shown)
        results.append(
            {
                "size": f"{width}x{height}",
                "workers": args.workers,
                "cpu_ms_per_redraw": round(cpu_ms, 2),
                "wall_ms_p50": round(statistics.median(walls), 2),
                "wall_ms_max": round(max(walls), 2),
                "redraws_per_s": REDRAWS_PER_S,
                "percent_of_a_core": round(cpu_ms * REDRAWS_PER_S / 10, 2),
            }
        )
    print("  ".join(f"{key:>17}" for key in results[0]))
    for result in results:
        print("  ".join(f"{value!s:>17}" for value in result.values()))
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

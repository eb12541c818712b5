"""What ``run.py --workers 100`` costs: time to the first finished episode, memory, and how late the event loop gets.

    python -m bench.startup
    python -m bench.startup --workers 2 10 100 --simulator cyborg

Each repeat starts the real program in a terminal of 160x50 (a pseudo-terminal), so that the console is drawn, waits for
the first finished episode (also with an empty cache of compiled code), and sums up the memory (PSS: shared pages
counted once) of its processes in full training. Lateness is measured in a training of its own, with the console drawn,
by a coroutine that asks to be woken every 5 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import pty
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from aiotrain import Config, Trainer
from aiotrain.app.console import show
from aiotrain.cage2 import SIMULATORS
from aiotrain.collect.protocol import WorkerState
from bench.tools.processes import family, memory

ROOT = Path(__file__).resolve().parent.parent
PROBE_S = 0.005


def open_terminal(width: int = 160, height: int = 50) -> int:
    """The far end of a pseudo-terminal whose output is read and thrown away."""
    near, far = pty.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def drain() -> None:
        try:
            while os.read(near, 65536):
                pass
        except OSError:
            pass

    threading.Thread(target=drain, daemon=True).start()
    return far


def start_up(workers: int, simulator: str, cache: Path | None = None) -> dict[str, float]:
    """Start the program; seconds to the first finished episode, and MiB of PSS once training is under way."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        terminal = open_terminal()
        began = time.time()
        command = [sys.executable, str(ROOT / "run.py"), "--workers", str(workers), "--run-dir", str(run_dir)]
        command += ["--simulator", simulator, "--total-episodes", "10000000"]
        variables = os.environ | ({"NUMBA_CACHE_DIR": str(cache)} if cache else {})
        program = subprocess.Popen(
            command, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True, env=variables
        )
        try:
            first = wait_for(lambda: first_episode(run_dir), program)
            wait_for(lambda: len(family(program.pid)) > workers, program)
            done = rows(run_dir)
            wait_for(lambda: rows(run_dir) > done + 2 * workers / 50, program)  # all have played
            pss = sum(memory(process) for process in family(program.pid))
        finally:
            program.send_signal(signal.SIGINT)
            program.wait(30)
            os.close(terminal)
    return {"first_episode_s": first - began, "pss_mib": pss / 2**20}


def wait_for(ready: Any, program: subprocess.Popen[bytes], seconds: float = 120.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := ready()):
        if time.monotonic() > deadline or program.poll() is not None:
            raise SystemExit(f"the program did not get going within {seconds:g} s (exit code {program.poll()})")
        time.sleep(0.05)
    return value


def first_episode(run_dir: Path) -> float | None:
    """Wall-clock time of the first finished episode, from the run's events."""
    try:
        lines = (run_dir / "events.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return None
    return next((event["time"] for event in map(json.loads, lines) if event["event"] == "first_episode"), None)


def rows(run_dir: Path) -> int:
    return len((run_dir / "updates.csv").read_text().splitlines()) - 1


async def lateness(workers: int, simulator: str, seconds: float) -> dict[str, float]:
    """How many ms later than asked the event loop wakes a coroutine, during training with the console drawn."""
    late: list[float] = []

    async def probe() -> None:
        while True:
            due = time.perf_counter() + PROBE_S
            await asyncio.sleep(PROBE_S)
            late.append(1e3 * (time.perf_counter() - due))

    with os.fdopen(open_terminal(), "w") as terminal:
        console = Console(file=terminal, force_terminal=True, width=160, height=50)
        async with Trainer(Config(workers=workers, simulator=simulator, total_episodes=10**7)) as trainer:
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
    return {"p50_ms": quantiles[499], "p99_ms": quantiles[989], "max_ms": max(late)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[100])
    parser.add_argument("--simulator", choices=SIMULATORS, default="compiled")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each lateness measurement")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    table = Table(title=f"{arguments.simulator}, medians of {arguments.repeats}")
    for column in (
        "workers",
        "first episode, empty cache, s",
        "first episode, s",
        "PSS of all, MiB",
        "loop late p50, ms",
        "p99, ms",
        "max, ms",
    ):
        table.add_column(column, justify="right")
    report = {}
    for workers in arguments.workers:
        results: list[dict[str, float]] = []
        for _ in range(arguments.repeats):
            with tempfile.TemporaryDirectory() as empty:
                cold = start_up(workers, arguments.simulator, Path(empty))["first_episode_s"]
            started = {"cold_s": cold} | start_up(workers, arguments.simulator)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                results.append(started | runner.run(lateness(workers, arguments.simulator, arguments.seconds)))
        median = {key: statistics.median(result[key] for result in results) for key in results[0]}
        table.add_row(str(workers), *(f"{value:,.1f}" for value in median.values()))
        report[workers] = results
    Console(width=140).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()

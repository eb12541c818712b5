"""Every collector at the same work: episodes/s, start-up, memory and bytes moved.

    python -m bench.collectors                                          # CAGE 2 on csle-cyborg, driven leanly
    python -m bench.collectors --workers 10 --collectors shared_memory executor ray synchronous older_winner
    python -m bench.collectors --env CartPole-v1 --collectors shared_memory executor

Each cell, a collector with so many workers, is measured in a program of its own: the whole training first (from the
making of the Trainer to the first finished episode; episodes learned per second once all workers are there), then
collection alone, with the memory (PSS) of all its processes. Right after the one and right before the other, bare
processes, one per core, play the same environment with the same NumPy policy without any communication: the ceiling
that its episodes/s are divided by. All cells take turns in each repeat. Every other flag is one of aiotrain's own.

Bytes moved per episode: what the main process reads and writes through pipes, as the system counts it (Ray's own
sockets are not counted), and the arrays that go through shared memory, weights included, as computed from their sizes.

older_winner is the fastest of the designs that these replace, as it was (bench/tools/older_winner.py): of CAGE 2 it
plays the stock wrapper, whatever the others play. executor_rebuilding is collector executor with --rebuild-env;
ray_two_nodes is a Ray cluster of two nodes, both on this machine, with half of the workers on each.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from aiotrain.collect.protocol import Collector, CollectorSettings
from aiotrain.config import Config
from bench.tools.ceiling import Ceiling
from bench.tools.collection import Collection
from bench.tools.figures import Figures
from bench.tools.older_winner import OlderWinner
from bench.tools.processes import family, memory
from bench.tools.progress import say
from bench.tools.report import Report
from bench.tools.runs import ENDLESS, config_of, plays_cage2
from bench.tools.script import Script
from bench.tools.training import run, train_for

TAKES = "an hour"
SMALLEST = (
    "--workers 1 --collectors shared_memory older_winner --repeats 1 --seconds 0.1 "
    "--env bench.tools.envs:stock_cage2 --max-episode-steps 5 --episodes-per-update 4"
)

COLLECTORS = ["shared_memory", "sequential", "synchronous", "process_per_episode", "executor", "ray"]
VARIANTS = {
    "executor_rebuilding": ["--collector", "executor", "--rebuild-env"],
    "ray_two_nodes": ["--collector", "ray", "--ray-address", "auto"],
}
STOCK = ["--env", "bench.tools.envs:stock_cage2", "--max-episode-steps", "100"]
OLDER = "older_winner"  # trains nothing
CEILING_S = 1.5
CELL_TIMEOUT_S = 600.0
END_S = 10.0  # for a cell that is done to end

COLUMNS = {
    "start_up_s": ("start-up", "s"),
    "pss_mib": ("PSS", "MiB"),
    "main_cpu_ms": ("main process", "CPU ms/episode"),
    "pipes_kib": ("through pipes", "KiB/episode"),
    "shared_kib": ("through shared memory", "KiB/episode"),
}
"""The figures without a ceiling."""


# ------------------------------------------------------------------- in a cell


def measure_cell(name: str, flags: list[str], seconds: float) -> dict[str, float]:
    """Return all figures of one collector. It runs in a program of its own."""
    config = config_of([*ENDLESS, *flags], cage2=("--simulator", "cyborg", "--workflow", "none"))
    result: dict[str, float] = {}
    nodes: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if name == "ray_two_nodes":
        config, nodes = dataclasses.replace(config, workers=config.workers // 2), two_nodes()
    with nodes:
        if name != OLDER:
            trained = run(train_for(config, seconds))
            top = ceiling()
            result |= {
                "start_up_s": trained["start_up_s"],
                "trained_per_s": trained["episodes_per_s"],
                "trained_ceiling_per_s": top * trained["episodes_per_s"] / trained["steps_per_s"],
            }
        return result | run(collect(name, config, seconds))


@contextlib.contextmanager
def two_nodes() -> Iterator[None]:
    """A Ray cluster to which this process is connected: a head that plays nothing, and two nodes."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        ray.init(cluster.address, configure_logging=False, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


async def collect(name: str, config: Config, seconds: float) -> dict[str, float]:
    """Return the episodes played per second, without a learner, what that moves, and memory."""
    collector: Collector | None = None
    if name == OLDER:
        settings = CollectorSettings(
            config.workers, config.envs_per_worker, config.seed, config.episode_timeout_s, config.start_timeout_s
        )
        collector = OlderWinner(config.env_factory(), settings, print)
    collection = Collection(config, collector)
    try:
        await collection.open()
        top = ceiling()
        pipes = psutil.Process().io_counters()
        measured = await collection.measure(seconds)
        now = psutil.Process().io_counters()
        moved = now.read_chars + now.write_chars - pipes.read_chars - pipes.write_chars
        pss = await asyncio.to_thread(lambda: sum(memory(process) for process in family(os.getpid())))
    finally:
        await collection.close()
    result = {
        "collected_per_s": measured["episodes_per_s"],
        "collected_ceiling_per_s": top * measured["episodes_per_s"] / measured["steps_per_s"],
        "main_cpu_ms": measured["main_cpu_ms_per_episode"],
        "pipes_kib": moved / measured["episodes"] / 1024,
        "shared_kib": 0.0,
        "pss_mib": pss / 2**20,
    }
    if config.collector in ("shared_memory", "ray") and name != OLDER:
        weights = 4 * collection.policy.size * config.workers / config.episodes_per_update  # each pulls each version
        result["shared_kib"] = (measured["trajectory_bytes"] / measured["episodes"] + weights) / 1024
    return result


def ceiling() -> float:
    """Have the program that started this one measure it now: steps per second."""
    print(json.dumps({"ceiling": None}), flush=True)
    return float(sys.stdin.readline())


# ------------------------------------------------------------------------ main


def run_cell(name: str, flags: list[str], seconds: float, top: Ceiling) -> dict[str, Any]:
    """Measure in a program of its own. What it died of is in ``error``."""
    command = [sys.executable, "-m", "bench.collectors", "--cell", json.dumps([name, flags, seconds])]
    with tempfile.TemporaryFile("w+") as errors:
        program = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
        assert program.stdin is not None
        assert program.stdout is not None
        killing = threading.Timer(CELL_TIMEOUT_S, os.killpg, (program.pid, signal.SIGKILL))
        killing.start()
        try:
            for line in program.stdout:
                told: dict[str, Any] | None = parsed(line)
                if told is not None and "ceiling" in told:
                    program.stdin.write(f"{top.measure(min(CEILING_S, seconds))}\n")
                    program.stdin.flush()
                elif told is not None:
                    return told
        finally:
            killing.cancel()
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(END_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.communicate()
        errors.seek(0)
        return {"error": (errors.read().strip().splitlines() or [f"exit code {program.returncode}"])[-1]}


def parsed(line: str) -> dict[str, Any] | None:
    """Return what a cell told, or None where something else printed."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def note_cell(subject: str, cell: dict[str, Any], figures: Figures) -> None:
    """Note all figures of a cell, or what it died of."""
    if "error" in cell:
        figures.remarks[subject] = str(cell["error"])
        say(f"{subject}: {cell['error']}")
        return
    for kind in ("collected", "trained"):
        if f"{kind}_per_s" in cell:
            rate, top = cell[f"{kind}_per_s"], cell[f"{kind}_ceiling_per_s"]
            figures.note(subject, kind, rate, "episodes/s", ceiling=("ceiling", top))
            say(f"{subject}: {kind} {rate:,.1f} episodes/s, {rate / top:.3f} of the ceiling")
    for key, (name, unit) in COLUMNS.items():
        if key in cell:
            figures.note(subject, name, cell[key], unit)


def measure(names: list[str], workers: list[int], repeats: int, seconds: float, flags: list[str]) -> Figures:
    """Measure all cells in turns."""
    figures = Figures()
    config = config_of([*ENDLESS, *flags], cage2=("--simulator", "cyborg", "--workflow", "none"))
    with Ceiling.of(config) as bare:
        for repeat in range(repeats):
            say(f"repeat {repeat + 1} of {repeats}")
            for count in workers:
                for name in names:
                    if name == "sequential" and count != workers[0]:
                        continue
                    variant = VARIANTS.get(name, ["--collector", "executor" if name == OLDER else name])
                    if name == OLDER and plays_cage2(config):
                        variant = variant + STOCK
                    cell = run_cell(name, [*flags, "--workers", str(count), *variant], seconds, bare)
                    note_cell(f"{name}, {count} workers", cell, figures)
    return figures


def draw(figures: Figures, path: Path, title: str) -> None:
    """Draw the share of the ceiling over workers, one line per collector."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(11, 4.5), layout="constrained")
    picture.suptitle(title)
    for axes, kind in zip(picture.subplots(1, 2, sharey=True), ("collected", "trained"), strict=True):
        lines: dict[str, list[tuple[int, float]]] = {}
        for figure in figures:
            if figure.name == kind and isinstance(figure.ratio, float):
                name, count = figure.subject.removesuffix(" workers").split(", ")
                lines.setdefault(name, []).append((int(count), figure.ratio))
        for name, points in lines.items():
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
        axes.set(title=kind, xlabel="workers", xscale="log", ylim=(0, None))
        axes.grid(alpha=0.3)
    picture.axes[0].set_ylabel("episodes/s ÷ ceiling")
    picture.axes[0].legend()
    picture.savefig(path, dpi=150)


def main() -> int:
    script = Script.of(__file__)
    parser = script.parser()
    parser.add_argument("--collectors", nargs="+", default=COLLECTORS, choices=[*COLLECTORS, *VARIANTS, OLDER])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 10, 50, 100])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--png", type=Path, metavar="FILE", help="a picture; needs matplotlib")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    arguments, flags = script.parse_known(parser)
    if arguments.cell:
        print(json.dumps(measure_cell(*json.loads(arguments.cell))))
        return 0
    report = Report(script, arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the cell in progress is ended
    figures = measure(arguments.collectors, arguments.workers, arguments.repeats, arguments.seconds, flags)
    title = " ".join(["aiotrain", *flags])
    if arguments.png:
        draw(figures, arguments.png, title)
    report.finish(figures, title)
    return int(bool(figures.remarks))  # of cells that died


if __name__ == "__main__":
    sys.exit(main())

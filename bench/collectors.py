"""Every collector at the same work: episodes/s, start-up, memory and bytes moved.

    python -m bench.collectors                                          # CAGE 2 on csle-cyborg, driven leanly
    python -m bench.collectors --workers 10 --collectors shared_memory executor ray synchronous older_winner
    python -m bench.collectors --env CartPole-v1 --collectors shared_memory executor

Each cell, a collector with so many workers, is measured in a program of its own: the whole training first (from the
making of the Trainer to the first finished episode; episodes learned per second once all workers are there), then
collection alone, with the memory (PSS) of all its processes. Right after the one and right before the other, bare
processes, one per core, play the same environment with the same NumPy policy without any communication: the ceiling
that its episodes/s are divided by. All cells take turns in each repeat, and medians are reported.

Bytes moved per episode: what the main process reads and writes through pipes, as the system counts it (Ray's own
sockets are not counted), and the arrays that go through shared memory, weights included, as computed from their sizes.

older_winner is the fastest of the designs that these replace, as it was (bench/tools/older_winner.py): of CAGE 2 it
plays the stock wrapper, whatever the others play. executor_rebuilding is collector executor with --rebuild-env;
synchronous_3 is collector synchronous with three barriers a step; ray_two_nodes is a Ray cluster of two nodes, both on
this machine, with half of the workers on each.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import tyro
import uvloop
from rich.console import Console
from rich.table import Table

from aiotrain import Config, PPOConfig, SearchConfig, Trainer
from aiotrain.app.main import Arguments
from aiotrain.cage2 import CAGE2_ID
from aiotrain.collect.processes import preload
from aiotrain.collect.protocol import Collector, CollectorSettings, WorkerState
from aiotrain.collect.selection import make_collector
from aiotrain.collect.synchronous import SynchronousCollector
from aiotrain.play.factory import make_factory
from bench.throughput import Ceiling, Collection
from bench.tools.older_winner import OlderWinner
from bench.tools.processes import family, memory

COLLECTORS = ["shared_memory", "sequential", "synchronous", "process_per_episode", "executor", "ray"]
VARIANTS: dict[str, dict[str, Any]] = {
    "executor_rebuilding": {"collector": "executor", "rebuild_env": True},
    "ray_two_nodes": {"collector": "ray", "ray_address": "auto"},
}
STOCK = {"env": "bench.tools.envs:stock_cage2", "max_episode_steps": 100}
UNTRAINED: dict[str, Callable[..., Collector]] = {
    "older_winner": OlderWinner,
    "synchronous_3": lambda *args: SynchronousCollector(*args, barriers=3),
}
WARM_UP_S = 1.0
CEILING_S = 1.5
CELL_TIMEOUT_S = 600.0
END_S = 10.0  # for a cell that is done to end


# ------------------------------------------------------------------- in a cell


def measure_cell(name: str, config: Config, seconds: float) -> dict[str, float]:
    """All figures of one collector; runs in a program of its own."""
    result: dict[str, float] = {}
    nodes: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if name == "ray_two_nodes":
        config, nodes = dataclasses.replace(config, workers=config.workers // 2), two_nodes()
    with nodes, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if name not in UNTRAINED:
            result |= runner.run(train(config, seconds))
        result |= runner.run(collect(name, config, seconds))
    return result


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


async def train(config: Config, seconds: float) -> dict[str, float]:
    """Start-up, and episodes learned per second once all workers are there."""
    began = time.perf_counter()
    points: list[tuple[float, int]] = []
    async with Trainer(config) as trainer:
        while not trainer.status().episodes_finished:
            await asyncio.sleep(0.01)
        started = time.perf_counter()
        async for update in trainer:
            if any(worker.state is WorkerState.STARTING for worker in trainer.status().workers):
                continue
            points.append((time.perf_counter(), update.episodes))
            warm = [point for point in points if point[0] - points[0][0] >= WARM_UP_S]
            if len(warm) > 2 and warm[-1][0] - warm[0][0] > seconds:
                break
    trained_per_s = (warm[-1][1] - warm[0][1]) / (warm[-1][0] - warm[0][0])
    return {
        "start_up_s": started - began,
        "trained_per_s": trained_per_s,
        "trained_ratio": trained_per_s * update.steps / update.episodes / ceiling(),
    }


async def collect(name: str, config: Config, seconds: float) -> dict[str, float]:
    """Episodes played per second, without a learner, what that moves, and memory."""
    factory = make_factory(config)
    if name in UNTRAINED:
        settings = CollectorSettings(
            config.workers, config.envs_per_worker, config.seed, config.episode_timeout_s, config.start_timeout_s
        )
        collector = UNTRAINED[name](factory, settings, print)
    else:
        collector = make_collector(config, factory, print)
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
        "collected_ratio": measured["steps_per_s"] / top,
        "main_cpu_ms": measured["main_cpu_ms_per_episode"],
        "pipes_kib": moved / measured["episodes"] / 1024,
        "shared_kib": 0.0,
        "pss_mib": pss / 2**20,
    }
    if config.collector in ("shared_memory", "ray") and name not in UNTRAINED:
        weights = 4 * collection.policy.size * config.workers / config.episodes_per_update  # each pulls each version
        result["shared_kib"] = (measured["trajectory_bytes"] / measured["episodes"] + weights) / 1024
    return result


def ceiling() -> float:
    """Have the program that started this one measure it now: steps per second."""
    print(json.dumps({"ceiling": None}), flush=True)
    return float(sys.stdin.readline())


# ------------------------------------------------------------------------ main


def run_cell(name: str, config: Config, seconds: float, top: Ceiling) -> dict[str, Any]:
    """Measure in a program of its own. What it died of is in ``error``."""
    settings = dataclasses.asdict(config)
    command = [sys.executable, "-m", "bench.collectors", "--cell", json.dumps([name, settings, seconds])]
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
                    program.stdin.write(f"{top.measure(CEILING_S)}\n")
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
    """What a cell told, or None where something else printed."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def measure(
    config: Config, names: list[str], workers: list[int], repeats: int, seconds: float, say: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """The rows of all repeats, by "collector, workers"."""
    factory = make_factory(config)
    preload(factory.modules)
    bare = Ceiling(factory, config.envs_per_worker, config.ppo.hidden_sizes, len(os.sched_getaffinity(0)))
    results: dict[str, list[dict[str, Any]]] = {}
    try:
        bare.measure(WARM_UP_S)
        for repeat in range(repeats):
            for count in workers:
                for name in names:
                    if name == "sequential" and count != workers[0]:
                        continue
                    variant = VARIANTS.get(name, {"collector": "executor" if name in UNTRAINED else name})
                    if name == "older_winner" and config.env == CAGE2_ID:
                        variant |= STOCK
                    cell = run_cell(name, dataclasses.replace(config, workers=count, **variant), seconds, bare)
                    results.setdefault(f"{name}, {count}", []).append(cell)
                    say(f"{repeat + 1}: {name}, {count} workers: {summary(cell)}")
    finally:
        bare.close()
    return results


def summary(cell: dict[str, Any]) -> str:
    if "error" in cell:
        return str(cell["error"])
    return ", ".join(
        f"{key} {cell[key]:.3g}" for key in ("collected_ratio", "trained_ratio", "start_up_s") if key in cell
    )


def medians(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Of each figure, over the repeats that came to their end."""
    good = [row for row in rows if "error" not in row]
    return {key: statistics.median(row[key] for row in good) for key in good[0]} if good else {}


COLUMNS = {
    "collected_per_s": ("collected, episodes/s", "{:,.1f}"),
    "collected_ratio": ("÷ ceiling", "{:.3f}"),
    "trained_per_s": ("trained, episodes/s", "{:,.1f}"),
    "trained_ratio": ("÷ ceiling", "{:.3f}"),
    "start_up_s": ("start-up, s", "{:.1f}"),
    "pss_mib": ("PSS, MiB", "{:,.0f}"),
    "main_cpu_ms": ("main process, CPU ms/episode", "{:.2f}"),
    "pipes_kib": ("through pipes, KiB/episode", "{:,.1f}"),
    "shared_kib": ("through shared memory", "{:,.1f}"),
}


def table(results: dict[str, list[dict[str, Any]]], title: str) -> Table:
    drawn = Table(title=title)
    for column in ("collector", "workers", *(heading for heading, _ in COLUMNS.values())):
        drawn.add_column(column, justify="left" if column == "collector" else "right")
    for key, rows in results.items():
        name, count = key.split(", ")
        median = medians(rows)
        figures = [form.format(median[key]) if key in median else "" for key, (_, form) in COLUMNS.items()]
        drawn.add_row(name, count, *figures, end_section=False)
    return drawn


def draw(results: dict[str, list[dict[str, Any]]], path: Path, title: str) -> None:
    """Share of the ceiling over workers, one line per collector."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    figure.suptitle(title)
    for axes, kind in zip(figure.subplots(1, 2, sharey=True), ("collected", "trained"), strict=True):
        lines: dict[str, list[tuple[int, float]]] = {}
        for key, rows in results.items():
            name, count = key.split(", ")
            if (ratio := medians(rows).get(f"{kind}_ratio")) is not None:
                lines.setdefault(name, []).append((int(count), ratio))
        for name, points in lines.items():
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
        axes.set(title=kind, xlabel="workers", xscale="log", ylim=(0, None))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("episodes/s ÷ ceiling")
    figure.axes[0].legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collectors", nargs="+", default=COLLECTORS, choices=[*COLLECTORS, *VARIANTS, *UNTRAINED])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 10, 50, 100])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--png", type=Path, metavar="FILE", help="a picture; needs matplotlib")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    arguments, others = parser.parse_known_args()
    if arguments.cell:
        name, settings, seconds = json.loads(arguments.cell)
        print(json.dumps(measure_cell(name, from_plain(settings), seconds)))
        return
    chosen = tyro.cli(
        Arguments,
        args=others,
        config=(tyro.conf.OmitArgPrefixes,),
        default=Arguments(simulator="cyborg", workflow="none", total_episodes=10**9),
    )
    config = Config(**{field.name: getattr(chosen, field.name) for field in dataclasses.fields(Config)})
    console = Console(width=180)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the cell in progress is ended
    results = measure(
        config, arguments.collectors, arguments.workers, arguments.repeats, arguments.seconds, console.print
    )
    title = f"{config.env}, medians of {arguments.repeats}"
    console.print(table(results, title))
    if arguments.png:
        draw(results, arguments.png, title)
    if arguments.json:
        arguments.json.write_text(json.dumps({"config": config.resolved(), "results": results}, indent=1, default=str))


def from_plain(settings: dict[str, Any]) -> Config:
    """The configuration that was sent as JSON."""
    groups = {"ppo": PPOConfig, "workflow_search": SearchConfig}
    for name, kind in groups.items():
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in settings[name].items()}
        settings[name] = kind(**values)
    return Config(**settings)


if __name__ == "__main__":
    main()

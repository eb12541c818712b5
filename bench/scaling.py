"""Episodes a second that other numbers of cores would give, and what would hold them up first.

    python -m bench.scaling                                                    # CAGE 2, the compiled simulator
    python -m bench.scaling --simulator cyborg --workflow none                 # csle-cyborg, driven leanly
    python -m bench.scaling --env CartPole-v1 --envs-per-worker 16 --steps-per-update 8192
    python -m bench.scaling --png scaling.png --json scaling.json

Measured in every repeat: CPU time of an episode in a worker and in the learner (bench.tools.one_process), of a task and
of an episode in the event loop's process (from tasks of the usual size, and from the smallest possible), the bandwidth
of copying memory, and the memory of the processes. From the medians follows, for c cores and a worker on each:

    collected ≤ c / (worker + loop)             the loop's process takes its share of the cores first
    collected ≤ 1 / loop                        there is one event loop
    collected ≤ bandwidth / bytes               a trajectory crosses memory about eight times on its way to the learner
    trained   ≤ c / (worker + loop + learner)
    trained   ≤ 1 / learner                     one thread
    trained   ≤ batch / time of a task          at a policy lag of 1, a batch is learned while the next is played

Where batches are to be played by many workers, tasks are smaller and cost the loop more: they are sized as the
collector does it. At a policy lag of 0, playing and learning take turns. The smallest of these is the prediction, and
is compared with what is collected and trained on the cores here, restricted to 1, 2, 4, … of them; cores that other
programs took meanwhile are not counted (/proc/stat). Every other flag is one of aiotrain's own.

Assumed: all cores are alike and as fast together as alone (no NUMA, no frequency drop, no hyper-threads that share a
core, no shared cache that overflows); memory is as fast as one core copies; the learner computes on the CPU in one
thread that leaves the event loop its time; a task costs the event loop the same at any rate and for any number of
workers (at a low rate, with cold caches, it costs two to three times as much as where the loop is busy; so for CAGE 2
it is measured with the compiled simulator, while for other environments, the slower they are, the slower the event loop
looks); episodes stay as long, and the policy as costly, as at the beginning of training; the search over workflows
costs nothing.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aiotrain.cage2 import Cage2
from aiotrain.collect import shared_memory_collector
from aiotrain.config import Config
from bench.tools.collection import Collection
from bench.tools.figures import Figures
from bench.tools.one_process import parts
from bench.tools.processes import family, memory
from bench.tools.progress import say
from bench.tools.report import Report
from bench.tools.runs import ENDLESS, config_of
from bench.tools.script import Script
from bench.tools.training import run, train_for

TAKES = "5 minutes"
SMALLEST = "--repeats 1 --seconds 0.1 --cores 1 --env CartPole-v1 --steps-per-update 200"

CORES = tuple(2**power for power in range(10))
CROSSINGS = 8
"""Of a trajectory through memory: written by the worker, copied three times (each reads and writes), read to learn."""


# ------------------------------------------------------------------------- model


@dataclasses.dataclass(frozen=True)
class Costs:
    """What an episode costs; ms are CPU time."""

    worker_ms: float
    task_ms: float
    """Of the event loop's process, for a task."""
    episode_ms: float
    """Of the event loop's process, for an episode in addition."""
    learner_ms: float
    bytes: float
    """Moved through memory."""
    bytes_per_s: float
    """Bandwidth of memory."""
    main_pss: float
    worker_pss: float
    usual_task: float
    """Episodes in a task where there is always more to play than the workers can."""
    batch: float
    """Episodes an update."""
    envs: int
    """Per worker."""
    lag: int

    def loop_ms(self, task: float) -> float:
        """CPU ms of the event loop's process per episode, in tasks of so many episodes."""
        return self.task_ms / task + self.episode_ms

    def task(self, cores: float) -> float:
        """Episodes in a task while batches are trained on, as the collector sizes it for two tasks on each worker."""
        least = max(self.envs, math.ceil(1e3 * shared_memory_collector._LEAST_TASK_CPU_S / self.worker_ms))
        return min(max(least, min(self.usual_task, math.ceil(self.batch / 2 / cores))), self.batch)


class Prediction(NamedTuple):
    """Episodes a second, and what keeps them from being more."""

    rate: float
    bottleneck: str


def lowest(limits: dict[str, float]) -> Prediction:
    name = min(limits, key=limits.__getitem__)
    return Prediction(limits[name], name)


def collected(costs: Costs, cores: float) -> Prediction:
    """With more to play at any time than the workers can."""
    loop_ms = costs.loop_ms(costs.usual_task)
    return lowest(
        {
            "cores": 1e3 * cores / (costs.worker_ms + loop_ms),
            "event loop": 1e3 / loop_ms,
            "memory bandwidth": costs.bytes_per_s / costs.bytes,
        }
    )


def trained(costs: Costs, cores: float) -> Prediction:
    task = costs.task(cores)
    loop_ms, learner_ms = costs.loop_ms(task), costs.learner_ms
    limits = {
        "cores": 1e3 * cores / (costs.worker_ms + loop_ms + (learner_ms if costs.lag else 0)),
        "event loop": 1e3 / loop_ms,
        "memory bandwidth": costs.bytes_per_s / costs.bytes,
        "episodes an update": 1e3 * costs.batch * max(costs.lag, 1) / (costs.worker_ms * task),
    }
    if costs.lag:
        return lowest(limits | {"learner": 1e3 / learner_ms})
    playing = lowest(limits)
    taking_turns = 1e3 / (1e3 / playing.rate + learner_ms)
    return Prediction(taking_turns, "learner" if learner_ms > 1e3 / playing.rate else playing.bottleneck)


# ------------------------------------------------------------------- measurement


class Pinned:
    """A process of its own on so many cores, which measures when asked to."""

    def __init__(self, cores: int) -> None:
        chosen = sorted(os.sched_getaffinity(0))[:cores]
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, initializer=os.sched_setaffinity, initargs=(0, chosen))

    def measure(self, function: Callable[..., dict[str, float]], *args: Any) -> dict[str, float]:
        return self._pool.submit(function, *args).result()

    def close(self) -> None:
        self._pool.shutdown()


def measure_parts(config: Config, seconds: float) -> dict[str, float]:
    """Return what one process plays and learns, and the bytes/s of memory that one core copies."""
    rates = []
    source, target = np.ones((2, 2**26), np.uint8)
    for _ in range(5):
        began = time.thread_time()
        np.copyto(target, source)
        rates.append(2 * source.nbytes / (time.thread_time() - began))
    return parts(config, 10**9, seconds) | {"bytes_per_s": statistics.median(rates)}


def measure_collection(config: Config, seconds: float, smallest_tasks: bool = False) -> dict[str, float]:
    """What Collection tells, and the memory of this process and of each worker."""
    usual = shared_memory_collector._TASK_CPU_S, shared_memory_collector._LEAST_TASK_CPU_S
    if smallest_tasks:
        shared_memory_collector._TASK_CPU_S = shared_memory_collector._LEAST_TASK_CPU_S = 0.0

    async def collect() -> dict[str, float]:
        collection = Collection(config)
        try:
            await collection.open()
            result = await collection.measure(seconds)
            pss = [memory(process) for process in family(os.getpid())]
        finally:
            await collection.close()
        return result | {"main_pss": pss[0], "worker_pss": sum(pss[1:]) / config.workers}

    try:
        return run(collect())
    finally:
        shared_memory_collector._TASK_CPU_S, shared_memory_collector._LEAST_TASK_CPU_S = usual


def measure_training(config: Config, seconds: float) -> dict[str, float]:
    return run(train_for(config, seconds))


def keeping_the_loop_busy(config: Config, workers: int) -> Config:
    """For CAGE 2, the compiled simulator, whichever is to play: as many tasks a second as of many slower workers."""
    if not isinstance(config.env, Cage2):
        return dataclasses.replace(config, workers=workers)
    compiled = Cage2(workflow=config.env.workflow)
    return Config(
        env=compiled,
        workers=workers,
        episodes_per_update=config.episodes_per_update,
        total_episodes=config.total_episodes,
    )


def costs_of(config: Config, rows: dict[str, list[dict[str, float]]], cores: int) -> Costs:
    """The medians of all repeats; memory and the size of tasks are those of the run on all ``cores``."""

    def median(name: str, key: str) -> float:
        return statistics.median(row[key] for row in rows[name])

    # Two sizes of tasks tell what a task costs the loop, and what each of its episodes.
    (large, large_ms), (small, small_ms) = (
        (median(name, "episodes_per_task"), median(name, "main_cpu_ms_per_episode"))
        for name in ("loop", "loop, smallest tasks")
    )
    task_ms = large_ms * large  # where the sizes are too close to tell
    if large > 1.5 * small:
        task_ms = min(task_ms, max((small_ms - large_ms) / (1 / small - 1 / large), 0.0))
    usual = f"collected, {cores}"
    steps = median("parts", "steps")
    return Costs(
        worker_ms=median("parts", "play_ms"),
        task_ms=task_ms,
        episode_ms=large_ms - task_ms / large,
        learner_ms=median("parts", "learn_ms"),
        bytes=CROSSINGS * steps * median("parts", "step_bytes"),
        bytes_per_s=median("parts", "bytes_per_s"),
        main_pss=median(usual, "main_pss"),
        worker_pss=median(usual, "worker_pss"),
        usual_task=median(usual, "episodes_per_task"),
        batch=config.steps_per_update / steps if config.steps_per_update else config.episodes_per_update,
        envs=config.envs_per_worker,
        lag=config.policy_lag,
    )


def measure(config: Config, counts: Sequence[int], repeats: int, seconds: float) -> dict[str, list[dict[str, float]]]:
    """Return every measurement of every repeat, made one after the other."""
    pinned = {count: Pinned(count) for count in counts}
    rows: dict[str, list[dict[str, float]]] = {}

    def note(name: str, cores: int, function: Callable[..., dict[str, float]], *args: Any) -> None:
        say(f"repeat {len(rows.get(name, ())) + 1} of {repeats}: {name}")
        rows.setdefault(name, []).append(pinned[cores].measure(function, *args))

    try:
        for _ in range(repeats):
            note("parts", counts[0], measure_parts, config, seconds)
            for count in counts:
                here = dataclasses.replace(config, workers=count)
                note(f"collected, {count}", count, measure_collection, here, seconds)
                note(f"trained, {count}", count, measure_training, here, seconds)
            busy = keeping_the_loop_busy(config, counts[-1])
            note("loop", counts[-1], measure_collection, busy, seconds)
            note("loop, smallest tasks", counts[-1], measure_collection, busy, seconds, True)
    finally:
        for process in pinned.values():
            process.close()
    return rows


# ----------------------------------------------------------------------- output


class Check(NamedTuple):
    """What was measured on the cores here."""

    what: str
    cores: int
    cores_left: float
    """By other programs."""
    measured: float


def note_costs(costs: Costs, figures: Figures) -> None:
    """Note what an episode costs, and what follows from it."""
    for name, cost_ms in (
        ("worker", costs.worker_ms),
        ("loop, a task", costs.task_ms),
        (f"loop, in tasks of {costs.usual_task:.1f}", costs.loop_ms(costs.usual_task)),
        ("loop, in tasks of one", costs.loop_ms(1)),
        ("learner", costs.learner_ms),
    ):
        figures.note("an episode", name, cost_ms, "CPU ms")
    for cores in CORES:
        subject = f"{cores} cores"
        expected = {"collected": collected(costs, cores), "trained": trained(costs, cores)}
        for what, prediction in expected.items():
            figures.note(subject, f"{what}, expected", prediction.rate, "episodes/s")
        figures.note(subject, "memory", (costs.main_pss + cores * costs.worker_pss) / 2**30, "GiB")
        held_up = [f"{what} by the {prediction.bottleneck}" for what, prediction in expected.items()]
        figures.remarks[subject] = f"held up: {', '.join(held_up)}"


def note_checks(
    costs: Costs, rows: dict[str, list[dict[str, float]]], counts: Sequence[int], figures: Figures
) -> list[Check]:
    """Note what was predicted for the cores here, beside what was measured; return the latter."""
    steps = statistics.median(row["steps"] for row in rows["parts"])
    found: list[Check] = []
    for what, predict in (("collected", collected), ("trained", trained)):
        for count in counts:
            runs = rows[f"{what}, {count}"]
            subject = f"{what} on {count} cores here"
            for row in runs:
                measured = row["steps_per_s"] / steps
                figures.note(subject, "left by others", row["cores"], "cores")
                figures.note(subject, "measured", measured, "episodes/s")
                predicted = predict(costs, row["cores"]).rate
                figures.note(subject, "predicted", predicted, "episodes/s", ceiling=("measured", measured))
            left, measured = (statistics.median(row[key] for row in runs) for key in ("cores", "steps_per_s"))
            found.append(Check(what, count, left, measured / steps))
    return found


def save_png(path: Path, costs: Costs, found: Sequence[Check], title: str) -> None:
    """Draw the predictions for all numbers of cores, and what was measured here."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    grid = np.geomspace(min(1, *(row.cores_left for row in found)), CORES[-1], 500)
    for colour, what, predict in (("C0", "collected", collected), ("C1", "trained", trained)):
        predictions = [predict(costs, cores) for cores in grid]
        axes.plot(grid, [each.rate for each in predictions], color=colour, label=f"{what}, predicted")
        points = [(row.cores_left, row.measured) for row in found if row.what == what]
        axes.plot(*zip(*points, strict=True), "o", mfc="none", color=colour, label=f"{what}, measured here")
        for cores, (before, now) in zip(grid[1:], itertools.pairwise(predictions), strict=True):
            if now.bottleneck != before.bottleneck:
                axes.annotate(
                    now.bottleneck, (cores, now.rate), (0, 6), textcoords="offset points", color=colour, ha="center"
                )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(CORES, [str(cores) for cores in CORES])
    axes.set(xlabel="cores, with a worker on each", ylabel="episodes/s", title=title)
    axes.margins(y=0.15)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def main() -> None:
    script = Script.of(__file__)
    parser = script.parser()
    here = len(os.sched_getaffinity(0))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--cores", type=int, default=here, help="measure on up to so many (default: all)")
    parser.add_argument("--png", type=Path, metavar="FILE", help="needs matplotlib")
    arguments, flags = script.parse_known(parser)
    report = Report(script, arguments)
    config = config_of([*ENDLESS, *flags])
    counts = [count for count in CORES if count <= arguments.cores]
    rows = measure(config, counts, arguments.repeats, arguments.seconds)
    costs = costs_of(config, rows, counts[-1])
    figures = Figures()
    note_costs(costs, figures)
    found = note_checks(costs, rows, counts, figures)
    title = " ".join(["aiotrain", *flags])
    if arguments.png:
        save_png(arguments.png, costs, found, title)
    report.finish(figures, title, {"costs": dataclasses.asdict(costs), "runs": rows})


if __name__ == "__main__":
    main()

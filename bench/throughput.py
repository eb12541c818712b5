"""How much of what the cores could play is played, and learned from.

    python -m bench.throughput                                     # CAGE 2 on csle-cyborg, driven leanly
    python -m bench.throughput --env CartPole-v1 --envs-per-worker 16
    python -m bench.throughput --env bench.tools.envs:stock_cage2 --workers 2 --seconds 8

The ceiling is what bare processes, one per core, play of the same environment with the same NumPy policy and as many
environments in a batch, without any communication. In each repeat the ceiling, collection alone with each number of
workers, and whole training runs are measured one after the other; every ratio is to the ceiling of its own repeat, and
medians are reported. All players run at the workers' scheduling priority.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
import uvloop
from rich.console import Console
from rich.table import Table

from aiotrain import Config, Trainer
from aiotrain.app.main import Arguments
from aiotrain.collect.processes import preload
from aiotrain.collect.protocol import Collector
from aiotrain.collect.selection import make_collector
from aiotrain.collect.worker import initialize
from aiotrain.play.factory import EnvFactory, make_factory
from aiotrain.play.policy import NumpyPolicy, PolicyShape
from aiotrain.play.spaces import EnvSpec
from aiotrain.training.batcher import Batcher
from aiotrain.transport.ring import Trajectories
from bench.tools.processes import Cores

WARM_UP_S = 1.0


# ----------------------------------------------------------------------- ceiling


def bare_player(
    factory: EnvFactory, envs: int, hidden: tuple[int, ...], start: Any, stop: Any, counts: Any, index: int
) -> None:
    """Play in this process until told to stop; count steps while the measurement runs."""
    initialize()
    players = [factory() for _ in range(envs)]
    spec = EnvSpec.of(players[0], factory.name, factory.max_episode_steps)
    policy = initial_policy(spec, hidden)
    generator = np.random.default_rng(index)
    low, high = np.array(spec.action_low, spec.action_dtype), np.array(spec.action_high, spec.action_dtype)
    seeds = iter(range(index * 10**6, 10**9))
    observations = [env.reset(seed=next(seeds))[0] for env in players]
    while True:
        start.wait()
        if stop.value < 0:
            return
        steps = 0
        while not stop.value:
            noise = policy.noise(generator, len(players))
            actions, _ = policy.act(spec.encode(np.array(observations)), noise)
            given = list(np.clip(actions, low, high)) if spec.action_kind == "gaussian" else actions.tolist()
            for lane, env in enumerate(players):
                observations[lane], _, terminated, truncated, _ = env.step(given[lane])
                if terminated or truncated:
                    observations[lane] = env.reset(seed=next(seeds))[0]
            steps += len(players)
        counts[index] = steps
        start.wait()


def initial_policy(spec: EnvSpec, hidden: tuple[int, ...]) -> NumpyPolicy:
    """A policy with the weights of a learner that has not learned yet."""
    import torch

    from aiotrain.config import PPOConfig
    from aiotrain.learn.ppo import Learner

    shape = PolicyShape.of(spec, hidden)
    learner = Learner(spec, shape, PPOConfig(hidden_sizes=hidden), seed=0, device=torch.device("cpu"))
    policy = NumpyPolicy(shape)
    policy.parameters[:] = learner.parameters()
    policy.refresh()
    return policy


class Ceiling:
    """Bare processes, one per core, that wait between measurements."""

    def __init__(self, factory: EnvFactory, envs: int, hidden: tuple[int, ...], processes: int) -> None:
        context = multiprocessing.get_context("forkserver")
        self._start = context.Barrier(processes + 1, timeout=300)
        self._stop = context.Value("i", 0, lock=False)
        self._counts = context.Array("q", processes, lock=False)
        self._processes = [
            context.Process(
                target=bare_player,
                args=(factory, envs, hidden, self._start, self._stop, self._counts, index),
                daemon=True,
            )
            for index in range(processes)
        ]
        for process in self._processes:
            process.start()

    def measure(self, seconds: float) -> float:
        """Steps per second of all processes together."""
        self._stop.value = 0
        self._start.wait()
        began = time.perf_counter()
        time.sleep(seconds)
        self._stop.value = 1
        elapsed = time.perf_counter() - began
        self._start.wait()
        return sum(self._counts) / elapsed

    def close(self) -> None:
        self._stop.value = -1
        self._start.wait()
        for process in self._processes:
            process.join(10)


# -------------------------------------------------------------------- collection


class Delivery(NamedTuple):
    """All that was delivered up to a moment."""

    at_s: float
    cpu_s: float
    steps: int
    episodes: int
    tasks: int
    nbytes: int


class Collection:
    """A collector without a learner: whole batches are thrown away."""

    def __init__(self, config: Config, collector: Collector | None = None) -> None:
        self._config = config
        self._nbytes = self._tasks = 0
        self._collector = collector or make_collector(config, make_factory(config), print)

    async def open(self) -> None:
        spec = await self._collector.start()
        slot_steps = self._config.slot_steps or spec.slot_steps
        self.policy = PolicyShape.of(spec, self._config.ppo.hidden_sizes)
        await self._collector.open(self.policy, slot_steps)
        self._collector.publish(initial_policy(spec, self._config.ppo.hidden_sizes).parameters, 0)
        self._batcher = Batcher(
            episodes_per_update=self._config.episodes_per_update,
            steps_per_update=self._config.steps_per_update,
            max_policy_lag=10,
            total_episodes=10**12,
            total_steps=None,
            slot_steps=slot_steps,
        )
        while not all(worker.state.value == "waiting" for worker in self._collector.describe().workers):
            await asyncio.sleep(0.05)

    async def measure(self, seconds: float) -> dict[str, float]:
        """What was delivered, from one delivery to another: see the keys. ``cores``: that other programs left free."""
        # With many workers to a core, it takes a while until each has played its first.
        await self._play_until(time.perf_counter() + max(WARM_UP_S, 0.04 * self._config.workers))
        first, cores = self._last, Cores()
        await self._play_until(first.at_s + seconds)
        last, left = self._last, cores.left()
        while self._batcher.counts.in_flight:
            await self._take()
        episodes, elapsed = last.episodes - first.episodes, last.at_s - first.at_s
        return {
            "steps_per_s": (last.steps - first.steps) / elapsed,
            "episodes_per_s": episodes / elapsed,
            "episodes": episodes,
            "episodes_per_task": episodes / max(last.tasks - first.tasks, 1),
            "trajectory_bytes": last.nbytes - first.nbytes,
            "main_cpu_ms_per_episode": 1e3 * (last.cpu_s - first.cpu_s) / max(episodes, 1),
            "cores": left,
        }

    async def _play_until(self, end: float) -> None:
        """Play until then, and until something was delivered."""
        delivered = False
        while time.perf_counter() < end or not delivered:
            while room := self._collector.room(self._batcher.wanted()):
                self._collector.submit(self._batcher.next_launch(room))
            delivered |= await self._take()

    async def _take(self) -> bool:
        """Wait for outcomes; whether there were trajectories among them."""
        if self._config.steps_per_update is None:
            self._collector.submit_unfinished()
        delivered = False
        for outcome in await self._collector.outcomes():
            self._tasks += 1
            self._batcher.add(outcome)
            if outcome.trajectories is not None:
                delivered = True
                arrays = (getattr(outcome.trajectories, field.name) for field in dataclasses.fields(Trajectories))
                self._nbytes += sum(array.nbytes for array in arrays)
        while self._batcher.pop_batch() is not None:
            self._batcher.learned()
        if delivered:
            counts = self._batcher.counts
            self._last = Delivery(
                time.perf_counter(), time.process_time(), counts.steps, counts.finished, self._tasks, self._nbytes
            )
        return delivered

    async def close(self) -> None:
        await self._collector.close()


# ---------------------------------------------------------------------- training


async def train(config: Config, seconds: float) -> dict[str, float]:
    """A whole training run of about so many seconds: steps learned per second, once it is under way."""
    learned: list[tuple[float, float, float, float]] = []
    cores: Cores | None = None
    async with Trainer(config) as trainer:
        async for update in trainer:
            learned.append((time.perf_counter(), update.steps, update.learn_s, update.collect_s))
            warm = [index for index, point in enumerate(learned) if point[0] - learned[0][0] >= WARM_UP_S]
            cores = cores or (Cores() if warm else None)
            if len(warm) > 1 and learned[-1][0] - learned[warm[0]][0] > seconds:
                break
        assert cores is not None
        left = cores.left()
    began = warm[0]
    elapsed = learned[-1][0] - learned[began][0]
    return {
        "steps_per_s": (learned[-1][1] - learned[began][1]) / elapsed,
        "learning": sum(point[2] for point in learned[began + 1 :]) / elapsed,
        "cores": left,
    }


# -------------------------------------------------------------------------- main


async def measure(config: Config, workers: list[int], repeats: int, seconds: float, say: Callable[[str], None]) -> Any:
    """All figures of all repeats."""
    factory = make_factory(config)
    if factory.is_compiled:
        raise SystemExit("whole episodes of the compiled simulator have no such ceiling; see bench.pipeline")
    preload(factory.modules)
    cores = len(os.sched_getaffinity(0))
    ceiling = Ceiling(factory, config.envs_per_worker, config.ppo.hidden_sizes, cores)
    collections = {count: Collection(dataclasses.replace(config, workers=count)) for count in workers}
    results: dict[str, list[dict[str, float]]] = {}
    try:
        for collection in collections.values():
            await collection.open()
        ceiling.measure(WARM_UP_S)
        for repeat in range(repeats):
            top = ceiling.measure(seconds)
            rows = {"ceiling": {"steps_per_s": top}}
            for count, collection in collections.items():
                rows[f"collected, {count} workers"] = await collection.measure(seconds + 0.03 * count)
            rows[f"trained, {workers[0]} workers"] = await train(
                dataclasses.replace(config, workers=workers[0]), seconds
            )
            for name, row in rows.items():
                row["ratio"] = row["steps_per_s"] / top
                results.setdefault(name, []).append(row)
            say(f"repeat {repeat + 1}: " + ", ".join(f"{name} {row['ratio']:.3f}" for name, row in rows.items()))
    finally:
        for collection in collections.values():
            await collection.close()
        ceiling.close()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 10, 100], help="training uses the first number")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments, others = parser.parse_known_args()
    config = tyro.cli(
        Arguments,
        args=others,
        config=(tyro.conf.OmitArgPrefixes,),
        default=Arguments(simulator="cyborg", workflow="none", total_episodes=10**9),
    )

    console = Console(width=140)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        results = runner.run(measure(config, arguments.workers, arguments.repeats, arguments.seconds, console.print))
    table = Table(
        title=f"{config.env}, {config.envs_per_worker} environments per worker, medians of {arguments.repeats}"
    )
    for column in ("", "steps/s", "÷ ceiling", "main process, CPU ms/episode", "learning, share of time"):
        table.add_column(column, justify="left" if not column else "right")
    for name, rows in results.items():
        median = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        table.add_row(
            name,
            f"{median['steps_per_s']:,.0f}",
            f"{median['ratio']:.3f}",
            f"{median['main_cpu_ms_per_episode']:.3f}" if "main_cpu_ms_per_episode" in median else "",
            f"{median['learning']:.2f}" if "learning" in median else "",
        )
    console.print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"config": config.resolved(), "results": results}, indent=1, default=str))


if __name__ == "__main__":
    main()

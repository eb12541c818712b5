"""Steps a second of the compiled CAGE 2 engine on one core, next to csle-cyborg's own ChallengeWrapper.

Both play uniformly random actions in 100-step episodes, resets included, in turns in one process; medians
over the repeats. The engine's actions are drawn beforehand. Also measured: the Gymnasium vector environment
over the engine, and how long the first call of a process takes with an empty and with a filled compilation
cache. Run it as ``python -m bench.engine``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from aiotrain.cage2.engine import NO_TAPE, RED_AGENTS, allocate, reset_batch, step_batch
from aiotrain.cage2.scenario import NUM_ACTIONS
from aiotrain.cage2.simulators.vector_env import Cage2VectorEnv
from bench.env import stock_player, timed

FIRST_CALL = """
import time
start = time.perf_counter()
import numpy as np
from aiotrain.cage2.engine import NO_TAPE, allocate, reset_batch, step_batch
imported = time.perf_counter()
state = allocate(1)
reset_batch(state, np.zeros(1, np.uint64))
step_batch(state, np.zeros(1, np.int64), np.zeros(1, np.int32), NO_TAPE)
print(imported - start, time.perf_counter() - imported)
"""


def engine_rate(red_agent: str, num_envs: int, steps: int, episodes: int) -> Callable[[int], float]:
    """Plays ``episodes`` episodes in every environment of a batch and returns steps a second."""
    state = allocate(num_envs, red_agent=red_agent)
    tenths = np.zeros(num_envs, np.int32)

    def play(repeat: int) -> float:
        rng = np.random.default_rng(repeat)
        actions = rng.integers(0, NUM_ACTIONS, (steps, num_envs))
        seeds = rng.integers(0, 2**63, (episodes, num_envs)).astype(np.uint64)
        start = time.perf_counter()
        for episode in range(episodes):
            reset_batch(state, seeds[episode])
            for step in range(steps):
                step_batch(state, actions[step], tenths, NO_TAPE)
        return num_envs * steps * episodes / (time.perf_counter() - start)

    return play


def vector_rate(red_agent: str, num_envs: int, steps: int, episodes: int) -> Callable[[int], float]:
    """The same through ``Cage2VectorEnv``, which checks actions and hands out copies."""
    env = Cage2VectorEnv(num_envs, red_agent=red_agent, max_steps=steps)

    def play(repeat: int) -> float:
        actions = np.random.default_rng(repeat).integers(0, NUM_ACTIONS, (steps, num_envs))
        start = time.perf_counter()
        for episode in range(episodes):
            env.reset(seed=repeat * episodes + episode)
            for step in range(steps):
                env.step(actions[step])
        return num_envs * steps * episodes / (time.perf_counter() - start)

    return play


def measure(red_agent: str, args: argparse.Namespace) -> dict[str, Any]:
    """Rates of the three in interleaved repeats, after one to warm up."""
    stock = stock_player(red_agent)
    players: dict[str, Callable[[int], float]] = {
        "stock": lambda repeat: timed(stock, range(repeat * args.stock, (repeat + 1) * args.stock), args.steps)[0],
        "engine": engine_rate(red_agent, args.num_envs, args.steps, args.episodes),
        "vector": vector_rate(red_agent, args.num_envs, args.steps, max(1, args.episodes // 10)),
    }
    rates: dict[str, list[float]] = {name: [] for name in players}
    for repeat in range(args.repeats + 1):
        for name, play in players.items():
            rate = play(repeat)
            if repeat:
                rates[name].append(rate)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "red_agent": red_agent,
        "steps_per_second": medians,
        "ratio": medians["engine"] / medians["stock"],
        "repeats": rates,
    }


def first_call() -> dict[str, float]:
    """Seconds that a new process spends on imports, and on its first reset and step, cold and cached."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"NUMBA_CACHE_DIR": cache}
        times = [
            subprocess.run(
                [sys.executable, "-c", FIRST_CALL],
                env=environment,
                check=True,
                capture_output=True,
                text=True,
            ).stdout.split()
            for _ in range(2)
        ]
    return {"import_s": float(times[1][0]), "cold_s": float(times[0][1]), "cached_s": float(times[1][1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats (default %(default)s)")
    parser.add_argument("--num-envs", type=int, default=1024, help="environments in the batch (default %(default)s)")
    parser.add_argument(
        "--episodes",
        type=int,
        default=50,
        help="engine's episodes a repeat and environment (default %(default)s)",
    )
    parser.add_argument(
        "--stock", type=int, default=8, help="ChallengeWrapper's episodes a repeat (default %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=100, help="steps an episode (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE as well")
    args = parser.parse_args()

    first = first_call()
    table = Table(title=f"CAGE 2, {args.num_envs} environments, one core, random actions, steps a second")
    table.add_column("red agent")
    for column in ("ChallengeWrapper", "engine", "ratio", "vector environment"):
        table.add_column(column, justify="right")
    results = []
    for red_agent in RED_AGENTS:
        result = measure(red_agent, args)
        results.append(result)
        rates = result["steps_per_second"]
        table.add_row(
            red_agent,
            f"{rates['stock']:,.0f}",
            f"{rates['engine']:,.0f}",
            f"{result['ratio']:,.0f}",
            f"{rates['vector']:,.0f}",
        )
    console = Console(width=140)
    console.print(table)
    console.print(
        f"First call in a new process: {first['cold_s']:.1f} s to compile, "
        f"{first['cached_s']:.2f} s from the cache, after {first['import_s']:.1f} s of imports."
    )
    if args.json:
        setting = {key: getattr(args, key) for key in ("repeats", "num_envs", "episodes", "stock", "steps")}
        report = {
            "python": platform.python_version(),
            "machine": platform.machine(),
            **setting,
            "first_call": first,
            "results": results,
        }
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

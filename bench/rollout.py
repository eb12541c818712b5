"""Steps a second of compiled rollouts of CAGE 2 on one core, next to the policy's forward pass alone.

In interleaved repeats, medians over them, of CPU time, so that a neighbour on the machine does not count:

- rollout: whole episodes of K environments, engine, policy and writing down;
- act: the same compiled network on observations of these episodes, with the draw of the action; logits: without;
- NumPy act: ``NumpyPolicy.act``, K at a time; NumPy logits: its matrix products (BLAS) and tanh;
- engine: the environment alone, with the actions of these episodes.

Then rollouts, again interleaved, by the environment's settings ``observation`` and ``actions``, with a policy that
chooses as freely as a new one, so that the episodes are about as busy.

Also how long the first rollout of a process takes with an empty and with a filled compilation cache. BLAS gets one
thread. Run it as ``python -m bench.rollout``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import threadpoolctl
from numba import njit
from rich.console import Console
from rich.table import Table

from aiotrain.cage2.blue_view import ACTIONS, OBSERVATIONS, actions_of, inputs_of
from aiotrain.cage2.engine import NO_TAPE, RED_AGENTS, allocate, reset_one, step_one
from aiotrain.cage2.play.policy_network import GROUP, Network, add_bits, allocate_network, fill, finish, sample
from aiotrain.cage2.play.rollout import Rollout
from aiotrain.cage2.scenario import NUM_BITS
from aiotrain.play.policy import NumpyPolicy, PolicyShape

NETWORKS = {"52-64-64-145": (52, (64, 64)), "77-64-64-145": (77, (64, 64))}
MEASURED = ("rollout", "act", "logits", "NumPy act", "NumPy logits", "engine")

FIRST_CALL = """
import time
start = time.perf_counter()
import numpy as np
from types import SimpleNamespace
from aiotrain.cage2.play.rollout import Rollout
from aiotrain.cage2.scenario import NUM_BITS
imported = time.perf_counter()
rollout = Rollout([(77, 64), (64, 64), (64, 145)], red_agent="B_lineAgent")
arrays = SimpleNamespace(
    observations=np.zeros((1, 2, 77), np.int8),
    actions=np.zeros((1, 1), np.int16),
    log_probs=np.zeros((1, 1), np.float32),
    rewards=np.zeros((1, 1), np.float32),
)
rollout.play([0], np.zeros((1, 1)), [range(5)], [0], arrays)
print(imported - start, time.perf_counter() - imported)
"""


@njit(nogil=True, error_model="numpy")
def logits_of(network: Network, observations: Any, orders: Any, together: int) -> None:
    """[N, inputs] bits through the network, ``together`` at a time (at most GROUP)."""
    for first in range(0, len(observations), together):
        rows = min(together, len(observations) - first)
        for row in range(rows):
            index = first + row
            add_bits(network, row, list_bits(network, observations[index], orders[index % len(orders)]))
        finish(network, rows)


@njit(nogil=True, error_model="numpy")
def act(
    network: Network, observations: Any, orders: Any, together: int, noise: Any, actions: Any, log_probs: Any
) -> None:
    """The same, and draw an action for each row."""
    for first in range(0, len(observations), together):
        rows = min(together, len(observations) - first)
        for row in range(rows):
            index = first + row
            add_bits(network, row, list_bits(network, observations[index], orders[index % len(orders)]))
        logits = finish(network, rows)
        for row in range(rows):
            index = first + row
            actions[index], log_probs[index] = sample(network, logits + row * len(network.shares), noise[index])


@njit(error_model="numpy")
def list_bits(network: Network, observation: Any, order: Any) -> Any:
    """As the rollout does: it looks through the simulator's bits, and knows the order's."""
    count = 0
    for i in range(NUM_BITS):
        network.bits[count] = i
        count += observation[i]
    if len(observation) > NUM_BITS:
        for place in range(len(order)):
            network.bits[count] = NUM_BITS + len(order) * place + order[place]
            count += 1
    return count


@njit(nogil=True, error_model="numpy")
def play_engine(state: Any, seeds: Any, actions: Any, rewards: Any) -> None:
    for index in range(len(state)):
        reset_one(state, index, seeds[index])
    for step in range(actions.shape[1]):
        for index in range(len(state)):
            rewards[index, step] = step_one(state, index, actions[index, step], NO_TAPE) / 10.0


def players(name: str, red_agent: str, count: int, steps: int, batches: int) -> dict[str, Callable[[int], int]]:
    """What is measured: each does its work for one repeat and returns how many steps that were."""
    inputs, hidden = NETWORKS[name]
    shape = PolicyShape(inputs, hidden, 145, "discrete")
    rng = np.random.default_rng(0)
    policy = NumpyPolicy(shape)
    _, scale, *layers = shape.split(policy.parameters)
    scale[:] = 1
    for part in layers:
        part[...] = rng.standard_normal(part.shape) / math.sqrt(len(part))
    policy.refresh()
    network = allocate_network(shape.layers)
    fill(network, policy.parameters[2 * inputs :])
    rollout = Rollout(shape.layers, red_agent=red_agent)
    rollout.refresh(policy.parameters)
    arrays = SimpleNamespace(
        observations=np.zeros((count, steps + 1, inputs), np.int8),
        actions=np.zeros((count, steps), np.int16),
        log_probs=np.zeros((count, steps), np.float32),
        rewards=np.zeros((count, steps), np.float32),
    )
    orders = np.stack([rng.permutation(5) for _ in range(count)]).astype(np.uint8)
    slots = np.arange(count)
    seeds = [rng.integers(0, 2**63, count).astype(np.uint64) for _ in range(batches)]
    noise = [rng.random((count, steps), np.float32) for _ in range(batches)]
    # Enough rows of real episodes that no branch predictor learns them by heart.
    played = []
    for batch in range(batches):
        rollout.play(seeds[batch], noise[batch], orders, slots, arrays)
        played.append((arrays.observations[:, :-1].transpose(1, 0, 2).copy(), arrays.actions.copy()))
    state = allocate(count, red_agent=red_agent)
    floats = [rows.astype(np.float32) for rows, _ in played[: max(1, batches // 10)]]
    together = min(count, GROUP)
    actions, log_probs = np.zeros(count * steps, np.int64), np.zeros(count * steps, np.float32)
    by_step = [np.ascontiguousarray(each.T) for each in noise]

    def play(_: int) -> int:
        for batch in range(batches):
            rollout.play(seeds[batch], noise[batch], orders, slots, arrays)
        return batches * count * steps

    def compiled_act(_: int) -> int:
        for (rows, _), numbers in zip(played, by_step, strict=True):
            act(network, rows.reshape(-1, inputs), orders, together, numbers.ravel(), actions, log_probs)
        return batches * count * steps

    def compiled_logits(_: int) -> int:
        for rows, _ in played:
            logits_of(network, rows.reshape(-1, inputs), orders, together)
        return batches * count * steps

    def numpy_act(_: int) -> int:
        for rows, numbers in zip(floats, by_step, strict=False):
            for step in range(steps):
                policy.act(rows[step], numbers[step])
        return len(floats) * count * steps

    def numpy_logits(_: int) -> int:
        for rows in floats:
            for step in range(steps):
                policy.head(rows[step])
        return len(floats) * count * steps

    def engine(_: int) -> int:
        for batch in range(batches):
            play_engine(state, seeds[batch], played[batch][1], arrays.rewards)
        return batches * count * steps

    return dict(zip(MEASURED, (play, compiled_act, compiled_logits, numpy_act, numpy_logits, engine), strict=True))


def viewed(observation: str, actions: str, red_agent: str, count: int, steps: int, batches: int) -> Callable[[], int]:
    """Plays episodes by these settings, with two layers of 64 units, and returns how many steps that were."""
    inputs, outputs = inputs_of(observation), len(actions_of(actions))
    shape = PolicyShape(inputs, (64, 64), outputs, "discrete")
    rng = np.random.default_rng(0)
    parameters = np.zeros(shape.size, np.float32)
    _, scale, *layers = shape.split(parameters)
    scale[:] = 1
    for weight in layers[::2]:
        weight[...] = 0.3 * rng.standard_normal(weight.shape) / math.sqrt(len(weight))
    rollout = Rollout(shape.layers, red_agent=red_agent, observation=observation, actions=actions)
    rollout.refresh(parameters)
    arrays = SimpleNamespace(
        observations=np.zeros((count, steps + 1, inputs), np.int8),
        actions=np.zeros((count, steps), np.int16),
        log_probs=np.zeros((count, steps), np.float32),
        rewards=np.zeros((count, steps), np.float32),
    )
    masks = np.zeros((count, steps, outputs), np.int8)

    def play() -> int:
        for _ in range(batches):
            rollout.play(
                rng.integers(0, 2**63, count),
                rng.random((count, steps), np.float32),
                np.tile(np.arange(5), (count, 1)),
                np.arange(count),
                arrays,
                masks=masks,
            )
        return batches * count * steps

    return play


def measure_views(red_agent: str, args: argparse.Namespace) -> dict[str, Any]:
    """Rates by setting, 64 environments at a time, and each as a share of the first, repeat by repeat."""
    batches = max(1, args.total // (64 * args.steps))
    names = [(observation, actions) for observation in OBSERVATIONS for actions in ACTIONS]
    players_by_name = {name: viewed(*name, red_agent, 64, args.steps, batches) for name in names}
    rates: dict[tuple[str, str], list[float]] = {name: [] for name in names}
    for repeat in range(args.repeats + 1):
        for name, play in players_by_name.items():
            start = time.thread_time()
            steps = play()
            if repeat:
                rates[name].append(steps / (time.thread_time() - start))
    return {
        f"{observation}, {actions}": {
            "steps_per_second": statistics.median(rates[observation, actions]),
            "of_the_first": statistics.median(np.divide(rates[observation, actions], rates[names[0]]).tolist()),
        }
        for observation, actions in names
    }


def measure(name: str, red_agent: str, count: int, args: argparse.Namespace) -> dict[str, Any]:
    """Rates of all in interleaved repeats, after one to warm up."""
    batches = max(1, args.total // (count * args.steps))
    measured = players(name, red_agent, count, args.steps, batches)
    rates: dict[str, list[float]] = {each: [] for each in measured}
    for repeat in range(args.repeats + 1):
        for each, run in measured.items():
            start = time.thread_time()
            steps = run(repeat)
            if repeat:
                rates[each].append(steps / (time.thread_time() - start))
    medians = {each: statistics.median(values) for each, values in rates.items()}
    return {"network": name, "K": count, "red_agent": red_agent, "steps_per_second": medians, "repeats": rates}


def first_call() -> dict[str, float]:
    """Seconds that a new process spends on imports, and on its first rollout, cold and cached."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"NUMBA_CACHE_DIR": cache}
        times = [
            subprocess.run(
                [sys.executable, "-c", FIRST_CALL], env=environment, check=True, capture_output=True, text=True
            ).stdout.split()
            for _ in range(2)
        ]
    return {"import_s": float(times[1][0]), "cold_s": float(times[0][1]), "cached_s": float(times[1][1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="interleaved repeats (default %(default)s)")
    parser.add_argument("--total", type=int, default=100_000, help="steps a repeat (default %(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="steps an episode (default %(default)s)")
    parser.add_argument("--red-agent", choices=RED_AGENTS, default="B_lineAgent", help="(default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE as well")
    args = parser.parse_args()

    threadpoolctl.threadpool_limits(1)
    first = first_call()
    table = Table(title=f"CAGE 2 rollouts, {args.red_agent}, {args.steps}-step episodes, one core, steps a CPU second")
    table.add_column("network")
    for column in ("K", *MEASURED, "rollout / act", "rollout / logits", "rollout / NumPy act"):
        table.add_column(column, justify="right")
    results = []
    for name in NETWORKS:
        for count in (1, 8, 64, 256):
            result = measure(name, args.red_agent, count, args)
            results.append(result)
            rates = result["steps_per_second"]
            table.add_row(
                name,
                str(count),
                *(f"{rates[each]:,.0f}" for each in MEASURED),
                *(f"{rates['rollout'] / rates[each]:.2f}" for each in ("act", "logits", "NumPy act")),
            )
    console = Console(width=140)
    console.print(table)
    views = measure_views(args.red_agent, args)
    table = Table(title="Rollouts by observation and actions, K = 64, two layers of 64 units")
    table.add_column("observation, actions")
    for column in ("steps a CPU second", "of the first"):
        table.add_column(column, justify="right")
    for name, rate in views.items():
        table.add_row(name, f"{rate['steps_per_second']:,.0f}", f"{rate['of_the_first']:.2f}")
    console.print(table)
    console.print(
        f"First rollout of a process: {first['cold_s']:.1f} s with an empty cache, {first['cached_s']:.2f} s with a "
        f"filled one, after {first['import_s']:.2f} s of imports."
    )
    if args.json:
        report = {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "steps": args.steps,
            "first_call": first,
            "results": results,
            "views": views,
        }
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

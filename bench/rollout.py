"""Steps a second of compiled rollouts of CAGE 2 on one core, beside the policy's forward pass alone.

    python -m bench.rollout

In interleaved repeats, of CPU time, so that a neighbour on the machine does not count:

- rollout: whole episodes of K environments, engine, policy and writing down;
- act: the same compiled network on observations of these episodes, with the draw of the action; logits: without;
- NumPy act: ``NumpyPolicy.act``, K at a time; NumPy logits: its matrix products (BLAS) and tanh;
- engine: the environment alone, with the actions of these episodes.

Then rollouts, again interleaved, by the environment's settings ``observation`` and ``actions``, with a policy that
chooses as freely as a new one, so that the episodes are about as busy.

Also how long the first rollout of a process takes with an empty and with a filled compilation cache. BLAS gets one
thread.
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import threadpoolctl
from numba import njit

from aiotrain.cage2.blue_view import ACTIONS, OBSERVATIONS, actions_of, inputs_of
from aiotrain.cage2.engine import NO_TAPE, RED_AGENTS, allocate, reset_one, step_one
from aiotrain.cage2.play.policy_network import (
    GROUP,
    Network,
    allocate_network,
    first_layer,
    later_layers,
    sample,
    set_weights,
)
from aiotrain.cage2.play.rollout import Rollout
from aiotrain.cage2.scenario import NUM_BITS
from aiotrain.play.policy import NumpyPolicy, PolicyShape
from bench.tools.figures import Figures, interleaved
from bench.tools.first_call import note_first_call
from bench.tools.report import Report
from bench.tools.script import Script

TAKES = "3 minutes"
SMALLEST = "--repeats 1 --total 100 --steps 5 --together 8 --no-first-call"

NETWORKS = {"52-64-64-145": (52, (64, 64)), "77-64-64-145": (77, (64, 64))}
MEASURED = ("rollout", "act", "logits", "NumPy act", "NumPy logits", "engine")
CEILINGS = ("act", "logits", "NumPy act")
"""What a rollout is divided by."""

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
            first_layer(network, row, list_bits(network, observations[index], orders[index % len(orders)]))
        later_layers(network, rows)


@njit(nogil=True, error_model="numpy")
def act(
    network: Network, observations: Any, orders: Any, together: int, noise: Any, actions: Any, log_probs: Any
) -> None:
    """The same, and draw an action for each row."""
    for first in range(0, len(observations), together):
        rows = min(together, len(observations) - first)
        for row in range(rows):
            index = first + row
            first_layer(network, row, list_bits(network, observations[index], orders[index % len(orders)]))
        logits = later_layers(network, rows)
        for row in range(rows):
            index = first + row
            actions[index], log_probs[index] = sample(network, logits + row * len(network.probabilities), noise[index])


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


def players(name: str, red_agent: str, count: int, steps: int, batches: int) -> dict[str, Callable[[], int]]:
    """Return what is measured: each does its work for one repeat and returns how many steps that were."""
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
    set_weights(network, policy.parameters[2 * inputs :])
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

    def play() -> int:
        for batch in range(batches):
            rollout.play(seeds[batch], noise[batch], orders, slots, arrays)
        return batches * count * steps

    def compiled_act() -> int:
        for (rows, _), numbers in zip(played, by_step, strict=True):
            act(network, rows.reshape(-1, inputs), orders, together, numbers.ravel(), actions, log_probs)
        return batches * count * steps

    def compiled_logits() -> int:
        for rows, _ in played:
            logits_of(network, rows.reshape(-1, inputs), orders, together)
        return batches * count * steps

    def numpy_act() -> int:
        for rows, numbers in zip(floats, by_step, strict=False):
            for step in range(steps):
                policy.act(rows[step], numbers[step])
        return len(floats) * count * steps

    def numpy_logits() -> int:
        for rows in floats:
            for step in range(steps):
                policy.head(rows[step])
        return len(floats) * count * steps

    def engine() -> int:
        for batch in range(batches):
            play_engine(state, seeds[batch], played[batch][1], arrays.rewards)
        return batches * count * steps

    return dict(zip(MEASURED, (play, compiled_act, compiled_logits, numpy_act, numpy_logits, engine), strict=True))


def viewed(observation: str, actions: str, red_agent: str, count: int, steps: int, batches: int) -> Callable[[], int]:
    """Return what plays episodes by these settings, with two layers of 64 units, and returns the number of steps."""
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


def rate(play: Callable[[], int]) -> float:
    """Return the steps a CPU second."""
    start = time.thread_time()
    steps = play()
    return steps / (time.thread_time() - start)


def measure(network: str, count: int, arguments: argparse.Namespace, figures: Figures) -> None:
    """Note the rates of all in turns."""
    batches = max(1, arguments.total // (count * arguments.steps))
    measured = players(network, arguments.red_agent, count, arguments.steps, batches)
    turns = {name: functools.partial(rate, play) for name, play in measured.items()}
    subject = f"{network}, K = {count}"
    for rates in interleaved(turns, arguments.repeats, subject):
        for name in CEILINGS:
            figures.note(subject, "rollout", rates["rollout"], "steps a CPU second", ceiling=(name, rates[name]))
        for name in MEASURED[1:]:
            figures.note(subject, name, rates[name], "steps a CPU second")


def measure_views(arguments: argparse.Namespace, figures: Figures) -> None:
    """Note the rates by observation and actions, 64 environments at a time, each beside the first."""
    batches = max(1, arguments.total // (64 * arguments.steps))
    turns = {
        f"{observation}, {actions}": functools.partial(
            rate, viewed(observation, actions, arguments.red_agent, 64, arguments.steps, batches)
        )
        for observation in OBSERVATIONS
        for actions in ACTIONS
    }
    first = next(iter(turns))
    for rates in interleaved(turns, arguments.repeats):
        for name, value in rates.items():
            figures.note(name, "rollout of 64", value, "steps a CPU second", ceiling=(first, rates[first]))


def main() -> None:
    script = Script.of(__file__)
    parser = script.parser()
    parser.add_argument("--repeats", type=int, default=7, help="interleaved repeats (default %(default)s)")
    parser.add_argument("--total", type=int, default=100_000, help="steps a repeat (default %(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="steps an episode (default %(default)s)")
    parser.add_argument("--together", type=int, nargs="+", default=[1, 8, 64, 256], help="environments, K")
    parser.add_argument("--red-agent", choices=RED_AGENTS, default="B_lineAgent", help="(default %(default)s)")
    parser.add_argument("--no-first-call", action="store_true", help="leave out the first call, which compiles")
    arguments = script.parse(parser)
    report = Report(script, arguments)
    threadpoolctl.threadpool_limits(1)
    figures = Figures()
    for network in NETWORKS:
        for count in arguments.together:
            measure(network, count, arguments, figures)
    measure_views(arguments, figures)
    if not arguments.no_first_call:
        note_first_call(FIRST_CALL, figures)
    report.finish(figures, f"CAGE 2 rollouts, {arguments.red_agent}, {arguments.steps}-step episodes, one core")


if __name__ == "__main__":
    main()

"""Steps a second that the learner learns from, next to what the bare products of its matrices would allow.

    python -m bench.learner                                          # CAGE 2, a batch of 50, 200 and 500 episodes
    python -m bench.learner --episodes 200 --minibatch-sizes 1024 4096 --epochs 3 4 --threads 1 2 --json learner.json

Batches of 100-step episodes. ``cage2`` is played by the compiled engine with the policy of the start, which sees
more different things than any later one; the learner computes what several steps saw only once. In ``distinct``, nobody
sees the same twice: 77 bits, one in ten set, and random rewards; in ``memory`` neither, of 307 bits, as many as
``--observation memory`` has, which the learner multiplies by their ones alone. The ceiling is forward and backward pass
of policy and value network without biases, tanh, loss or optimiser, for every step of every epoch; so a batch may be
learned faster than it. Learner and ceiling take turns; medians, and the median of the ratios within a turn.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from aiotrain.cage2.blue_view import NUM_INPUTS
from aiotrain.cage2.scenario import NUM_ACTIONS, NUM_BITS
from aiotrain.cage2.simulators.vector_env import Cage2VectorEnv
from aiotrain.config import PPOConfig
from aiotrain.learn.ppo import Learner
from aiotrain.play.policy import NumpyPolicy, PolicyShape
from aiotrain.play.spaces import EnvSpec
from aiotrain.transport.ring import HEADER, Trajectories

STEPS = 100
CPU = torch.device("cpu")


def spec_of(bits: int) -> EnvSpec:
    """An environment with ``bits`` bits as observation and CAGE 2's actions."""
    return EnvSpec(
        name="bench",
        observation_kind="bits",
        observation_shape=(bits,),
        observation_dtype="int8",
        inputs=bits,
        observation_start=0,
        action_kind="discrete",
        action_shape=(),
        outputs=NUM_ACTIONS,
        action_start=0,
        action_low=(),
        action_high=(),
        action_dtype="int64",
        max_episode_steps=STEPS,
    )


def learner_for(spec: EnvSpec, config: PPOConfig) -> Learner:
    return Learner(spec, PolicyShape.of(spec, config.hidden_sizes), config, seed=0, device=CPU)


def headers_for(episodes: int) -> np.ndarray:
    headers = np.zeros(episodes, HEADER)
    headers["length"] = headers["episode_steps"] = STEPS
    headers["ended"] = True
    return headers


def cage2_batch(episodes: int) -> tuple[EnvSpec, Trajectories]:
    """Episodes that the compiled engine plays with the policy of the start."""
    spec = spec_of(NUM_BITS)
    shape = PolicyShape.of(spec, PPOConfig().hidden_sizes)
    policy = NumpyPolicy(shape)
    policy.parameters[:] = learner_for(spec, PPOConfig()).parameters()
    policy.refresh()
    env = Cage2VectorEnv(episodes, max_steps=STEPS)
    generator = np.random.default_rng(0)
    observations = np.empty((episodes, STEPS + 1, NUM_BITS), np.int8)
    actions = np.empty((episodes, STEPS), np.int16)
    log_probs, rewards = np.empty((2, episodes, STEPS), np.float32)
    observations[:, 0], _ = env.reset(seed=0)
    for t in range(STEPS):
        chosen, log_probs[:, t] = policy.act(spec.encode(observations[:, t]), policy.noise(generator, episodes))
        actions[:, t] = chosen
        observations[:, t + 1], rewards[:, t], *_ = env.step(chosen)
    return spec, Trajectories(
        headers_for(episodes),
        observations[:, :-1].reshape(-1, NUM_BITS),
        observations[:, -1].copy(),
        actions.ravel(),
        log_probs.ravel(),
        rewards.ravel(),
        np.zeros(rewards.size, np.float32),
        np.zeros((rewards.size, 0), np.int8),
    )


def distinct_batch(episodes: int, bits: int = 77) -> tuple[EnvSpec, Trajectories]:
    """Episodes of which no two steps saw the same."""
    generator = np.random.default_rng(0)
    steps = episodes * STEPS
    return spec_of(bits), Trajectories(
        headers_for(episodes),
        (generator.random((steps, bits)) < 0.1).astype(np.int8),
        (generator.random((episodes, bits)) < 0.1).astype(np.int8),
        generator.integers(0, NUM_ACTIONS, steps, np.int16),
        np.full(steps, -np.log(NUM_ACTIONS), np.float32),
        -generator.random(steps, np.float32),
        np.zeros(steps, np.float32),
        np.zeros((steps, 0), np.int8),
    )


BATCHES = {
    "cage2": cage2_batch,
    "distinct": distinct_batch,
    "memory": lambda episodes: distinct_batch(episodes, NUM_INPUTS),
}


def products(spec: EnvSpec, config: PPOConfig, steps: int) -> Callable[[], None]:
    """The bare products of matrices in an update, into memory that is allocated beforehand."""
    rows = config.minibatch_size if steps >= config.minibatch_size else steps
    calls: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    for outputs in (spec.outputs, 1):
        layers = list(itertools.pairwise([spec.inputs, *config.hidden_sizes, outputs]))
        for index, (fan_in, fan_out) in enumerate(layers):
            below, weight, above = torch.randn(rows, fan_in), torch.randn(fan_out, fan_in), torch.randn(rows, fan_out)
            calls.append((below, weight.T, torch.empty_like(above)))
            calls.append((above.T, below, torch.empty_like(weight)))
            if index > 0:
                calls.append((above, weight, torch.empty_like(below)))
    minibatches = config.epochs * steps // rows

    def multiply() -> None:
        for _ in range(minibatches):
            for left, right, product in calls:
                torch.mm(left, right, out=product)

    return multiply


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(
    batch_name: str, episodes: int, epochs: int, minibatch_size: int, threads: int, repeats: int
) -> dict[str, object]:
    """One row of a table; the first repeat warms up and does not count."""
    config = dataclasses.replace(PPOConfig(), epochs=epochs, minibatch_size=minibatch_size)
    spec, batch = BATCHES[batch_name](episodes)
    torch.set_num_threads(threads)
    learner, multiply = learner_for(spec, config), products(spec, config, batch.steps)
    times = [(timed(lambda: learner.update(batch, 0.0)), timed(multiply)) for _ in range(repeats + 1)][1:]
    seconds = statistics.median(taken for taken, _ in times)
    return {
        "batch": batch_name,
        "episodes": episodes,
        "epochs": epochs,
        "minibatch_size": minibatch_size,
        "threads": threads,
        "episodes_per_s": round(episodes / seconds, 1),
        "us_per_step_and_epoch": round(1e6 * seconds / batch.steps / epochs, 3),
        "ceiling_episodes_per_s": round(episodes / statistics.median(bare for _, bare in times), 1),
        "share_of_ceiling": round(statistics.median(bare / taken for taken, bare in times), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", nargs="+", choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--episodes", type=int, nargs="+", default=[50, 200, 500], help="in a batch")
    parser.add_argument("--minibatch-sizes", type=int, nargs="+", default=[1024, 2048, 4096, 8192])
    parser.add_argument("--epochs", type=int, nargs="+", default=[4])
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="of torch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()

    console = Console(width=140)
    results = []
    for batch_name in args.batches:
        table = Table(title=f"Learner.update, {batch_name}, {STEPS}-step episodes, medians of {args.repeats}")
        for column in ("epi-\nsodes", "epochs", "mini-\nbatch", "threads", "episodes\n/s", "µs a step\nand epoch"):
            table.add_column(column, justify="right")
        for column in ("ceiling\n/s", "÷\nceiling"):
            table.add_column(column, justify="right")
        for setting in itertools.product(args.episodes, args.epochs, args.minibatch_sizes, args.threads):
            result = measure(batch_name, *setting, args.repeats)
            results.append(result)
            table.add_row(*(str(value) for name, value in result.items() if name != "batch"))
        console.print(table)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

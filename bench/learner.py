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

import dataclasses
import itertools
import time
from collections.abc import Callable

import numpy as np
import torch

from aiotrain.cage2 import Cage2
from aiotrain.cage2.blue_view import NUM_INPUTS
from aiotrain.cage2.scenario import NUM_ACTIONS, NUM_BITS
from aiotrain.cage2.simulators.vector_env import Cage2VectorEnv
from aiotrain.learn.ppo import Learner
from aiotrain.learn.settings import PPOConfig
from aiotrain.play.policy import PolicyShape
from aiotrain.play.spaces import EnvSpec
from aiotrain.transport.slot_ring import header_dtype
from aiotrain.transport.trajectories import Trajectories
from bench.tools.ceiling import initial_policy
from bench.tools.figures import Figures, interleaved
from bench.tools.report import Report
from bench.tools.script import Script

TAKES = "10 minutes"
SMALLEST = "--episodes 2 --minibatch-sizes 64 --epochs 1 --repeats 1"

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
    headers = np.zeros(episodes, header_dtype())
    headers["length"] = headers["episode_steps"] = STEPS
    headers["ended"] = True
    return headers


def cage2_batch(episodes: int) -> tuple[EnvSpec, Trajectories]:
    """Episodes that the compiled engine plays with the policy of the start."""
    spec = spec_of(NUM_BITS)
    policy = initial_policy(spec, Cage2.ppo.hidden_sizes)
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
    """Return the seconds that ``work`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(
    batch_name: str, episodes: int, epochs: int, minibatch_size: int, threads: int, repeats: int, figures: Figures
) -> None:
    """Note one row of the table."""
    config = dataclasses.replace(Cage2.ppo, epochs=epochs, minibatch_size=minibatch_size)
    spec, batch = BATCHES[batch_name](episodes)
    torch.set_num_threads(threads)
    learner, multiply = learner_for(spec, config), products(spec, config, batch.steps)
    subject = f"{batch_name}, {episodes} episodes, {epochs} epochs of {minibatch_size}, {threads} threads"
    players = {"learner": lambda: timed(lambda: learner.update(batch, 0.0)), "products": lambda: timed(multiply)}
    for seconds in interleaved(players, repeats, subject):
        ceiling = ("products of matrices", episodes / seconds["products"])
        figures.note(subject, "learned", episodes / seconds["learner"], "episodes/s", ceiling=ceiling)
        figures.note(subject, "a step and epoch", 1e6 * seconds["learner"] / batch.steps / epochs, "µs")


def main() -> None:
    script = Script.of(__file__)
    parser = script.parser()
    parser.add_argument("--batches", nargs="+", choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--episodes", type=int, nargs="+", default=[50, 200, 500], help="in a batch")
    parser.add_argument("--minibatch-sizes", type=int, nargs="+", default=[1024, 2048, 4096, 8192])
    parser.add_argument("--epochs", type=int, nargs="+", default=[4])
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="of torch")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = script.parse(parser)
    report = Report(script, arguments)
    figures = Figures()
    settings = (arguments.batches, arguments.episodes, arguments.epochs, arguments.minibatch_sizes, arguments.threads)
    for setting in itertools.product(*settings):
        measure(*setting, arguments.repeats, figures)
    report.finish(figures, f"Learner.update, {STEPS}-step episodes")


if __name__ == "__main__":
    main()

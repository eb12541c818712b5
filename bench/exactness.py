"""The long proof that the compiled CAGE 2 engine equals CybORG.

    python -m bench.exactness

Four comparisons, the first three over three red agents and twelve blue policies, until each has played its
number of steps:

    replay     the engine, fed CybORG's own draws, against the lean environment: bits, reward, hosts
               that red holds, and the number of draws, after every step
    oracle     a Python oracle that makes every draw itself, against csle-cyborg's ChallengeWrapper:
               bits, reward, red's hosts, and the whole state of the random generator, after every step
    stock      as replay, against the ChallengeWrapper
    law        the engine, drawing for itself, against the lean environment, both on one script of
               actions: the frequency of every bit in every step; the root mean square of the z values
               must be about 1

The first difference ends the run with status 1 and is told.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "cage2"))

import numpy as np
from blue_policies import POLICIES, Policy
from oracle import Oracle
from recorded_draws import LeanReference, UnmodifiedReference
from step_comparison import Replay

from aiotrain.cage2.engine import NO_TAPE, RED_AGENTS, allocate, reset_batch, step_batch
from aiotrain.cage2.scenario import NUM_ACTIONS, NUM_BITS
from bench.tools.figures import Figures
from bench.tools.progress import say
from bench.tools.report import Report
from bench.tools.script import Script

TAKES = "an hour"
SMALLEST = "--replay 600 --oracle 300 --stock 300 --law 6000"

RARE_PATHS = (
    "B_line finds the gate closed",
    "Meander blind to Op_Server0",
    "Op_Host attacked",
    "Vsftpd stacked",
    "Restore of User0",
    "Restore of Defender",
    "red seen where a decoy was placed in this step",
    "scan swallowed by a decoy of this step",
    "Restore of Op_Server0 before Impact",
    "Restore of Op_Server0 after Impact",
)


def schedule(total: int, seed: int) -> Iterator[tuple[Policy, int, int]]:
    """Policies in turn, with a seed each and an episode's length, until ``total`` steps are given out."""
    lengths = (100, 100, 50, 30, 150)
    number = 0
    while total > 0:
        policy = list(POLICIES.values())[number % len(POLICIES)]
        length = lengths[number // len(POLICIES) % len(lengths)]
        yield policy, seed + number, length
        total -= length
        number += 1


def play_replay(reference: Any, red_agent: str, total: int, seed: int) -> tuple[int, Counter[str]]:
    replay = Replay(reference(red_agent), red_agent)
    for policy, episode_seed, length in schedule(total, seed):
        replay.play(policy, episode_seed, length)
    return replay.steps, replay.rare


def play_oracle(red_agent: str, total: int, seed: int) -> tuple[int, Counter[str]]:
    stock, oracle = UnmodifiedReference(red_agent), Oracle(red_agent)
    steps = 0
    for policy, episode_seed, length in schedule(total, seed):
        rng = random.Random(episode_seed)
        oracle.random.seed(episode_seed)
        bits = stock.reset(episode_seed)
        assert bytes(oracle.reset()) == bits, f"{red_agent}, seed {episode_seed}: the first observation differs"
        for step in range(length):
            action = policy(rng, bits, step)
            bits, reward, held = stock.step(action)
            own_bits, own_reward, own_held = oracle.step(action)
            where = f"{red_agent}, {policy.__name__}, seed {episode_seed}, step {step}, action {action}"
            assert (bytes(own_bits), own_reward, own_held) == (bits, reward, held), f"{where}: outcome differs"
            assert oracle.random.getstate() == random.getstate(), f"{where}: draws differ"
        steps += length
    return steps, Counter()


def play_law(red_agent: str, total: int, seed: int, length: int = 100) -> float:
    """Return the root mean square, over steps and bits, of the z value of the difference between two frequencies."""
    rng = np.random.default_rng(seed)
    script = np.where(rng.random(length) < 0.5, rng.integers(0, NUM_ACTIONS, length), 0)
    env = LeanReference(red_agent)
    episodes = max(1, total // length)
    counts = np.zeros((length, NUM_BITS))
    env.reset(seed)
    for _ in range(episodes):
        env.env.reset()
        for step, action in enumerate(script.tolist()):
            counts[step] += np.frombuffer(env.step(action)[0], np.int8)
    num_envs = 20 * episodes
    state = allocate(num_envs, red_agent=red_agent)
    reset_batch(state, np.arange(num_envs, dtype=np.uint64) + np.uint64(seed))
    tenths = np.zeros(num_envs, np.int32)
    own = np.zeros((length, NUM_BITS))
    for step, action in enumerate(script):
        step_batch(state, np.full(num_envs, action), tenths, NO_TAPE)
        own[step] = state["observation"].sum(axis=0, dtype=np.int64)
    pooled = (counts + own) / (episodes + num_envs)
    variance = pooled * (1 - pooled) * (1 / episodes + 1 / num_envs)
    enough = pooled * (1 - pooled) * episodes > 5
    z = (counts / episodes - own / num_envs)[enough] / np.sqrt(variance[enough])
    assert z.size > 100, f"law, {red_agent}: only {z.size} cells to compare"
    rms = float(np.sqrt((z**2).mean()))
    # Cells of one episode hang together, so that the value of one run strays from 1 by as much as 0.4.
    assert rms < 1.6, f"law, {red_agent}: rms of z is {rms:.2f} over {z.size} cells"
    say(f"law, {red_agent}: {episodes * length:,} steps, rms of z {rms:.2f} over {z.size} cells")
    return rms


def compare(name: str, red_agent: str, steps: int, seed: int) -> tuple[int, Counter[str]]:
    """Make one of the first three comparisons; return the steps, and how often rare paths were taken."""
    if name == "oracle":
        return play_oracle(red_agent, steps, seed)
    return play_replay(LeanReference if name == "replay" else UnmodifiedReference, red_agent, steps, seed)


def compare_all(arguments: argparse.Namespace, figures: Figures) -> None:
    """Make all comparisons, and note them. Raises AssertionError at the first difference."""
    rare: Counter[str] = Counter()
    for name in ("replay", "stock", "oracle"):
        for red_agent in RED_AGENTS:
            share = -(-getattr(arguments, name) // len(RED_AGENTS))
            steps, taken = compare(name, red_agent, share, arguments.seed)
            rare += taken
            figures.note(f"{name}, {red_agent}", "compared", steps, "steps")
            figures.note(f"{name}, {red_agent}", "differences", 0)
            say(f"{name}, {red_agent}: {steps:,} steps, 0 differences")
    for red_agent in RED_AGENTS[:2]:
        rms = play_law(red_agent, arguments.law // 2, arguments.seed)
        figures.note(f"law, {red_agent}", "rms of z", rms)
    for path in RARE_PATHS:
        figures.note(path, "times", rare[path])


def main() -> int:
    script = Script.of(__file__)
    parser = script.parser()
    parser.add_argument("--replay", type=int, default=1_000_000, help="steps of replay (default %(default)s)")
    parser.add_argument("--oracle", type=int, default=200_000, help="steps of oracle (default %(default)s)")
    parser.add_argument("--stock", type=int, default=100_000, help="steps of stock (default %(default)s)")
    parser.add_argument("--law", type=int, default=400_000, help="steps of law (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1_000_000, help="first seed (default %(default)s)")
    arguments = script.parse(parser)
    report = Report(script, arguments)
    figures = Figures()
    difference = None
    try:
        compare_all(arguments, figures)
    except AssertionError as error:
        difference = str(error)
    report.finish(figures, "The compiled engine beside CybORG", {"difference": difference})
    if difference is not None:
        print(f"DIFFERENCE {difference}")
    return int(difference is not None)


if __name__ == "__main__":
    sys.exit(main())

"""Steps a second of the compiled CAGE 2 engine on one core, beside csle-cyborg's own ChallengeWrapper.

    python -m bench.engine

Both play uniformly random actions in 100-step episodes, resets included, in turns in one process. The engine's actions
are drawn beforehand. Also measured: the Gymnasium vector environment over the engine, and the first call of a process
with an empty and with a filled cache of compiled code.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable

import numpy as np

from aiotrain.cage2.engine import NO_TAPE, RED_AGENTS, allocate, reset_batch, step_batch
from aiotrain.cage2.scenario import NUM_ACTIONS
from aiotrain.cage2.simulators.vector_env import Cage2VectorEnv
from bench.env import stock_player, timed
from bench.tools.figures import Figures, interleaved
from bench.tools.first_call import note_first_call
from bench.tools.report import Report
from bench.tools.script import Script

TAKES = "2 minutes"
SMALLEST = "--repeats 1 --num-envs 16 --episodes 2 --stock 1 --steps 20 --no-first-call"

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


def engine_player(red_agent: str, num_envs: int, steps: int, episodes: int) -> Callable[[], float]:
    """Return what plays ``episodes`` episodes in every environment of a batch, and returns the steps a second."""
    state = allocate(num_envs, red_agent=red_agent)
    tenths = np.zeros(num_envs, np.int32)
    seed = itertools.count()

    def play() -> float:
        rng = np.random.default_rng(next(seed))
        actions = rng.integers(0, NUM_ACTIONS, (steps, num_envs))
        seeds = rng.integers(0, 2**63, (episodes, num_envs)).astype(np.uint64)
        start = time.perf_counter()
        for episode in range(episodes):
            reset_batch(state, seeds[episode])
            for step in range(steps):
                step_batch(state, actions[step], tenths, NO_TAPE)
        return num_envs * steps * episodes / (time.perf_counter() - start)

    return play


def vector_player(red_agent: str, num_envs: int, steps: int, episodes: int) -> Callable[[], float]:
    """Do the same with ``Cage2VectorEnv``, which checks actions and hands out copies."""
    env = Cage2VectorEnv(num_envs, red_agent=red_agent, max_steps=steps)
    seed = itertools.count()

    def play() -> float:
        actions = np.random.default_rng(next(seed)).integers(0, NUM_ACTIONS, (steps, num_envs))
        start = time.perf_counter()
        for _ in range(episodes):
            env.reset(seed=next(seed))
            for step in range(steps):
                env.step(actions[step])
        return num_envs * steps * episodes / (time.perf_counter() - start)

    return play


def measure(red_agent: str, arguments: argparse.Namespace, figures: Figures) -> None:
    """Note the three in turns."""
    stock = stock_player(red_agent)
    first = itertools.count(0, arguments.stock)

    def play_stock() -> float:
        begin = next(first)
        return timed(stock, range(begin, begin + arguments.stock), arguments.steps)[0]

    num_envs, steps, episodes = arguments.num_envs, arguments.steps, arguments.episodes
    players = {
        "ChallengeWrapper": play_stock,
        "engine": engine_player(red_agent, num_envs, steps, episodes),
        "vector environment": vector_player(red_agent, num_envs, steps, max(1, episodes // 10)),
    }
    for rates in interleaved(players, arguments.repeats, red_agent):
        ceiling = ("ChallengeWrapper", rates.pop("ChallengeWrapper"))
        figures.note(red_agent, *ceiling, "steps/s")
        for name, rate in rates.items():
            figures.note(red_agent, name, rate, "steps/s", ceiling=ceiling)


def main() -> None:
    script = Script.of(__file__)
    parser = script.parser()
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats (default %(default)s)")
    parser.add_argument("--num-envs", type=int, default=1024, help="environments in the batch (default %(default)s)")
    parser.add_argument("--episodes", type=int, default=50, help="of each environment a repeat (default %(default)s)")
    parser.add_argument("--stock", type=int, default=8, help="ChallengeWrapper's a repeat (default %(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="steps an episode (default %(default)s)")
    parser.add_argument("--no-first-call", action="store_true", help="leave out the first call, which compiles")
    arguments = script.parse(parser)
    report = Report(script, arguments)
    figures = Figures()
    for red_agent in RED_AGENTS:
        measure(red_agent, arguments, figures)
    if not arguments.no_first_call:
        note_first_call(FIRST_CALL, figures)
    report.finish(figures, f"CAGE 2, {arguments.num_envs} environments, one core, random actions")


if __name__ == "__main__":
    main()

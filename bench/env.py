"""Steps a second of the CAGE 2 environment and of csle-cyborg's own ChallengeWrapper, resets included.

Both play the same episodes (same seeds, same random actions) in turn, in one process; medians over the
repeats. What it costs to judge fix actions by a workflow is measured on pairs of the same episode, with and
without one, of which now the one and now the other comes first. Run it as ``python -m bench.env``.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aiotrain.cage2.scenario import NUM_ACTIONS
from aiotrain.cage2.simulators.cyborg_env import RED_AGENTS, Cage2Env
from bench.tools.envs import challenge_wrapper


def stock_player(red_agent: str) -> Callable[[int, list[int]], float]:
    """Plays an episode on the ChallengeWrapper and returns its reward."""
    wrapper = challenge_wrapper(red_agent)

    def play(seed: int, actions: list[int]) -> float:
        random.seed(seed)
        wrapper.reset()
        return sum(wrapper.step(action)[1] for action in actions)

    return play


def our_player(red_agent: str, steps: int, workflow: str | None = None) -> Callable[[int, list[int]], float]:
    """Plays an episode on the environment and returns its reward."""
    env = Cage2Env(red_agent=red_agent, max_steps=steps, workflow=workflow)

    def play(seed: int, actions: list[int]) -> float:
        env.reset(seed=seed)
        return sum(env.step(action)[1] for action in actions)

    return play


def timed(play: Callable[[int, list[int]], float], seeds: range, steps: int) -> tuple[float, list[float]]:
    """Steps a second over the episodes of these seeds, and their returns."""
    scripts = [random.Random(seed).choices(range(NUM_ACTIONS), k=steps) for seed in seeds]
    start = time.perf_counter()
    returns = [play(seed, actions) for seed, actions in zip(seeds, scripts, strict=True)]
    return len(seeds) * steps / (time.perf_counter() - start), returns


def cost_of_workflow(red_agent: str, episodes: int, steps: int) -> float:
    """How much longer a step takes with a workflow, as a share; the median over pairs of the same episode."""
    plain, judged = our_player(red_agent, steps), our_player(red_agent, steps, "reverse")
    ratios = []
    for seed in range(episodes):
        players = (plain, judged) if seed % 2 else (judged, plain)
        rates = {play: timed(play, range(seed, seed + 1), steps)[0] for play in players}
        ratios.append(rates[plain] / rates[judged])
    return statistics.median(ratios) - 1


def measure(red_agent: str, repeats: int, episodes: int, steps: int) -> dict[str, Any]:
    """Rates of both sides in interleaved repeats; raises SystemExit if an episode's return differs."""
    players = {"stock": stock_player(red_agent), "ours": our_player(red_agent, steps)}
    rates: dict[str, list[float]] = {name: [] for name in players}
    for repeat in range(repeats + 1):  # the first one warms up
        seeds = range(repeat * episodes, (repeat + 1) * episodes)
        returns = {}
        for name, play in players.items():
            rate, returns[name] = timed(play, seeds, steps)
            if repeat:
                rates[name].append(rate)
        if returns["stock"] != returns["ours"]:
            raise SystemExit(f"{red_agent}: returns differ for seeds {seeds}: {returns}")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "red_agent": red_agent,
        "steps_per_second": medians,
        "ratio": medians["ours"] / medians["stock"],
        "cost_of_workflow": cost_of_workflow(red_agent, 5 * repeats * episodes, steps),
        "repeats": rates,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats (default %(default)s)")
    parser.add_argument("--episodes", type=int, default=10, help="episodes a repeat (default %(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="steps an episode (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE as well")
    args = parser.parse_args()

    table = Table(title=f"CAGE 2, {args.steps}-step episodes, resets included, one core, random actions")
    table.add_column("red agent")
    for column in ("ChallengeWrapper steps/s", "Cage2-v0 steps/s", "ratio", "cost of a workflow"):
        table.add_column(column, justify="right")
    results = []
    for red_agent in RED_AGENTS:
        result = measure(red_agent, args.repeats, args.episodes, args.steps)
        results.append(result)
        rates = result["steps_per_second"]
        table.add_row(
            red_agent,
            f"{rates['stock']:,.0f}",
            f"{rates['ours']:,.0f}",
            f"{result['ratio']:.1f}",
            f"{result['cost_of_workflow']:.1%}",
        )
    Console(width=140).print(table)
    if args.json:
        setting = {key: getattr(args, key) for key in ("repeats", "episodes", "steps")}
        report = {
            "python": platform.python_version(),
            "machine": platform.machine(),
            **setting,
            "results": results,
        }
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Steps a second of CAGE 2 on csle-cyborg, beside csle-cyborg's own ChallengeWrapper.

    python -m bench.env

Both play the same episodes (same seeds, same random actions) in turn, in one process, resets included; their returns
must be equal. What it costs to judge fix actions by a workflow is measured on pairs of the same episode, with and
without one, of which now the one and now the other comes first.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable

from aiotrain.cage2.scenario import NUM_ACTIONS, RED_AGENTS
from aiotrain.cage2.simulators.cyborg_env import Cage2Env
from bench.tools.envs import challenge_wrapper
from bench.tools.figures import Figures, interleaved
from bench.tools.report import Report
from bench.tools.script import Script

TAKES = "3 minutes"
SMALLEST = "--repeats 1 --episodes 1 --steps 30"

Player = Callable[[int, list[int]], float]
"""Plays the episode of a seed by a script of actions, and returns its return."""


def stock_player(red_agent: str) -> Player:
    """Return a player of the ChallengeWrapper."""
    wrapper = challenge_wrapper(red_agent)

    def play(seed: int, actions: list[int]) -> float:
        random.seed(seed)
        wrapper.reset()
        return float(sum(wrapper.step(action)[1] for action in actions))

    return play


def our_player(red_agent: str, steps: int, workflow: str | None = None) -> Player:
    """Return a player of the environment."""
    env = Cage2Env(red_agent=red_agent, max_steps=steps, workflow=workflow)

    def play(seed: int, actions: list[int]) -> float:
        env.reset(seed=seed)
        return float(sum(env.step(action)[1] for action in actions))

    return play


def timed(play: Player, seeds: range, steps: int) -> tuple[float, list[float]]:
    """Return the steps a second over the episodes of these seeds, and their returns."""
    scripts = [random.Random(seed).choices(range(NUM_ACTIONS), k=steps) for seed in seeds]
    start = time.perf_counter()
    returns = [play(seed, actions) for seed, actions in zip(seeds, scripts, strict=True)]
    return len(seeds) * steps / (time.perf_counter() - start), returns


def note_cost_of_workflow(red_agent: str, repeats: int, episodes: int, steps: int, figures: Figures) -> None:
    """Note the speed with a workflow, beside that of the same episodes without one."""
    players = [our_player(red_agent, steps), our_player(red_agent, steps, "reverse")]
    for repeat in range(repeats):
        seconds = [0.0, 0.0]
        for seed in range(repeat * episodes, (repeat + 1) * episodes):
            for which in (0, 1) if seed % 2 else (1, 0):
                seconds[which] += steps / timed(players[which], range(seed, seed + 1), steps)[0]
        plain, judged = (episodes * steps / each for each in seconds)
        subject = f"{red_agent}, with a workflow"
        figures.note(subject, "Cage2-v0", judged, "steps/s", ceiling=("without a workflow", plain))


def measure(red_agent: str, repeats: int, episodes: int, steps: int, figures: Figures) -> None:
    """Note both sides in turns. Raises SystemExit if an episode's return differs."""
    players = {"ChallengeWrapper": stock_player(red_agent), "Cage2-v0": our_player(red_agent, steps)}
    returns: dict[str, list[float]] = {name: [] for name in players}

    def turn(name: str) -> float:
        first = len(returns[name])
        rate, played = timed(players[name], range(first, first + episodes), steps)
        returns[name] += played
        return rate

    turns = {name: functools.partial(turn, name) for name in players}
    for rates in interleaved(turns, repeats, red_agent):
        stock, ours = rates["ChallengeWrapper"], rates["Cage2-v0"]
        figures.note(red_agent, "ChallengeWrapper", stock, "steps/s")
        figures.note(red_agent, "Cage2-v0", ours, "steps/s", ceiling=("ChallengeWrapper", stock))
    if returns["ChallengeWrapper"] != returns["Cage2-v0"]:
        raise SystemExit(f"{red_agent}: the returns of the same episodes differ: {returns}")


def main() -> None:
    script = Script.of(__file__)
    parser = script.parser()
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats (default %(default)s)")
    parser.add_argument("--episodes", type=int, default=10, help="episodes a repeat (default %(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="steps an episode (default %(default)s)")
    arguments = script.parse(parser)
    report = Report(script, arguments)
    figures = Figures()
    for red_agent in RED_AGENTS:
        measure(red_agent, arguments.repeats, arguments.episodes, arguments.steps, figures)
        note_cost_of_workflow(red_agent, arguments.repeats, 5 * arguments.episodes, arguments.steps, figures)
    report.finish(figures, f"CAGE 2, {arguments.steps}-step episodes, resets included, one core, random actions")


if __name__ == "__main__":
    main()

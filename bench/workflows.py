"""What a search over workflows comes to, beside plain PPO and simpler ways of choosing, on equal budgets.

    python -m bench.workflows --csv curves.csv --png curves.png         # 20,000 episodes, three seeds
    python -m bench.workflows --observation memory --actions compact --strategies "GP-UCB, 16 orders together"

Each strategy trains with the same observations, actions and budget. Of a search, the best order is then the one that
the search itself ranks first. Its policy, as plain PPO's, plays 1,000 fresh episodes with sampled actions: their mean
return is what counts, with their compliance. Policies without learning give the scale: random actions, and the greedy
heuristic, which sees the true state and restores a host of the first compromised type. Every other flag is one of
aiotrain's own.
"""

from __future__ import annotations

import csv
import math
import tempfile
import time
from pathlib import Path

import numpy as np

from aiotrain import Config, Trainer
from aiotrain.cage2 import SearchConfig, evaluate
from aiotrain.cage2.official.baselines import greedy_actions
from aiotrain.cage2.scenario import NUM_ACTIONS
from aiotrain.cage2.simulators.vector_env import Cage2VectorEnv
from aiotrain.cage2.workflows import NAMED_ORDERS, Order
from bench.tools.figures import Figures
from bench.tools.progress import say
from bench.tools.report import Report
from bench.tools.runs import config_of
from bench.tools.script import Script
from bench.tools.training import run

TAKES = "10 minutes"
SMALLEST = (
    "--seeds 0 --strategies 'GP-UCB, 4 orders together' --played 20 --workers 1 --total-episodes 240 "
    "--episodes-per-update 40 --max-episodes-per-workflow 40"
)

STEPS = 100
BEFORE = ("--workers", "2", "--total-episodes", "20000")
"""Flags that go before those of the command."""
STRATEGIES: dict[str, list[str]] = {
    "plain PPO": ["--workflow", "none"],
    "GP-UCB, 16 orders together": [],
    "GP-UCB, 4 orders together": ["--parallel-workflows", "4"],
    "GP-UCB, one at a time": ["--parallel-workflows", "1"],
    "… from the nearest policy": ["--parallel-workflows", "1", "--inherit", "nearest"],
    "random orders, 16": ["--search", "random"],
    "orders in turn, 16": ["--search", "round-robin"],
}
Curve = list[tuple[int, float, float]]


async def train(config: Config) -> tuple[Trainer, Curve]:
    """Train; after each update: episodes so far, mean return, compliance (NaN if no episode told it)."""
    curve = []
    async with Trainer(config) as trainer:
        async for update in trainer:
            told = update.metrics.get("compliance")
            curve.append((update.episodes, update.mean_return, math.nan if told is None else told.mean))
    return trainer, curve


def train_and_play(strategy: str, seed: int, played: int, flags: list[str], figures: Figures) -> Curve:
    """Train by a strategy, and note what the best policy that comes of it plays."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        run_dir = Path(folder) / "run"
        mine = ["--seed", str(seed), "--run-dir", str(run_dir), *STRATEGIES[strategy]]
        began = time.monotonic()
        trainer, curve = run(train(config_of([*BEFORE, *flags, *mine])))
        figures.note(strategy, "duration", time.monotonic() - began, "s")
        order = None
        if (found := trainer.status().curriculum) is not None:
            if not found.best:
                raise SystemExit(f"{strategy}: no training of an order ended; a larger --total-episodes is needed")
            order = found.best[0].workflow
            figures.note(strategy, "trainings", found.trainings)
            figures.note(strategy, "complied", found.complied)
        evaluation = evaluate(run_dir, episodes=played, workflow=order, seed=1).summary()
    figures.note(strategy, "mean return", evaluation["mean_return"])
    figures.note(strategy, "standard error", evaluation["standard_error"])
    if "compliance" in evaluation:
        figures.note(strategy, "compliance", evaluation["compliance"])
    say(f"{strategy}, seed {seed}: mean return {evaluation['mean_return']:.1f}, order {order}")
    return curve


def note_without_learning(red_agent: str, played: int, figures: Figures) -> None:
    """Note the mean returns of random actions, and of the greedy heuristic by two orders."""
    generator = np.random.default_rng(1)
    orders: dict[str, Order | None] = {"random actions": None}
    orders |= {f"greedy, true state, {name}": NAMED_ORDERS[name] for name in ("critical_first", "reverse")}
    for name, order in orders.items():
        env = Cage2VectorEnv(played, red_agent=red_agent, max_steps=STEPS)
        greedy = None if order is None else greedy_actions(order)
        _, info = env.reset(seed=1)
        returns = np.zeros(played)
        for _ in range(STEPS):
            actions = generator.integers(0, NUM_ACTIONS, played) if greedy is None else greedy[info["red_hosts"]]
            _, rewards, _, _, info = env.step(actions)
            returns += rewards
        figures.note(name, "mean return", float(returns.mean()))
        figures.note(name, "standard error", float(returns.std(ddof=1) / np.sqrt(played)))


def save_png(path: Path, curves: dict[tuple[str, int], Curve], window: int) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained", dpi=120)
    returns, compliances = figure.subplots(1, 2)
    for (strategy, seed), curve in curves.items():
        colour = f"C{list(STRATEGIES).index(strategy)}"
        episodes, means, shares = np.array(curve).T
        smooth = np.ones(min(window, len(means))) / min(window, len(means))
        kept = episodes[len(smooth) - 1 :]
        label = strategy if seed == min(other for _, other in curves) else None
        returns.plot(kept, np.convolve(means, smooth, "valid"), colour, lw=0.9, alpha=0.8, label=label)
        if not np.isnan(shares).all():
            compliances.plot(kept, np.convolve(shares, smooth, "valid"), colour, lw=0.9, alpha=0.8)
    returns.set(xlabel="episodes", ylabel="mean return", ylim=(-100, -10))
    compliances.set(xlabel="episodes", ylabel="compliance", ylim=(0.5, 1))
    compliances.axhline(SearchConfig().compliance_threshold, color="grey", ls="--", lw=0.8)
    returns.legend(fontsize=7)
    figure.savefig(path)


def save_csv(path: Path, curves: dict[tuple[str, int], Curve]) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["strategy", "seed", "episodes", "mean_return", "compliance"])
        rows.writerows((*key, *point) for key, curve in curves.items() for point in curve)


def main() -> None:
    script = Script.of(__file__)
    parser = script.parser()
    parser.add_argument("--strategies", choices=STRATEGIES, nargs="+", default=list(STRATEGIES), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--played", type=int, default=1_000, help="episodes played at the end (default %(default)s)")
    parser.add_argument("--red-agent", default="B_lineAgent")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="all curves")
    parser.add_argument("--png", type=Path, metavar="FILE", help="a picture of them; needs matplotlib")
    arguments, others = script.parse_known(parser)
    report = Report(script, arguments)
    flags = ["--red-agent", arguments.red_agent, *others]
    figures = Figures()
    curves = {
        (strategy, seed): train_and_play(strategy, seed, arguments.played, flags, figures)
        for seed in arguments.seeds
        for strategy in arguments.strategies
    }
    note_without_learning(arguments.red_agent, arguments.played, figures)
    if arguments.csv:
        save_csv(arguments.csv, curves)
    if arguments.png:
        save_png(arguments.png, curves, window=10)
    details = [{"strategy": strategy, "seed": seed, "curve": curve} for (strategy, seed), curve in curves.items()]
    report.finish(figures, " ".join(["CAGE 2:", *flags]), {"curves": details})


if __name__ == "__main__":
    main()

"""What a search over workflows comes to, next to plain PPO and to simpler ways of choosing, on equal budgets.

    python -m bench.workflows --csv curves.csv --png curves.png         # 20,000 episodes, three seeds, some minutes
    python -m bench.workflows --observation memory --actions compact --strategies "GP-UCB, 16 orders together"

Every other flag is one of aiotrain's own.
Each strategy trains with the same observations, actions and budget. Of a search, the best order is then the one that
the search itself ranks first. Its policy, as plain PPO's, plays 1,000 fresh episodes with sampled actions: their mean
return is what counts, with their compliance. Policies without learning give the scale: random actions, and the greedy
heuristic, which sees the true state and restores a host of the first compromised type.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from aiotrain import Config, Trainer, evaluate
from aiotrain.app.main import Arguments
from aiotrain.cage2.official.baselines import greedy_actions
from aiotrain.cage2.scenario import NUM_ACTIONS
from aiotrain.cage2.simulators.vector_env import Cage2VectorEnv
from aiotrain.cage2.workflows import NAMED_ORDERS, Order
from aiotrain.config import SearchConfig

STEPS = 100
STRATEGIES: dict[str, dict[str, Any] | None] = {
    "plain PPO": None,
    "GP-UCB, 16 orders together": {},
    "GP-UCB, 4 orders together": {"parallel_workflows": 4},
    "GP-UCB, one at a time": {"parallel_workflows": 1},
    "… from the nearest policy": {"parallel_workflows": 1, "inherit": "nearest"},
    "random orders, 16": {"search": "random"},
    "orders in turn, 16": {"search": "round-robin"},
}
Curve = list[tuple[int, float, float]]


async def train(config: Config) -> tuple[Trainer, Curve]:
    """Train; after each update: episodes so far, mean return, compliance."""
    curve = []
    async with Trainer(config) as trainer:
        async for update in trainer:
            curve.append((int(update.episodes), update.mean_return, update.compliance))
    return trainer, curve


def run(strategy: str, seed: int, args: argparse.Namespace) -> tuple[dict[str, Any], Curve]:
    """Train by a strategy and play the best policy that comes of it."""
    settings = STRATEGIES[strategy]
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        config = dataclasses.replace(
            args.config,
            seed=seed,
            run_dir=str(run_dir),
            workflow="none" if settings is None else "search",
            workflow_search=SearchConfig(**(settings or {})),
        )
        began = time.monotonic()
        trainer, curve = asyncio.run(train(config.config()))
        result: dict[str, Any] = {"strategy": strategy, "seed": seed, "seconds": time.monotonic() - began}
        order = None
        if settings is not None and (found := trainer.status().workflow) is not None:
            if not found.best:
                raise SystemExit(f"{strategy}: no training of an order ended; a larger --total-episodes is needed")
            order = found.best[0].workflow
            result |= {"order": order, "trainings": found.trainings, "complied": found.complied}
        played = evaluate(run_dir, episodes=args.played, workflow=order, seed=1).summary()
    result |= {"mean": played["mean_return"], "error": played["standard_error"]}
    return result | ({"compliance": played["compliance"]} if "compliance" in played else {}), curve


def without_learning(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Mean returns of random actions, and of the greedy heuristic by two orders."""
    red_agent = args.config.red_agent
    generator = np.random.default_rng(1)
    rows = []
    orders: dict[str, Order | None] = {"random actions": None}
    orders |= {f"greedy, true state, {name}": NAMED_ORDERS[name] for name in ("critical_first", "reverse")}
    for name, order in orders.items():
        env = Cage2VectorEnv(args.played, red_agent=red_agent, max_steps=STEPS)
        greedy = None if order is None else greedy_actions(order)
        _, info = env.reset(seed=1)
        returns = np.zeros(args.played)
        for _ in range(STEPS):
            actions = generator.integers(0, NUM_ACTIONS, args.played) if greedy is None else greedy[info["red_hosts"]]
            _, rewards, _, _, info = env.step(actions)
            returns += rewards
        error = float(returns.std(ddof=1) / np.sqrt(len(returns)))
        rows.append({"strategy": name, "mean": float(returns.mean()), "error": error})
    return rows


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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--strategies", choices=STRATEGIES, nargs="+", default=list(STRATEGIES), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--played", type=int, default=1_000, help="episodes played at the end (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="all curves")
    parser.add_argument("--png", type=Path, metavar="FILE", help="a picture of them; needs matplotlib")
    args, others = parser.parse_known_args()
    args.config = tyro.cli(
        Arguments,
        args=others,
        config=(tyro.conf.OmitArgPrefixes,),
        default=Arguments(workers=2, total_episodes=20_000),
    )

    results: list[dict[str, Any]] = []
    curves: dict[tuple[str, int], Curve] = {}
    console = Console(width=140)
    for seed in args.seeds:
        for strategy in args.strategies:
            result, curves[strategy, seed] = run(strategy, seed, args)
            results.append(result)
            console.print(
                {key: round(value, 3) if isinstance(value, float) else value for key, value in result.items()}
            )
    table = Table(
        title=f"CAGE 2, {args.config.red_agent}, {args.config.total_episodes:,} episodes, {len(args.seeds)} seeds"
    )
    table.add_column("strategy")
    for column in ("mean return, each seed", "median", "compliance", "trainings", "complied", "s"):
        table.add_column(column, justify="right")
    for strategy in args.strategies:
        rows = [result for result in results if result["strategy"] == strategy]
        searched = "trainings" in rows[0]
        table.add_row(
            strategy,
            "  ".join(f"{row['mean']:.1f} ± {row['error']:.1f}" for row in rows),
            f"{statistics.median(row['mean'] for row in rows):.1f}",
            f"{statistics.median(row.get('compliance', np.nan) for row in rows):.3f}" if searched else "",
            " ".join(str(row["trainings"]) for row in rows) if searched else "",
            " ".join(str(row["complied"]) for row in rows) if searched else "",
            f"{statistics.median(row['seconds'] for row in rows):.0f}",
        )
    for row in without_learning(args):
        results.append(row)
        table.add_row(row["strategy"], f"{row['mean']:.1f} ± {row['error']:.1f}")
    console.print(table)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    if args.csv:
        with args.csv.open("w", newline="") as file:
            rows_out = csv.writer(file)
            rows_out.writerow(["strategy", "seed", "episodes", "mean_return", "compliance"])
            rows_out.writerows((*key, *point) for key, curve in curves.items() for point in curve)
    if args.png:
        save_png(args.png, curves, window=10)


if __name__ == "__main__":
    main()

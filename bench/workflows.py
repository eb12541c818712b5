"""What a search over workflows comes to, next to plain PPO and to simpler ways of choosing, on equal budgets.

    python -m bench.workflows --csv curves.csv --png curves.png         # 20,000 episodes, three seeds, some minutes

Each strategy trains with the same observations, actions and budget. Of a search, the best order is then the one that
the search itself ranks first. Its policy, as plain PPO's, plays 1,000 fresh episodes with sampled actions: their mean
return is what counts, with their compliance. Policies without learning give the scale: random actions, and the greedy
heuristic, which sees the true state and restores a host of the first compromised type.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load_file

from aiotrain import Config, Trainer
from aiotrain.actor_critic import ActorCritic
from aiotrain.cage2.baselines import greedy_actions
from aiotrain.cage2.rollout import Rollout
from aiotrain.cage2.scenario import HOST_TYPES, NUM_ACTIONS
from aiotrain.cage2.vector_env import Cage2VectorEnv
from aiotrain.cage2.workflows import NAMED_ORDERS, Order, parse_order
from aiotrain.config import SearchConfig
from aiotrain.policy import PolicyShape

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
        config = Config(
            red_agent=args.red_agent,
            workers=args.workers,
            total_episodes=args.episodes,
            seed=seed,
            run_dir=str(run_dir),
            workflow="none" if settings is None else "search",
            workflow_search=SearchConfig(**(settings or {})),
        )
        began = time.monotonic()
        trainer, curve = asyncio.run(train(config))
        result: dict[str, Any] = {"strategy": strategy, "seed": seed, "seconds": time.monotonic() - began}
        weights, order = run_dir / "weights.safetensors", None
        if settings is not None and (found := trainer.status().workflow) is not None:
            if not found.best:
                raise SystemExit(f"{strategy}: no training of an order ended; --episodes {args.episodes} are too few")
            order = parse_order(found.best[0].workflow)
            result |= {"order": found.best[0].workflow, "trainings": found.trainings, "complied": found.complied}
            if settings.get("inherit") == "nearest":
                weights = run_dir / f"weights-{'-'.join(order)}.safetensors"
        result |= play(weights, trainer.policy_shape, order, args)
    return result, curve


def play(path: Path, shape: PolicyShape, order: Order | None, args: argparse.Namespace) -> dict[str, float]:
    """Mean return, its standard error, and mean compliance of fresh episodes with the weights in a file."""
    network = ActorCritic(shape, torch.Generator())
    network.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in load_file(path).items()})
    rollout = Rollout(shape.layers, red_agent=args.red_agent)
    rollout.refresh(network.flat_parameters())
    count = args.played
    arrays = SimpleNamespace(
        observations=np.zeros((count, STEPS + 1, shape.inputs), np.int8),
        actions=np.zeros((count, STEPS), np.int16),
        log_probs=np.zeros((count, STEPS), np.float32),
        rewards=np.zeros((count, STEPS), np.float32),
    )
    generator = np.random.default_rng(1)
    kinds = [HOST_TYPES.index(kind) for kind in order or HOST_TYPES]
    records = rollout.play(
        generator.integers(0, 2**63, count).astype(np.uint64),
        generator.random((count, STEPS), np.float32),
        np.tile(np.array(kinds, np.uint8), (count, 1)),
        np.arange(count),
        arrays,
    )
    fixed = records[records["fixes"] > 0]
    result = mean_and_error(records["return_tenths"] / 10)
    if order and len(fixed):
        result["compliance"] = float((fixed["compliant_fixes"] / fixed["fixes"]).mean())
    return result


def mean_and_error(returns: npt.NDArray[Any]) -> dict[str, float]:
    return {"mean": float(returns.mean()), "error": float(returns.std() / np.sqrt(len(returns)))}


def without_learning(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Mean returns of random actions, and of the greedy heuristic by two orders."""
    generator = np.random.default_rng(1)
    rows = []
    orders: dict[str, Order | None] = {"random actions": None}
    orders |= {f"greedy, true state, {name}": NAMED_ORDERS[name] for name in ("critical_first", "reverse")}
    for name, order in orders.items():
        env = Cage2VectorEnv(args.played, red_agent=args.red_agent, max_steps=STEPS)
        greedy = None if order is None else greedy_actions(order)
        _, info = env.reset(seed=1)
        returns = np.zeros(args.played)
        for _ in range(STEPS):
            actions = generator.integers(0, NUM_ACTIONS, args.played) if greedy is None else greedy[info["red_hosts"]]
            _, rewards, _, _, info = env.step(actions)
            returns += rewards
        rows.append({"strategy": name} | mean_and_error(returns))
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", choices=STRATEGIES, nargs="+", default=list(STRATEGIES), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=20_000, help="budget of a training (default %(default)s)")
    parser.add_argument("--played", type=int, default=1_000, help="episodes played at the end (default %(default)s)")
    parser.add_argument("--red-agent", default="B_lineAgent")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="all curves")
    parser.add_argument("--png", type=Path, metavar="FILE", help="a picture of them; needs matplotlib")
    args = parser.parse_args()

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
    table = Table(title=f"CAGE 2, {args.red_agent}, {args.episodes:,} episodes, {len(args.seeds)} seeds")
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

"""Trains defenders for the unknown red agent, and evaluates them by CAGE Challenge 2's official protocol.

    python -m bench.champion                                     # both rules, three seeds each: over an hour
    python -m bench.champion --rules main --seeds 0 --total-episodes 60000

Every other flag is one of aiotrain's own; what they are by default is `CHAMPION`. Each run's checkpoints are evaluated
after it, so that this takes nothing from the training: greedily, 1,000 episodes in each cell, and the last one with
10,000. Prints when the total first passed the leaderboard's winner, and what it came to. Leaves the runs, totals.json
and totals.png in the folder ``--out``.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import tyro
import uvloop
from rich.console import Console
from rich.table import Table

from aiotrain import PPOConfig, train
from aiotrain.cage2.challenge import LEADERBOARD
from aiotrain.cli import Arguments
from aiotrain.evaluation import evaluate_cage2

CHAMPION = Arguments(
    red_agent="mixed",
    workflow="none",
    observation="memory",
    actions="compact",
    workers=2,
    total_episodes=300_000,
    episodes_per_update=512,
    max_policy_lag=0,
    checkpoint_every=10,
    keep_checkpoints=100_000,
    ppo=PPOConfig(
        learning_rate=2e-3,
        final_learning_rate=3e-5,
        gamma=1.0,
        gae_lambda=0.97,
        horizons=(30, 50, 100),
        clip_range=0.2,
        entropy_coef=0.01,
        final_entropy_coef=0.0003,
        epochs=2,
        minibatch_size=2048,
        hidden_sizes=(128, 128),
    ),
)
"""One flat network for all three red agents and all lengths; the settings and their ablations are in docs/design.md."""

WINNER = LEADERBOARD[0]


def points(run: Path, episodes: int) -> list[dict[str, float]]:
    """The total of each checkpoint of ``run``, with the episodes and seconds of training until then."""
    with (run / "updates.csv").open(newline="") as file:
        rows = {int(row["update"]): row for row in csv.DictReader(file)}
    found = []
    for path in sorted((run / "checkpoints").glob("update-*.safetensors")):
        row = rows[int(path.stem.removeprefix("update-"))]
        total, half_width = evaluate_cage2(path, episodes=episodes, greedy=True).total
        found.append(
            {
                "episodes": float(row["episodes"]),
                "seconds": float(row["elapsed_s"]),
                "total": total,
                "half_width_95": half_width,
            }
        )
    return found


def train_and_evaluate(config: Arguments, episodes: int, last_episodes: int, cyborg_episodes: int) -> dict[str, Any]:
    """A run with ``config``, its curve, and the evaluations of its last checkpoint."""
    assert config.run_dir is not None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(train(config.config()))
    run = Path(config.run_dir)
    curve = points(run, episodes)
    result: dict[str, Any] = {"rules": config.rules, "seed": config.seed, "curve": curve}
    result["last"] = evaluate_cage2(run, episodes=last_episodes, greedy=True).summary()
    if cyborg_episodes and config.rules == "main":
        evaluated = evaluate_cage2(run, episodes=cyborg_episodes, greedy=True, simulator="cyborg")
        result["cyborg"] = evaluated.summary()
    passed = [point["seconds"] for point in curve if point["total"] > WINNER.total]
    result["passed_s"] = min(passed, default=None)
    return result


def table_of(results: list[dict[str, Any]]) -> Table:
    table = Table(title=f"Totals by the official protocol (the leaderboard's winner: {WINNER.total})")
    for column in ("rules", "seed", "episodes", "seconds", "winner passed after, s", "total", "on csle-cyborg"):
        table.add_column(column, justify="right")
    for each in results:
        last = each["curve"][-1]
        totals = [
            f"{it['total']:.2f} ± {it['total_half_width_95']:.2f}" if it else ""
            for it in (each["last"], each.get("cyborg"))
        ]
        passed = "never" if each["passed_s"] is None else f"{each['passed_s']:.0f}"
        table.add_row(
            each["rules"],
            str(each["seed"]),
            f"{last['episodes']:,.0f}",
            f"{last['seconds']:.0f}",
            passed,
            *totals,
        )
    return table


def save_png(path: Path, results: list[dict[str, Any]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    rules = list(dict.fromkeys(each["rules"] for each in results))
    for each in results:
        label = f"rules {each['rules']}" if each["seed"] == results[0]["seed"] else None
        seconds, totals = ([point[name] for point in each["curve"]] for name in ("seconds", "total"))
        axes.plot(seconds, totals, f"C{rules.index(each['rules'])}", lw=1.2, alpha=0.8, label=label)
    axes.axhline(WINNER.total, color="grey", ls="--", lw=0.8, label=f"winner of the leaderboard, {WINNER.total}")
    axes.set(xlabel="seconds of training", ylabel="official total", ylim=(-80, -40), xscale="log")
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--rules", nargs="+", choices=("main", "leaderboard"), default=["main", "leaderboard"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=1_000, help="a cell, for points of the curve")
    parser.add_argument("--last-episodes", type=int, default=10_000, help="a cell, for the finished run")
    parser.add_argument("--cyborg-episodes", type=int, default=200, help="a cell, on csle-cyborg; 0: none")
    parser.add_argument("--out", type=Path, default=Path("runs/champion"), metavar="FOLDER")
    arguments, others = parser.parse_known_args()
    config = tyro.cli(Arguments, args=others, config=(tyro.conf.OmitArgPrefixes,), default=CHAMPION)
    if old := list(arguments.out.glob("*-*/config.json")):
        parser.error(f"{old[0].parent} is an earlier run; move {arguments.out} away, or choose another --out")
    results: list[dict[str, Any]] = []
    console = Console(width=140)
    for rules in arguments.rules:
        for seed in arguments.seeds:
            run = dataclasses.replace(config, rules=rules, seed=seed, run_dir=str(arguments.out / f"{rules}-{seed}"))
            counts = arguments.episodes, arguments.last_episodes, arguments.cyborg_episodes
            results.append(train_and_evaluate(run, *counts))
            console.print(table_of(results))
            (arguments.out / "totals.json").write_text(json.dumps(results, indent=1))
            save_png(arguments.out / "totals.png", results)


if __name__ == "__main__":
    main()

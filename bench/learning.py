"""Return curves over several seeds: what a change to the algorithm or to the data path must show.

    python -m bench.learning --env CartPole-v1 --steps-per-update 2048 --total-steps 200000 --threshold 475 --window 100
    python -m bench.learning --lags 0 1 --total-episodes 5000 --threshold -60 --window 200

Every other flag is one of aiotrain's own. Prints, for each lag and seed, when the mean return of the last ``--window``
training episodes first passed ``--threshold``, and what it was at the end; ``--csv`` and ``--png`` keep the curves.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import dataclasses
import time
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from aiotrain import Config, Trainer
from aiotrain.app.main import Arguments


@dataclasses.dataclass
class Curve:
    """One run: after each update, steps and episodes so far and the mean return of the last episodes."""

    lag: int
    seed: int
    points: list[tuple[int, int, float]]
    seconds: float

    def first_passed(self, threshold: float) -> tuple[int, int] | None:
        """(episodes, steps) after which the mean return was at least ``threshold``."""
        return next(((episodes, steps) for episodes, steps, mean in self.points if mean >= threshold), None)


async def run(config: Config, window: int) -> Curve:
    """Train and record the curve; a point counts once there are ``window`` episodes."""
    returns: list[float] = []
    points = []
    began = time.monotonic()
    async with Trainer(config) as trainer:
        async for update in trainer:
            returns += update.returns
            if len(returns) >= window:
                recent = returns[-window:]
                points.append((int(update.episodes), int(update.steps), sum(recent) / window))
    return Curve(config.max_policy_lag, config.seed, points, time.monotonic() - began)


def save_csv(path: Path, curves: list[Curve]) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["lag", "seed", "episodes", "steps", "mean_return"])
        rows.writerows([c.lag, c.seed, *point[:2], f"{point[2]:.4f}"] for c in curves for point in c.points)


def save_png(path: Path, curves: list[Curve], title: str, threshold: float | None) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    lags = sorted({curve.lag for curve in curves})
    for curve in curves:
        colour = f"C{lags.index(curve.lag)}"
        label = f"policy lag at most {curve.lag}" if curve.seed == curves[0].seed else None
        axes.plot([p[0] for p in curve.points], [p[2] for p in curve.points], colour, alpha=0.8, lw=1.2, label=label)
    if threshold is not None:
        axes.axhline(threshold, color="grey", ls="--", lw=0.8)
    axes.set(xlabel="episodes", ylabel="mean return", title=title)
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--lags", type=int, nargs="+", default=[1], help="values of --max-policy-lag")
    parser.add_argument("--window", type=int, default=200, help="episodes in a mean (default %(default)s)")
    parser.add_argument("--threshold", type=float, help="mean return to reach")
    parser.add_argument("--csv", type=Path, metavar="FILE")
    parser.add_argument("--png", type=Path, metavar="FILE", help="needs matplotlib")
    arguments, others = parser.parse_known_args()
    config = tyro.cli(Arguments, args=others, config=(tyro.conf.OmitArgPrefixes,), default=Arguments(workflow="none"))

    table = Table(title=f"{config.env}, mean return of {arguments.window} training episodes")
    for column in ("lag", "seed", "passed after episodes", "steps", "at the end", "seconds"):
        table.add_column(column, justify="right")
    curves = []
    for seed in arguments.seeds:
        for lag in arguments.lags:
            curve = asyncio.run(run(dataclasses.replace(config, seed=seed, max_policy_lag=lag), arguments.window))
            curves.append(curve)
            passed = curve.first_passed(arguments.threshold) if arguments.threshold is not None else None
            episodes, steps = (f"{number:,}" for number in passed) if passed else ("-", "-")
            end = f"{curve.points[-1][2]:.1f}" if curve.points else "-"
            table.add_row(str(lag), str(seed), episodes, steps, end, f"{curve.seconds:.0f}")
    Console(width=140).print(table)
    if arguments.csv:
        save_csv(arguments.csv, curves)
    if arguments.png:
        save_png(arguments.png, curves, str(config.env), arguments.threshold)


if __name__ == "__main__":
    main()

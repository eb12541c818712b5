"""Return curves over several seeds: what a change to the algorithm or to the data path must show.

    python -m bench.learning --env CartPole-v1 --steps-per-update 2048 --total-steps 200000 --threshold 475 --window 100
    python -m bench.learning --lags 0 1 --total-episodes 5000 --threshold -60 --window 200

Reported for each lag and seed: the episodes and steps until the mean return of the last ``--window`` training episodes
first passed ``--threshold``, and that mean at the end; ``--csv`` and ``--png`` keep the curves. Every other flag is one
of aiotrain's own.
"""

from __future__ import annotations

import csv
import dataclasses
import time
from pathlib import Path

from aiotrain import Config, Trainer
from bench.tools.figures import Figures
from bench.tools.progress import say
from bench.tools.report import Report
from bench.tools.runs import config_of
from bench.tools.script import Script
from bench.tools.training import run

TAKES = "10 minutes"
SMALLEST = "--seeds 0 --window 5 --env CartPole-v1 --workers 1 --steps-per-update 200 --total-steps 600 --threshold 10"


@dataclasses.dataclass
class Curve:
    """One run: after each update, steps and episodes so far and the mean return of the last episodes."""

    lag: int
    seed: int
    points: list[tuple[int, int, float]]
    """Episodes, steps, mean return."""
    seconds: float

    def first_passed(self, threshold: float) -> tuple[int, int] | None:
        """Return the (episodes, steps) after which the mean return was at least ``threshold``."""
        return next(((episodes, steps) for episodes, steps, mean in self.points if mean >= threshold), None)


async def train(config: Config, window: int) -> Curve:
    """Train and record the curve; a point counts once there are ``window`` episodes."""
    returns: list[float] = []
    points = []
    began = time.monotonic()
    async with Trainer(config) as trainer:
        async for update in trainer:
            returns += update.returns
            if len(returns) >= window:
                points.append((update.episodes, update.steps, sum(returns[-window:]) / window))
    return Curve(config.policy_lag, config.seed, points, time.monotonic() - began)


def note(curve: Curve, threshold: float | None, figures: Figures) -> None:
    """Note what is reported of a curve."""
    subject = f"lag {curve.lag}, seed {curve.seed}"
    if threshold is not None:
        if (passed := curve.first_passed(threshold)) is None:
            figures.remarks[subject] = f"never passed {threshold:g}"
        else:
            figures.note(subject, "passed after", passed[0], "episodes")
            figures.note(subject, "passed after, steps", passed[1])
    if curve.points:
        figures.note(subject, "return at the end", curve.points[-1][2])
    figures.note(subject, "duration", curve.seconds, "s")


def save_csv(path: Path, curves: list[Curve]) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["lag", "seed", "episodes", "steps", "mean_return"])
        rows.writerows([c.lag, c.seed, *point[:2], f"{point[2]:.4f}"] for c in curves for point in c.points)


def save_png(path: Path, curves: list[Curve], title: str, threshold: float | None) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
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
    script = Script.of(__file__)
    parser = script.parser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--lags", type=int, nargs="+", default=[1], help="values of --max-policy-lag")
    parser.add_argument("--window", type=int, default=200, help="episodes in a mean (default %(default)s)")
    parser.add_argument("--threshold", type=float, help="mean return to reach")
    parser.add_argument("--csv", type=Path, metavar="FILE")
    parser.add_argument("--png", type=Path, metavar="FILE", help="needs matplotlib")
    arguments, flags = script.parse_known(parser)
    report = Report(script, arguments)
    config = config_of(flags, cage2=("--workflow", "none"))
    figures = Figures()
    curves = []
    for seed in arguments.seeds:
        for lag in arguments.lags:
            say(f"training with lag {lag}, seed {seed}")
            curve = run(train(dataclasses.replace(config, seed=seed, max_policy_lag=lag), arguments.window))
            curves.append(curve)
            note(curve, arguments.threshold, figures)
    title = " ".join(["aiotrain", *flags])
    if arguments.csv:
        save_csv(arguments.csv, curves)
    if arguments.png:
        save_png(arguments.png, curves, title, arguments.threshold)
    report.finish(
        figures,
        f"{title}: mean return of {arguments.window} training episodes",
        {"curves": [dataclasses.asdict(curve) for curve in curves]},
    )


if __name__ == "__main__":
    main()

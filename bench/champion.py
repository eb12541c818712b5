"""Defenders for the unknown red agent, trained, and evaluated by CAGE Challenge 2's official protocol.

    python -m bench.champion                                     # both rules, three seeds each: an hour
    python -m bench.champion --rules main --seeds 0 --total-episodes 60000

Each run is one of ``aiotrain`` with the flags `CHAMPION`, and with those given here, which come later and so win. Its
checkpoints are evaluated after it, so that this takes nothing from the training: greedily, 1,000 episodes in each cell,
and the last one with 10,000. Prints when the total first passed the leaderboard's winner, and what it came to. Leaves
the runs, totals.json and totals.png in the folder ``--out``. The same command again goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import multiprocessing
import shlex
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.progress import track

from aiotrain.app import main as program
from aiotrain.app.signals import SignalsInterrupt
from aiotrain.cage2 import evaluate_official
from aiotrain.cage2.official.protocol import LEADERBOARD
from bench.tools.figures import Figures
from bench.tools.progress import say
from bench.tools.report import Report
from bench.tools.script import Script

TAKES = "an hour"
SMALLEST = (
    "--rules main --seeds 0 --plain --learner-threads 1 --episodes-per-update 32 --total-episodes 64 "
    "--checkpoint-every 1 --episodes 4 --last-episodes 4 --cyborg-episodes 0 --out runs/champion-smallest"
)

CHAMPION = shlex.split("""
    --red-agent mixed --workflow none --observation memory --actions compact --horizons 30 50 100
    --workers 2 --learner-threads 2 --max-policy-lag 0 --total-episodes 300000 --episodes-per-update 512
    --minibatch-size 2048 --epochs 2 --learning-rate 2e-3 --final-learning-rate 3e-5 --gamma 1 --gae-lambda 0.97
    --clip-range 0.2 --entropy-coef 0.03 --final-entropy-coef 0.0003 --hidden-sizes 128 128
    --checkpoint-every 10 --keep-checkpoints 100000
""")
"""One flat network for all three red agents and all lengths; the settings and their ablations are in docs/design.md."""

WINNER = LEADERBOARD[0]


def total_of(checkpoint: Path, episodes: int) -> tuple[float, float]:
    """The official total, and the half width of its 95% confidence interval."""
    return evaluate_official(checkpoint, episodes=episodes, greedy=True).total


def points(run: Path, episodes: int) -> list[dict[str, float]]:
    """The total of each checkpoint of ``run``, with the episodes and seconds of training until then."""
    with (run / "updates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    paths = [run / "checkpoints" / f"update-{int(row['update']):06d}.safetensors" for row in rows]
    saved = [(path, row) for path, row in zip(paths, rows, strict=True) if path.exists()]
    with ProcessPoolExecutor(
        mp_context=multiprocessing.get_context("forkserver"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),  # Ctrl-C is for this process
    ) as pool:
        totals = pool.map(total_of, [path for path, _ in saved], [episodes] * len(saved))
        evaluations = list(track(totals, f"evaluating {run.name}", total=len(saved)))
    return [
        {
            "episodes": float(row["episodes"]),
            "seconds": float(row["elapsed_s"]),
            "total": total,
            "half_width_95": half_width,
        }
        for (_, row), (total, half_width) in zip(saved, evaluations, strict=True)
    ]


def evaluated(run: Path, rules: str, seed: int, counts: argparse.Namespace) -> dict[str, Any]:
    """The curve of the finished ``run``, and the evaluations of its last checkpoint."""
    curve = points(run, counts.episodes)
    passed = [point["seconds"] for point in curve if point["total"] > WINNER.total]
    result = {"rules": rules, "seed": seed, "curve": curve, "passed_s": min(passed, default=None)}
    result["last"] = evaluate_official(run, episodes=counts.last_episodes, greedy=True).summary()
    if counts.cyborg_episodes and rules == "main":
        on_cyborg = evaluate_official(run, episodes=counts.cyborg_episodes, greedy=True, simulator="cyborg")
        result["cyborg"] = on_cyborg.summary()
    return result


def figures_of(results: list[dict[str, Any]]) -> Figures:
    """Return what is reported of all runs."""
    figures = Figures()
    for each in results:
        subject, last = f"rules {each['rules']}, seed {each['seed']}", each["curve"][-1]
        figures.note(subject, "trained", last["episodes"], "episodes")
        figures.note(subject, "in", last["seconds"], "s")
        if each["passed_s"] is None:
            figures.remarks[subject] = "never passed the winner"
        else:
            figures.note(subject, "winner passed after", each["passed_s"], "s")
        for name, evaluation in (("total", each["last"]), ("total on csle-cyborg", each.get("cyborg"))):
            if evaluation is not None:
                figures.note(subject, name, evaluation["total"])
                figures.note(subject, f"{name}, 95% ±", evaluation["total_half_width_95"])
    return figures


def save_png(path: Path, results: list[dict[str, Any]]) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    rules = list(dict.fromkeys(each["rules"] for each in results))
    for each in results:
        first = next(other for other in results if other["rules"] == each["rules"])
        label = f"rules {each['rules']}" if each is first else None
        seconds, totals = ([point[name] for point in each["curve"]] for name in ("seconds", "total"))
        axes.plot(seconds, totals, f"C{rules.index(each['rules'])}", lw=1.2, alpha=0.8, label=label)
    axes.axhline(WINNER.total, color="grey", ls="--", lw=0.8, label=f"winner of the leaderboard, {WINNER.total}")
    axes.set(xlabel="seconds of training", ylabel="official total", xscale="log")
    axes.set_ylim(bottom=min(each["curve"][-1]["total"] for each in results) - 30, top=-40)
    axes.legend()
    figure.savefig(path, dpi=120)


def count(text: str) -> int:
    """A number of episodes that has a standard error."""
    if (number := int(text)) < 2:
        raise argparse.ArgumentTypeError(f"must be at least 2, not {number}: one alone has no standard error")
    return number


def count_or_none(text: str) -> int:
    return 0 if text == "0" else count(text)


def main() -> int:
    script = Script.of(__file__)
    parser = script.parser()
    parser.epilog = "all other flags: see aiotrain --help"
    parser.add_argument("--rules", nargs="+", choices=("main", "leaderboard"), default=["main", "leaderboard"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="a run by each (default 0 1 2)")
    parser.add_argument("--episodes", type=count, default=1_000, help="a cell, for points of the curve")
    parser.add_argument("--last-episodes", type=count, default=10_000, help="a cell, for the finished run")
    parser.add_argument(
        "--cyborg-episodes", type=count_or_none, default=200, help="a cell, on csle-cyborg by the rules main; 0: none"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/champion"), metavar="FOLDER")
    arguments, flags = script.parse_known(parser)
    for flag in ("--seed", "--run-dir", "--resume"):
        if any(given.split("=")[0].replace("_", "-") == flag for given in flags):
            parser.error(f"{flag} is of a single run; here, --seeds and --out say what is trained where")
    report = Report(script, arguments)
    signals = SignalsInterrupt()
    try:
        with signals:
            return train_and_evaluate(arguments, flags, report)
    except KeyboardInterrupt:
        return 128 + signals.last


def train_and_evaluate(arguments: argparse.Namespace, flags: list[str], report: Report) -> int:
    """Train all runs that ``arguments`` name, with the trainer's ``flags``; the exit code of the first that fails."""
    totals = arguments.out / "totals.json"
    earlier = json.loads(totals.read_text()) if totals.exists() else []
    results = {(each["rules"], each["seed"]): each for each in earlier}
    shown: list[dict[str, Any]] = []
    for rules, seed in itertools.product(dict.fromkeys(arguments.rules), dict.fromkeys(arguments.seeds)):
        run = arguments.out / f"{rules}-{seed}"
        say(f"training {run}")
        begun = any((run / "checkpoints").glob("update-*.safetensors"))
        here = ["--rules", rules, "--seed", str(seed), "--run-dir", str(run)]
        if begun:
            here += ["--resume", str(run)]
        if code := program.main([*CHAMPION, *flags, *here]):
            return code
        results[rules, seed] = evaluated(run, rules, seed, arguments)
        shown = [results[each] for each in sorted(results, key=lambda each: (each[0] != "main", each[1]))]
        totals.write_text(json.dumps(shown, indent=1))
        save_png(arguments.out / "totals.png", shown)
        say(f"{run}: {results[rules, seed]['last']['total']:.2f}")
    title = f"Totals by the official protocol (the leaderboard's winner: {WINNER.total})"
    report.finish(figures_of(shown), title, shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The working tree beside another commit, in turns: training, start and memory; slower, faster or within noise.

    python -m bench.against 636b87b
    python -m bench.against HEAD~3 --jobs search startup --repeats 5

Both trees are copied into temporary folders, and each runs its own ``aiotrain`` with the same flags; the flags are all
that the two must have in common. In each repeat both do each job, and now the one and now the other comes first.

- search: the search over workflows on the compiled engine, two workers
- cyborg: plain PPO on csle-cyborg, two workers
- cartpole: CartPole-v1, 16 environments in each of two workers
- startup: the default job with 100 workers in a terminal; also how soon it ends at Ctrl-C
- first start: the same with an empty cache of compiled code

The ratio of a figure is the median over the repeats of this tree's ÷ the commit's; its spread goes from the lowest to
the highest. A figure is slower (or faster) if all of its spread lies on one side of 1, and the ratio is more than 3%
from 1; with fewer than five repeats, which may all agree by chance, more than a third; with fewer than three, nothing
is said. The exit code is 1 if a figure is slower. CPU seconds tell more than rates where other programs are busy.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from bench.tools.checkouts import commit_of, extract, extract_working_tree
from bench.tools.figures import Figure, Figures, number
from bench.tools.program import start_up, train
from bench.tools.progress import say
from bench.tools.report import Report
from bench.tools.script import Script

TAKES = "10 minutes"
SMALLEST = "HEAD --repeats 1 --jobs cartpole --share 0.05 --no-warm-up"

STARTUP_WORKERS = 100
WARM_UP_SHARE = 0.1
NO_REPEATS = 3
FEW_REPEATS = 5
LEAST_CHANGE = 0.03
LEAST_CHANGE_OF_FEW = 1 / 3

UNITS = {
    "episodes_per_s": "episodes/s",
    "steps_per_s": "steps/s",
    "cpu_s": "CPU s",
    "first_episode_s": "s to the first episode",
    "first_episode_cpu_s": "CPU s until then",
    "pss_mib": "MiB",
    "end_s": "s to end",
}
"""The figures that are compared. Of rates, more is better; of the others, less."""


class Job(NamedTuple):
    """What both trees do."""

    figures: Sequence[str]
    """What is compared, names of `UNITS`."""
    do: Callable[[Path, float], dict[str, float]]
    """Do a share of the job with the program of a checkout."""


def training(rate: str, flags: str, budget: str, total: int) -> Job:
    """A training of ``total`` episodes or steps, which ``budget`` names."""

    def do(checkout: Path, share: float) -> dict[str, float]:
        return train([*flags.split(), budget, str(round(share * total))], checkout)

    return Job([rate, "cpu_s"], do)


def startup(checkout: Path, _: float) -> dict[str, float]:
    return start_up(["--total-episodes", "10000000"], STARTUP_WORKERS, checkout)


def first_start(checkout: Path, _: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="bench-") as empty:
        return start_up(["--total-episodes", "10000000"], STARTUP_WORKERS, checkout, Path(empty))


JOBS = {
    "search": training("episodes_per_s", "--workers 2 --epochs 4", "--total-episodes", 10_000),
    "cyborg": training("episodes_per_s", "--workers 2 --simulator cyborg --workflow none", "--total-episodes", 1_000),
    "cartpole": training(
        "steps_per_s",
        "--env CartPole-v1 --workers 2 --envs-per-worker 16 --steps-per-update 8192",
        "--total-steps",
        500_000,
    ),
    "startup": Job(["first_episode_s", "first_episode_cpu_s", "pss_mib", "end_s"], startup),
    "first start": Job(["first_episode_s", "first_episode_cpu_s"], first_start),
}


def warm_up(trees: dict[str, Path], jobs: Sequence[str], share: float) -> None:
    """Have both trees do a part of each job, so that what is compiled once is compiled."""
    for name, tree in trees.items():
        for job in jobs:
            if job != "first start":
                say(f"warming up {name}: {job}")
                JOBS[job].do(tree, min(share, WARM_UP_SHARE))


def compare(trees: dict[str, Path], jobs: Sequence[str], repeats: int, share: float, commit: str) -> Figures:
    """Have both trees do all jobs in turns; the figures of the working tree, whose ceiling is the commit's."""
    figures = Figures()
    for repeat in range(repeats):
        for job in jobs:
            order = list(trees) if repeat % 2 else list(reversed(trees))
            done = {name: JOBS[job].do(trees[name], share) for name in order}
            told = []
            for key in JOBS[job].figures:
                here, there = done["this"][key], done["other"][key]
                figures.note(job, key, here, UNITS[key], ceiling=(commit, there))
                told.append(f"{number(here)} against {number(there)} {UNITS[key]}")
            say(f"repeat {repeat + 1} of {repeats}, {job}: {', '.join(told)}")
    return figures


def ratios_of(figure: Figure) -> list[float]:
    """Return this tree's ÷ the commit's, in each repeat."""
    return [value / other for value, other in zip(figure.repeats, figure.ceilings, strict=True)]


def verdict(figure: Figure) -> str:
    """Tell whether the working tree is slower, faster or within noise, by the ratio in each repeat."""
    ratios = ratios_of(figure)
    if len(ratios) < NO_REPEATS:
        return "too few repeats"
    least = LEAST_CHANGE if len(ratios) >= FEW_REPEATS else LEAST_CHANGE_OF_FEW
    if min(ratios) <= 1 <= max(ratios) or abs(statistics.median(ratios) - 1) <= least:
        return "within noise"
    return "faster" if (ratios[0] > 1) == figure.name.endswith("_per_s") else "slower"


def row_of(figure: Figure) -> dict[str, Any]:
    """Return the row of the JSON report. Pairs of repeats tell a ratio however far the commit's lie apart."""
    ratios = ratios_of(figure)
    ratio = {"ratio": statistics.median(ratios), "lowest_ratio": min(ratios), "highest_ratio": max(ratios)}
    return figure.row() | ratio | {"verdict": verdict(figure)}


def table_of(figures: Figures, commit: str) -> Table:
    table = Table(title=f"The working tree against {commit}, medians")
    for column in ("job", "figure", commit, "this tree", "ratio", "spread", "verdict"):
        table.add_column(column, justify="left" if column in ("job", "figure", "verdict") else "right")
    for figure in figures:
        ratios = ratios_of(figure)
        table.add_row(
            figure.subject,
            figure.unit,
            number(statistics.median(figure.ceilings)),
            number(figure.value),
            f"{statistics.median(ratios):.3f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
            verdict(figure),
        )
    return table


def main() -> int:
    script = Script.of(__file__)
    parser = script.parser()
    parser.add_argument("commit", help="a hash, a branch, HEAD~3, …")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--share", type=float, default=1.0, help="of the budgets of the trainings (default 1)")
    parser.add_argument("--no-warm-up", action="store_true", help="count what is compiled in the first repeat")
    arguments = script.parse(parser)
    report = Report(script, arguments)
    commit = commit_of(arguments.commit)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        trees = {"this": extract_working_tree(Path(folder, "this")), "other": extract(commit, Path(folder, "other"))}
        if not arguments.no_warm_up:
            warm_up(trees, arguments.jobs, arguments.share)
        figures = compare(trees, arguments.jobs, arguments.repeats, arguments.share, commit)
    report.print(table_of(figures, commit))
    report.write([row_of(figure) for figure in figures], {})
    if slower := [f"{figure.subject} ({figure.unit})" for figure in figures if verdict(figure) == "slower"]:
        print(f"slower than {commit}: {', '.join(slower)}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

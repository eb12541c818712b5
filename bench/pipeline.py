"""Whole training runs on the compiled engine, beside the cost of their parts one after the other.

    python -m bench.pipeline                        # workflow search, 77-64-64-145, 4 epochs, 20,000 episodes
    python -m bench.pipeline --workflow critical_first
    python -m bench.pipeline --episodes 100000 --repeats 1

In each repeat, one process plays and learns in turn, without rings, loops or other processes, and takes the CPU time of
each part; then ``aiotrain`` does the same training with two workers. With one core for each part, the run could at best
be as fast as its slowest part; a single core without any overhead would take the sum of both. Every other flag is one
of aiotrain's own.
"""

from __future__ import annotations

from bench.tools.figures import Figures
from bench.tools.one_process import parts
from bench.tools.program import train
from bench.tools.progress import say
from bench.tools.report import Report
from bench.tools.runs import config_of
from bench.tools.script import Script

TAKES = "4 minutes"
SMALLEST = "--episodes 150 --repeats 1"

WORKERS = 2
EPISODES_OF_PARTS = 20_000
"""At most so many are played to measure the parts, which stay as costly."""


def measure(episodes: int, flags: list[str], repeats: int) -> Figures:
    figures = Figures()
    config = config_of(flags)
    for repeat in range(repeats):
        alone = parts(config, min(episodes, EPISODES_OF_PARTS))
        say(f"repeat {repeat + 1} of {repeats}: play {alone['play_ms']:.3f}, learn {alone['learn_ms']:.3f} ms/episode")
        whole = train(["--workers", str(WORKERS), "--total-episodes", str(episodes), *flags])
        say(f"the whole run: {whole['episodes_per_s']:,.0f} episodes/s")
        figures.note("aiotrain", "play", alone["play_ms"], "CPU ms/episode")
        figures.note("aiotrain", "learn", alone["learn_ms"], "CPU ms/episode")
        for what, cost_ms in (
            ("sum of the parts", alone["play_ms"] + alone["learn_ms"]),
            ("slowest part", max(alone["play_ms"], alone["learn_ms"])),
        ):
            figures.note("aiotrain", "speed", whole["episodes_per_s"], "episodes/s", ceiling=(what, 1e3 / cost_ms))
        figures.note("aiotrain", "whole program", whole["wall_s"], "s")
        figures.note("aiotrain", "all processes", 1e3 * whole["cpu_s"] / episodes, "CPU ms/episode")
    return figures


def main() -> None:
    script = Script.of(__file__)
    parser = script.parser()
    parser.add_argument("--episodes", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--workflow", default="search", help="search, or one order, or its name")
    parser.add_argument("--repeats", type=int, default=5)
    arguments, others = script.parse_known(parser)
    report = Report(script, arguments)
    flags = ["--workflow", arguments.workflow, "--epochs", str(arguments.epochs), *others]
    figures = measure(arguments.episodes, flags, arguments.repeats)
    setting = f"workflow {arguments.workflow}, {arguments.epochs} epochs, {arguments.episodes:,} episodes"
    report.finish(figures, f"77-64-64-145, {setting}, {WORKERS} workers")


if __name__ == "__main__":
    main()

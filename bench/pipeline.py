"""Whole training runs on the compiled engine, next to what their parts cost one after the other.

    python -m bench.pipeline                        # workflow search, 77-64-64-145, 4 epochs, 20,000 episodes
    python -m bench.pipeline --workflow critical_first
    python -m bench.pipeline --episodes 100000 --repeats 1

In each repeat, one process plays and learns in turn, without rings, loops or other processes, and takes the CPU time of
each part; then ``run.py`` does the same training with two workers. With one core for each, the run could at best be as
fast as its slowest part; a single core without any overhead would take the sum of both.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from aiotrain.config import Config, PPOConfig
from bench.tools.one_process import parts

ROOT = Path(__file__).resolve().parent.parent


def whole(episodes: int, epochs: int, workflow: str) -> dict[str, float]:
    """Episodes/s of ``run.py``, once it is under way, and seconds of the whole program."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        command = [sys.executable, str(ROOT / "run.py"), "--workflow", workflow, "--plain"]
        command += ["--workers", "2", "--epochs", str(epochs), "--total-episodes", str(episodes)]
        began = time.perf_counter()
        subprocess.run([*command, "--run-dir", str(run_dir)], check=True, stdout=subprocess.DEVNULL)
        wall_s = time.perf_counter() - began
        rows = list(csv.DictReader((run_dir / "updates.csv").read_text().splitlines()))
    elapsed, learned = (np.array([float(row[name]) for row in rows]) for name in ("elapsed_s", "episodes"))
    return {"episodes_per_s": float(learned[-1] - learned[0]) / float(elapsed[-1] - elapsed[0]), "wall_s": wall_s}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--workflow", default="search", help="as of run.py: search, or one order, or its name")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    config = Config(workflow=arguments.workflow, ppo=PPOConfig(epochs=arguments.epochs))
    results = []
    for _ in range(arguments.repeats):
        row = parts(config, min(arguments.episodes, 20_000))
        row |= whole(arguments.episodes, arguments.epochs, arguments.workflow)
        row["of_sum"] = row["episodes_per_s"] * (row["play_ms"] + row["learn_ms"]) / 1e3
        row["of_slowest"] = row["episodes_per_s"] * max(row["play_ms"], row["learn_ms"]) / 1e3
        results.append(row)
    setting = f"workflow {arguments.workflow}, {arguments.epochs} epochs, {arguments.episodes:,} episodes"
    table = Table(title=f"77-64-64-145, {setting}, 2 workers, medians")
    for column in ("play, CPU ms/episode", "learn, CPU ms/episode", "run.py, episodes/s", "run.py, s in all"):
        table.add_column(column, justify="right")
    for column in ("÷ sum of the parts", "÷ slowest part"):
        table.add_column(column, justify="right")
    median = {name: statistics.median(row[name] for row in results) for name in results[0]}
    table.add_row(
        f"{median['play_ms']:.3f}",
        f"{median['learn_ms']:.3f}",
        f"{median['episodes_per_s']:,.0f}",
        f"{median['wall_s']:.1f}",
        f"{median['of_sum']:.2f}",
        f"{median['of_slowest']:.2f}",
    )
    Console(width=140).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

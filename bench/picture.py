"""The console's picture for the README, from a real run: the main job, 100 workers, shortly before the end.

python -m bench.picture --episodes 20000 --workers 100 --out docs/console.svg
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from aiotrain import Config, Trainer
from aiotrain.app.console import save_svg
from aiotrain.cage2.screen.search_panel import SearchPanel
from aiotrain.training.status import Status
from bench.tools.figures import Figures
from bench.tools.progress import say
from bench.tools.report import Report
from bench.tools.runs import config_of
from bench.tools.script import Script
from bench.tools.training import run

TAKES = "40 seconds"
SMALLEST = "--episodes 150 --workers 1 --out runs/console.svg"

SHARE = 0.9
"""Part of the budget after which the picture is taken."""


async def late_status(config: Config) -> Status:
    async with Trainer(config) as trainer:
        async for update in trainer:
            say(f"{update.episodes:>6.0f} episodes, return {update.mean_return:.1f}")
            if update.episodes >= SHARE * config.total_episodes:
                return trainer.status()
    raise SystemExit("the run ended before its picture was taken: more --episodes are needed")


def main() -> None:
    script = Script.of(__file__)
    parser = script.parser()
    parser.add_argument("--episodes", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("docs/console.svg"))
    arguments = script.parse(parser)
    report = Report(script, arguments)
    flags = ["--total-episodes", str(arguments.episodes), "--workers", str(arguments.workers)]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        status = run(late_status(config_of([*flags, "--run-dir", f"{folder}/defender"])))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_svg(status, arguments.out, SearchPanel(), width=120, height=46)
    figures = Figures()
    figures.note(str(arguments.out), "size", arguments.out.stat().st_size / 1024, "KiB")
    report.finish(figures, "The console's picture")


if __name__ == "__main__":
    main()

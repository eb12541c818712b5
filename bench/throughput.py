"""How much of what the cores could play is played, and learned from.

    python -m bench.throughput                                     # CAGE 2 on csle-cyborg, driven leanly
    python -m bench.throughput --env CartPole-v1 --envs-per-worker 16
    python -m bench.throughput --env bench.tools.envs:stock_cage2 --workers 2 --seconds 8

The ceiling is what bare processes, one per core, play of the same environment with the same NumPy policy and as many
environments in a batch, without any communication. In each repeat the ceiling, collection alone with each number of
workers, and whole training runs are measured one after the other; every ratio is to the ceiling of its own repeat. All
players run at the workers' scheduling priority. Every other flag is one of aiotrain's own.
"""

from __future__ import annotations

import asyncio
import dataclasses

from aiotrain.config import Config
from bench.tools.ceiling import Ceiling
from bench.tools.collection import Collection
from bench.tools.figures import Figures
from bench.tools.progress import say
from bench.tools.report import Report
from bench.tools.runs import ENDLESS, config_of
from bench.tools.script import Script
from bench.tools.training import run, train_for

TAKES = "4 minutes"
SMALLEST = "--workers 1 --repeats 1 --seconds 0.2 --env CartPole-v1 --steps-per-update 100"


async def measure(config: Config, workers: list[int], repeats: int, seconds: float) -> Figures:
    """Measure all in turns. Training uses the first number of workers."""
    figures = Figures()
    collections = {count: Collection(dataclasses.replace(config, workers=count)) for count in workers}
    with Ceiling.of(config) as ceiling:
        try:
            for count, collection in collections.items():
                say(f"starting {count} workers")
                await collection.open()
            for repeat in range(repeats):
                top = ("ceiling", ceiling.measure(seconds))
                say(f"repeat {repeat + 1} of {repeats}: ceiling {top[1]:,.0f} steps/s")
                figures.note("ceiling", "speed", top[1], "steps/s")
                for count, collection in collections.items():
                    found = await collection.measure(seconds + 0.03 * count)
                    subject = f"collected, {count} workers"
                    say(f"{subject}: {found['steps_per_s'] / top[1]:.3f} of it")
                    figures.note(subject, "speed", found["steps_per_s"], "steps/s", ceiling=top)
                    figures.note(subject, "main process", found["main_cpu_ms_per_episode"], "CPU ms/episode")
                found = await train_for(dataclasses.replace(config, workers=workers[0]), seconds)
                subject = f"trained, {workers[0]} workers"
                say(f"{subject}: {found['steps_per_s'] / top[1]:.3f} of it")
                figures.note(subject, "speed", found["steps_per_s"], "steps/s", ceiling=top)
                figures.note(subject, "learning", found["learning"], "share of time")
        finally:
            await asyncio.gather(*(collection.close() for collection in collections.values()))
    return figures


def main() -> None:
    script = Script.of(__file__)
    parser = script.parser()
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 10, 100], help="training uses the first number")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    arguments, flags = script.parse_known(parser)
    report = Report(script, arguments)
    config = config_of([*ENDLESS, *flags], cage2=("--simulator", "cyborg", "--workflow", "none"))
    if config.env_factory().compiled_player is not None:
        parser.error("whole episodes of the compiled simulator have no such ceiling; see bench.pipeline")
    figures = run(measure(config, arguments.workers, arguments.repeats, arguments.seconds))
    report.finish(figures, f"{config.env_factory().name}, {config.envs_per_worker} environments per worker")


if __name__ == "__main__":
    main()

"""The console's picture for the README, from a real run: the main job, 100 workers, shortly before the end.

    python -m bench.picture [--episodes 20000] [--workers 100] [--out docs/console.svg]

Takes some 40 seconds on two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from aiotrain.app.console import save_svg
from aiotrain.config import Config
from aiotrain.training.status import Status
from aiotrain.training.trainer import Trainer

_SHARE = 0.9
"""Part of the budget after which the picture is taken."""


async def late_status(episodes: int, workers: int) -> Status:
    with tempfile.TemporaryDirectory() as folder:
        config = Config(total_episodes=episodes, workers=workers, run_dir=str(Path(folder) / "defender"))
        async with Trainer(config) as trainer:
            async for update in trainer:
                print(f"{update.episodes:>6.0f} episodes, return {update.mean_return:.1f}")
                if update.episodes >= _SHARE * episodes:
                    return trainer.status()
    raise SystemExit("the run ended before its picture was taken: more --episodes are needed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--episodes", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("docs/console.svg"))
    args = parser.parse_args()
    status = asyncio.run(late_status(args.episodes, args.workers))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_svg(status, args.out, width=120, height=46)
    print(f"{args.out}: {args.out.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()

"""aiotrain: its Trainer, with the environments of CAGE 2 played one by one as any other."""

from __future__ import annotations

import dataclasses

from aiotrain import Trainer
from bench import trainers
from bench.tools.runs import ENDLESS, config_of
from bench.tools.training import run


async def train() -> None:
    arguments = trainers.parse()
    config = dataclasses.replace(
        config_of([*ENDLESS, "--env", arguments.env], cage2=("--simulator", "cyborg", "--workflow", "none")),
        workers=arguments.workers,
        envs_per_worker=arguments.envs_per_worker,
        steps_per_update=arguments.steps_per_update,
        device="cpu",
        ppo=trainers.PPO,
    )
    async with Trainer(config) as trainer:
        async for update in trainer:
            trainers.report(update.steps)


if __name__ == "__main__":
    run(train())

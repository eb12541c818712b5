"""aiotrain: its Trainer, with the environments of CAGE 2 played one by one as any other."""

from __future__ import annotations

import asyncio
import dataclasses

import uvloop

from aiotrain import Trainer
from bench import trainers


async def train() -> None:
    arguments = trainers.parse()
    config = dataclasses.replace(
        trainers.config_for(arguments.env),
        workers=arguments.workers,
        envs_per_worker=arguments.envs_per_worker,
        steps_per_update=arguments.steps_per_update,
    )
    async with Trainer(config) as trainer:
        async for update in trainer:
            trainers.report(update.steps)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(train())

"""Small trainings of a toy environment, and a gate that has the learner wait inside an update."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Self

import pytest
import uvloop

from aiotrain import Config, PPOConfig, Result, Trainer, Update
from aiotrain.learn.ppo import Learner
from envs import Toy

SMALL = PPOConfig(hidden_sizes=(8,), epochs=2, minibatch_size=64)
WITHIN_S = 60
RUNNERS = {"asyncio": asyncio.run, "uvloop": uvloop.run}


def config(env: Any = Toy, **changes: Any) -> Config:
    settings: dict[str, Any] = {
        "workers": 2,
        "total_episodes": 30,
        "episodes_per_update": 10,
        "ppo": SMALL,
        "device": "cpu",
    }
    return Config(env=env, **(settings | changes))


def run(work: Coroutine[Any, Any, Any], loop: str = "asyncio") -> Any:
    return RUNNERS[loop](asyncio.wait_for(work, WITHIN_S))


async def updates_of(settings: Config) -> tuple[list[Update], Result]:
    async with Trainer(settings) as trainer:
        found = [update async for update in trainer]
        return found, trainer.result()


class UpdateGate:
    """While it is entered, every learner waits inside its update until the test sets ``go``. Needs a running loop."""

    def __init__(self) -> None:
        self.entered, self.go = asyncio.Event(), threading.Event()
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> Self:
        loop, update = asyncio.get_running_loop(), Learner.update

        def gated(*given: Any) -> Any:
            loop.call_soon_threadsafe(self.entered.set)
            assert self.go.wait(WITHIN_S), "the test never opened the gate"
            return update(*given)

        self._patch.setattr(Learner, "update", gated)
        return self

    def __exit__(self, *_: object) -> None:
        self.go.set()
        self._patch.undo()

"""Whole trainings in this process, for a number of seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

from aiotrain import Config, Trainer
from aiotrain.collect.protocol import WorkerState
from bench.tools.processes import Cores

__all__ = ["run", "train_for"]

_WARM_UP_S = 1.0

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in the event loop that the program uses."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def train_for(config: Config, seconds: float) -> dict[str, float]:
    """Train for so many seconds after all workers are there and a warm-up is over.

    Returns:
        ``start_up_s`` until the first episode is finished; ``steps_per_s`` and ``episodes_per_s`` that are learned;
        ``learning``, the learner's share of the time; ``cores``, the cores that other programs left free.
    """
    began = time.perf_counter()
    points: list[tuple[float, float, float]] = []  # seconds, steps and episodes
    learning_s = 0.0
    cores: Cores | None = None
    async with Trainer(config) as trainer:
        while not trainer.status().episodes_finished:
            await asyncio.sleep(0.01)
        start_up_s = time.perf_counter() - began
        warm_s = None
        async for update in trainer:
            now = time.perf_counter()
            if warm_s is None:
                if all(worker.state is not WorkerState.STARTING for worker in trainer.status().workers):
                    warm_s = now + min(_WARM_UP_S, seconds)
            elif now >= warm_s:
                if cores is None:
                    cores = Cores()
                else:
                    learning_s += update.learn_s
                points.append((now, update.steps, update.episodes))
                if len(points) > 1 and now - points[0][0] > seconds:
                    break
        if cores is None or len(points) < 2:
            raise SystemExit("the run ended before it was measured")
        left = cores.left()
    (first_s, first_steps, first_episodes), *_, (last_s, last_steps, last_episodes) = points
    elapsed = last_s - first_s
    return {
        "start_up_s": start_up_s,
        "steps_per_s": (last_steps - first_steps) / elapsed,
        "episodes_per_s": (last_episodes - first_episodes) / elapsed,
        "learning": learning_s / elapsed,
        "cores": left,
    }

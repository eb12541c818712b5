"""How each collector ends, at any time, and what it says of itself until then."""

from __future__ import annotations

import asyncio
import functools
import os
from pathlib import Path

import pytest
from contract import every, player, training

from aiotrain.collect.protocol import WorkerState
from aiotrain.training.trainer import Trainer
from collector_harness import WITHIN_S
from envs import Toy, Waiting

pytestmark = pytest.mark.usefixtures("one_ray")


@every
@pytest.mark.parametrize("moment", ["unstarted", "starting", "started", "opened", "playing", "aborted"])
@pytest.mark.asyncio
async def test_closing_at_any_time_leaves_nothing(collector: str, moment: str, tmp_path: Path) -> None:
    """What is left, the fixture finds."""
    gate = tmp_path / "gate"
    if collector == "sequential":  # which would wait for it
        gate.touch()
    one = player(functools.partial(Waiting, str(gate)), collector, workers=2)
    if moment == "starting":
        starting = asyncio.create_task(one.collector.start())
        await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait([starting])
    elif moment != "unstarted":
        await one.collector.start()
    if moment in ("opened", "playing", "aborted"):
        await one.open()
    if moment in ("playing", "aborted"):
        playing = asyncio.create_task(one.play(200))
        await one.until(lambda: list(tmp_path.iterdir()), "a worker plays")
        playing.cancel()
        await asyncio.wait([playing])
    if moment == "aborted":
        one.collector.abort()
    gate.touch()
    async with asyncio.timeout(WITHIN_S):
        await one.collector.close()
        await one.collector.close()
    status = one.collector.describe()
    assert {each.state for each in status.workers} == {WorkerState.ENDED}


@every
@pytest.mark.asyncio
async def test_cancelled_training_leaves_nothing(collector: str) -> None:
    trainer = Trainer(training(Toy, collector, total_episodes=10**6))
    updates = 0

    async def train() -> None:
        nonlocal updates
        async with trainer:
            async for _ in trainer:
                updates += 1

    training_on = asyncio.create_task(train())
    async with asyncio.timeout(WITHIN_S):
        while not updates:
            await asyncio.sleep(0.005)
        training_on.cancel()
        await asyncio.wait([training_on])
    assert training_on.cancelled()
    assert trainer.status().phase == "interrupted"


@every
@pytest.mark.asyncio
async def test_environments_are_closed(collector: str, tmp_path: Path) -> None:
    class Closing(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.name = f"{os.getpid()}-{id(self)}"
            (tmp_path / f"made-{self.name}").touch()

        def close(self) -> None:
            (tmp_path / f"closed-{self.name}").touch()

    async with player(Closing, collector, workers=2, envs=2) as one:
        await one.open()
        await one.play(6)
        up = (WorkerState.WAITING, WorkerState.PLAYING)
        await one.until(lambda: all(each.state in up for each in one.collector.describe().workers), "all are there")
    made, closed = (
        sorted(path.name.split("-", 1)[1] for path in tmp_path.glob(f"{what}-*")) for what in ("made", "closed")
    )
    assert len(made) > 1
    assert closed == made


@every
@pytest.mark.asyncio
async def test_a_collector_tells_what_it_looks_like(collector: str) -> None:
    workers = 1 if collector == "sequential" else 3
    async with player(Toy, collector, workers=3) as one:
        before = one.collector.describe()
        assert [each.state for each in before.workers] == [WorkerState.STARTING] * workers
        await one.open()
        await one.play(9)
        status = one.collector.describe()
        assert len(status.workers) == workers
        assert sum(each.episodes for each in status.workers) == 9
        assert {each.state for each in status.workers} <= {WorkerState.WAITING, WorkerState.STARTING}
        assert status.slots_in_use == 0
        assert status.busy_s > 0
    after = one.collector.describe()
    assert [each.state for each in after.workers] == [WorkerState.ENDED] * workers
    assert [each.episodes for each in after.workers] == [each.episodes for each in status.workers]

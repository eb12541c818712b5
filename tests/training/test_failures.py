"""What ends a run, and who is told."""

from __future__ import annotations

import asyncio
import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from small_runs import WITHIN_S, UpdateGate, config, run

from aiotrain import (
    DivergenceError,
    EnvError,
    InvalidStepError,
    Result,
    SharedMemoryError,
    Trainer,
    train,
)
from aiotrain.collect.shared_memory_collector import SharedMemoryCollector
from aiotrain.collect.task_collector import TaskCollector
from aiotrain.testing import faulty
from aiotrain.transport import segments as shm
from collector_harness import worker_processes
from envs import Toy


def test_environment_that_cannot_be_made_fails_on_entering() -> None:
    with pytest.raises(EnvError, match="a fault that was injected"):
        run(train(config(faulty(Toy, "raise", at="make"))))


def test_too_little_shared_memory_fails_on_entering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shm, "free_bytes", lambda: 1000)
    with pytest.raises(SharedMemoryError, match="--shm-size"):
        run(train(config()))


def test_gathering_that_fails_unseen_is_told_by_the_status_and_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    """The user is not in the loop when the error comes."""

    async def look() -> None:
        env = faulty(Toy, "nan")
        async with Trainer(config(env)) as trainer:
            while trainer.status().first_error is None:
                await asyncio.sleep(0.005)
            assert "a reward of nan" in (trainer.status().first_error or "")
            assert trainer.status().phase == "stopping", "its processes still run"
        assert trainer.status().phase == "failed"

    run(look())
    gc.collect()
    assert caplog.messages == [], "asyncio complains of an exception that nobody asked for"


@pytest.mark.parametrize("collector", ["shared_memory", "sequential", "process_per_episode"])
@pytest.mark.parametrize("where", ["_accept", "submit"])
def test_a_fault_of_the_collector_itself_ends_the_run(
    where: str, collector: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In callbacks, whose exceptions asyncio would only log."""

    def broken(*args: Any) -> None:
        raise RuntimeError("a fault of the collector")

    monkeypatch.setattr(SharedMemoryCollector if collector == "shared_memory" else TaskCollector, where, broken)
    settings = config(collector=collector, max_episode_steps=20)
    with pytest.raises(RuntimeError, match="a fault of the collector"):
        run(train(settings))
    gc.collect()
    assert caplog.messages == []


def test_policy_that_is_no_longer_finite_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from aiotrain.learn.ppo import Learner

    async def diverge() -> tuple[Trainer, Result]:
        async with Trainer(config(max_policy_lag=0)) as trainer:
            await anext(trainer)
            monkeypatch.setattr(Learner, "parameters", lambda _: np.full(3, np.nan, np.float32))
            with pytest.raises(DivergenceError, match="no longer finite after update 2"):
                await anext(trainer)
            return trainer, trainer.result()

    _, result = run(diverge())
    assert np.isfinite(result.weights).all(), "those that were published last"


def test_error_that_is_seen_twice_is_one_event(tmp_path: Path) -> None:
    """As it ends the gathering, and as it comes out of the loop."""
    env = faulty(Toy, "nan")
    with pytest.raises(InvalidStepError):
        run(train(config(env, run_dir=str(tmp_path / "run"))))
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [each["type"] for each in events if each["event"] == "error"] == ["InvalidStepError"]
    assert events[-1]["phase"] == "failed"


def test_killed_worker_costs_no_more_than_it_played() -> None:
    """While the learner learns at lag 0, workers have nothing to do: nobody waits for the one that dies then."""

    async def killed() -> Result:
        with UpdateGate() as gate:
            async with Trainer(config(max_policy_lag=0)) as trainer:
                waiting = asyncio.ensure_future(anext(trainer))
                await gate.entered.wait()
                victims = worker_processes()
                for victim in victims:
                    victim.kill()
                await asyncio.to_thread(psutil.wait_procs, victims, WITHIN_S)
                gate.go.set()
                await waiting
                async for _ in trainer:
                    pass
                return trainer.result()

    result: Result = run(killed())
    assert (result.episodes, result.lost) == (30, 0)

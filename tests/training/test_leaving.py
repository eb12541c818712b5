"""A trainer is left early, or cancelled at any moment: what was learned counts, and nothing is left behind."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_runs import RUNNERS, UpdateGate, config, run

from aiotrain import (
    Result,
    Trainer,
    TrainerStateError,
    train,
)
from aiotrain.collect.protocol import WorkerState
from envs import Waiting


def test_leaving_the_loop_early() -> None:
    async def leave() -> tuple[Result, str]:
        async with Trainer(config(total_episodes=10**6)) as trainer:
            async for _ in trainer:
                break
        return trainer.result(), trainer.status().phase

    result, phase = run(leave())
    assert (result.updates, phase) == (1, "stopped")


def test_entering_without_iterating() -> None:
    async def enter() -> str:
        async with Trainer(config()) as trainer:
            pass
        return trainer.status().phase

    assert run(enter()) in ("stopped", "finished")


@pytest.mark.parametrize("loop", list(RUNNERS))
def test_cancelling_while_waiting_for_a_batch(loop: str, tmp_path: Path) -> None:
    env = functools.partial(Waiting, str(tmp_path / "gate"))

    async def cancelled() -> str:
        async with Trainer(config(env)) as trainer:
            waiting = asyncio.ensure_future(anext(trainer))
            while not list(tmp_path.iterdir()):
                await asyncio.sleep(0.005)
            waiting.cancel()
            (tmp_path / "gate").touch()
            await waiting
        return trainer.status().phase

    with pytest.raises(asyncio.CancelledError):
        run(cancelled(), loop)


@pytest.mark.parametrize("loop", list(RUNNERS))
def test_cancelling_while_learning_lets_the_update_finish(loop: str) -> None:
    async def cancelled() -> tuple[Result, str]:
        trainer = Trainer(config(max_policy_lag=0))

        async def iterate() -> None:
            async with trainer:
                async for _ in trainer:
                    pass

        with UpdateGate() as gate:
            iterating = asyncio.create_task(iterate())
            await gate.entered.wait()
            iterating.cancel()
            gate.go.set()
            with pytest.raises(asyncio.CancelledError):
                await iterating
        return trainer.result(), trainer.status().phase

    result, phase = run(cancelled(), loop)
    assert phase == "interrupted"
    assert (result.updates, result.episodes) == (1, 10), "the weights have learned from a batch that does not count"


def test_iterating_goes_on_after_a_timeout_in_an_update() -> None:
    """Each update is had once, whether or not somebody lost patience with it."""

    async def impatient() -> list[float]:
        with UpdateGate() as gate:
            async with Trainer(config(max_policy_lag=0)) as trainer:
                waiting = asyncio.ensure_future(anext(trainer))
                await gate.entered.wait()
                waiting.cancel()
                await asyncio.wait([waiting])
                gate.go.set()
                return [update.update async for update in trainer]

    assert run(impatient()) == [1, 2, 3]


def test_one_task_at_a_time_iterates() -> None:
    async def both() -> list[float]:
        with UpdateGate() as gate:
            async with Trainer(config(max_policy_lag=0)) as trainer:
                first = asyncio.ensure_future(anext(trainer))
                await asyncio.sleep(0)
                with pytest.raises(TrainerStateError, match="another task"):
                    await anext(trainer)
                await gate.entered.wait()
                with pytest.raises(TrainerStateError, match="another task"):
                    await anext(trainer)
                gate.go.set()
                return [(await first).update, *[update.update async for update in trainer]]

    assert run(both()) == [1, 2, 3]


@pytest.mark.parametrize("times", range(12))
def test_cancelling_anywhere_is_a_clean_stop(times: int) -> None:
    """Cancelled after so many turns of the event loop; what is left behind, the fixture finds."""

    async def cancelled() -> None:
        training = asyncio.create_task(train(config()))
        for _ in range(4**times if times < 6 else 200 * times):
            await asyncio.sleep(0)
            if training.done():
                return
        training.cancel()
        with pytest.raises(asyncio.CancelledError):
            await training

    run(cancelled())


class _CancelledAt(Coroutine[Any, Any, Any]):
    """Runs ``inner`` and has the task that runs it cancelled while it waits in its ``step``-th await, from 1."""

    def __init__(self, inner: Coroutine[Any, Any, Any], steps: Sequence[int]) -> None:
        self._inner, self._steps, self.step = inner, steps, 0

    def send(self, value: Any) -> Any:
        return self._waits(self._inner.send(value))

    def throw(self, *given: Any) -> Any:
        return self._waits(self._inner.throw(*given))

    def __await__(self) -> Any:
        return self

    def _waits(self, awaited: Any) -> Any:
        self.step += 1
        if self.step in self._steps:
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_soon(task.cancel)
        return awaited


def left_by_a_run(before: set[Any]) -> list[Any]:
    """Processes, threads and segments that were not there before."""
    segments = Path("/dev/shm").glob(f"aiotrain-{os.getpid()}-*")
    children = [each for each in psutil.Process().children(recursive=True) if each.status() != psutil.STATUS_ZOMBIE]
    threads = [each for each in threading.enumerate() if not each.name.startswith("asyncio_")]  # of the loop itself
    return [each for each in (*segments, *children, *threads) if each not in before]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("times", [1, 2], ids=["once", "again while it closes"])
def test_cancelling_in_any_await_ends_in_the_same_state(times: int, tmp_path: Path) -> None:
    """The first, the second, …, until the run is through before it is cancelled."""

    async def cancelled_at(step: int) -> bool:
        folder = tmp_path / f"{step}"
        trainer = Trainer(config(workers=1, total_episodes=8, episodes_per_update=2, run_dir=str(folder)))

        async def work() -> None:
            async with trainer:
                async for _ in trainer:
                    pass

        before = set(left_by_a_run(set()))
        counting = _CancelledAt(work(), range(step, step + times))
        task = asyncio.get_running_loop().create_task(counting)
        await asyncio.wait([task])
        assert left_by_a_run(before) == [], f"left by cancelling in await {step}"
        assert {each.state for each in trainer.status().workers} == {WorkerState.ENDED}
        assert (folder / "weights.safetensors").exists() == folder.exists(), "what was begun is saved"
        if task.cancelled():
            assert trainer.status().phase in ("interrupted", "finished")  # as it was finished and closed
            return True
        assert task.exception() is None
        assert counting.step < step
        return False

    async def all_of_them() -> int:
        step = 1
        while await cancelled_at(step):
            step += 1
        return step

    assert asyncio.run(all_of_them()) > 8, "so few awaits cannot be a run of four updates"

"""The trainer as its users see it."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import functools
import gc
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import uvloop

from aiotrain import (
    Config,
    ConfigError,
    DivergenceError,
    EnvError,
    InvalidStepError,
    PPOConfig,
    Result,
    SharedMemoryError,
    Trainer,
    TrainerStateError,
    Update,
    train,
)
from aiotrain.collect.protocol import WorkerState
from aiotrain.collect.shared_memory import SharedMemoryCollector
from aiotrain.collect.task_collector import TaskCollector
from aiotrain.runs.journals import METRICS
from aiotrain.testing import faulty
from aiotrain.transport import segments as shm
from envs import Endless, Toy, Waiting

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


# ----------------------------------------------------------------------- running


@pytest.mark.parametrize("loop", list(RUNNERS))
def test_iterating_gives_an_update_for_each_batch(loop: str) -> None:
    updates, result = run(updates_of(config()), loop)
    assert [update.update for update in updates] == [1, 2, 3]
    assert [update.episodes for update in updates] == [10, 20, 30]
    assert all(set(update.values) == {metric.name for metric in METRICS} for update in updates)
    for update in updates:  # without a workflow there is no compliance
        assert [name for name, value in update.values.items() if not math.isfinite(value)] == ["compliance"]
    assert all(np.mean(update.returns) == pytest.approx(update.mean_return) for update in updates)
    assert (result.episodes, result.updates, result.lost) == (30, 3, 0)
    assert result.steps == updates[-1].steps == sum(update.batch_steps for update in updates)
    assert result.mean_return == updates[-1].mean_return


def test_train_returns_the_result() -> None:
    result = run(train(config()))
    assert isinstance(result, Result)
    assert result.episodes == 30
    assert np.isfinite(result.weights).all()


@pytest.mark.parametrize("observation", ["box", "bits", "one_hot"])
@pytest.mark.parametrize("action", ["shifted", "gaussian"])
def test_every_kind_of_space_trains(observation: str, action: str) -> None:
    env = functools.partial(Toy, observation=observation, action=action)
    assert run(train(config(env, workers=1, total_episodes=20))).updates == 2


def test_endless_environment_trains_in_steps() -> None:
    updates, result = run(
        updates_of(config(Endless, slot_steps=16, steps_per_update=100, total_steps=300, total_episodes=10**6))
    )
    assert all(update.batch_steps >= 100 for update in updates)
    assert result.steps >= 300
    assert result.episodes == 0
    assert all(math.isnan(update.mean_return) for update in updates)


@pytest.mark.parametrize(
    ("changes", "warns"), [({}, True), ({"max_episode_steps": 20}, False), ({"steps_per_update": 100}, False)], ids=str
)
def test_missing_time_limit_is_told_where_batches_wait_for_episodes(changes: dict[str, Any], warns: bool) -> None:
    async def warnings() -> tuple[str, ...]:
        async with Trainer(config(**changes)) as trainer:
            return trainer.status().warnings

    assert ["--steps-per-update" in warning for warning in run(warnings())] == [True] * warns


def test_budget_in_steps_counts_batches_in_steps_where_there_is_no_time_limit() -> None:
    with pytest.raises(ConfigError, match="total-steps needs steps-per-update"):
        run(train(config(total_steps=100)))


@pytest.mark.parametrize("limit", [None, 51])
def test_horizons_that_episodes_may_outlive_are_refused(limit: int | None) -> None:
    ppo = dataclasses.replace(SMALL, horizons=(30, 50))
    with pytest.raises(ConfigError, match=r"nothing counts beyond step 50, .* choose max-episode-steps 50"):
        run(train(config(max_episode_steps=limit, ppo=ppo)))
    assert run(train(config(max_episode_steps=50, ppo=ppo))).episodes == 30


def test_all_that_a_missing_time_limit_rules_out_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"(?s)2 settings cannot work.*needs steps-per-update.*nothing counts beyond"):
        run(train(config(total_steps=100, ppo=dataclasses.replace(SMALL, horizons=(30, 50)))))


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_policy_lag_is_bounded(lag: int) -> None:
    updates, _ = run(updates_of(config(total_episodes=60, max_policy_lag=lag)))
    assert max(update.max_policy_lag for update in updates) <= lag


def test_at_lag_0_weights_do_not_depend_on_workers_or_loop() -> None:
    weights = {
        (workers, envs, loop): run(
            train(config(workers=workers, envs_per_worker=envs, max_policy_lag=0)), loop
        ).weights.tobytes()
        for workers, envs, loop in [(1, 1, "asyncio"), (3, 1, "asyncio"), (3, 1, "uvloop"), (2, 3, "uvloop")]
    }
    assert len(set(weights.values())) == 1, f"{len(set(weights.values()))} different results among {list(weights)}"


def test_seed_matters() -> None:
    first, second = (run(train(config(workers=1, seed=seed))).weights for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_two_trainers_in_one_process() -> None:
    async def both() -> list[Result]:
        settings = config(max_policy_lag=0, workers=1)
        return await asyncio.gather(train(settings), train(settings))

    first, second = run(both())
    np.testing.assert_array_equal(first.weights, second.weights)


def test_accounting_is_exact_where_episodes_are_lost(tmp_path: Path) -> None:
    env = faulty(Toy, "os._exit", episodes=[3, 14, 15], marks=tmp_path)

    async def played() -> tuple[Result, Any]:
        async with Trainer(config(env)) as trainer:
            async for _ in trainer:
                pass
            return trainer.result(), trainer.status()

    result, status = run(played())
    assert (result.episodes, result.lost) == (30, 3)
    assert (status.episodes_finished, status.episodes_learned, status.episodes_lost) == (30, 30, 3)
    assert (status.episodes_played, status.episodes_waiting, status.episodes_given_up) == (33, 0, 0)
    assert status.adds_up
    assert (status.episodes_in_flight, status.slots_in_use) == (0, 0)
    assert status.steps_finished == result.steps
    assert sum(worker.episodes for worker in status.workers) == 30
    assert len(status.warnings) >= 1


def test_main_process_and_its_owner_are_left_alone(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    signals = range(1, signal.NSIG)

    def handlers() -> list[Any]:
        return [signal.getsignal(number) for number in signals]

    before, niceness, folder = handlers(), os.nice(0), os.getcwd()
    during = []

    async def look() -> None:
        async with Trainer(config()) as trainer:
            async for _ in trainer:
                during.append(handlers())

    # asyncio.run has a handler of its own for SIGINT, which Runner.run of a loop does without
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(look())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
    assert all(each == before for each in during)
    assert handlers() == before
    assert (os.nice(0), os.getcwd()) == (niceness, folder)
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


SCRIPT = """
import asyncio, sys
sys.path.insert(0, {tests!r})
import torch
from aiotrain import Config, PPOConfig, train
from gymnasium import Wrapper
import gymnasium
class Mine(Wrapper):  # lives in __main__
    pass
settings = Config(env=lambda: Mine(gymnasium.make("CartPole-v1")), workers=2, total_episodes=20, episodes_per_update=10)
print(asyncio.run(train(settings)).episodes)
"""


def test_script_without_a_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parents[1])))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "20\n", "")


# ----------------------------------------------------------------------- leaving


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


class _Gate:
    """Lets the learner's thread wait inside an update until the test says go."""

    def __init__(self, trainer: Trainer, loop: asyncio.AbstractEventLoop) -> None:
        self.entered, self.go = asyncio.Event(), threading.Event()
        update = trainer._learner.update

        def gated(*given: Any) -> Any:
            loop.call_soon_threadsafe(self.entered.set)
            assert self.go.wait(WITHIN_S)
            return update(*given)

        trainer._learner.update = gated  # type: ignore[method-assign]


@pytest.mark.parametrize("loop", list(RUNNERS))
def test_cancelling_while_learning_lets_the_update_finish(loop: str) -> None:
    async def cancelled() -> tuple[Result, str]:
        trainer = Trainer(config(max_policy_lag=0))

        async def iterate() -> None:
            async with trainer:
                gates.append(_Gate(trainer, asyncio.get_running_loop()))
                opened.set()
                async for _ in trainer:
                    pass

        gates: list[_Gate] = []
        opened = asyncio.Event()
        iterating = asyncio.create_task(iterate())
        await opened.wait()
        await gates[0].entered.wait()
        iterating.cancel()
        gates[0].go.set()
        with pytest.raises(asyncio.CancelledError):
            await iterating
        return trainer.result(), trainer.status().phase

    result, phase = run(cancelled(), loop)
    assert phase == "interrupted"
    assert (result.updates, result.episodes) == (1, 10), "the weights have learned from a batch that does not count"


def test_iterating_goes_on_after_a_timeout_in_an_update() -> None:
    """Each update is had once, whether or not somebody lost patience with it."""

    async def impatient() -> list[float]:
        async with Trainer(config(max_policy_lag=0)) as trainer:
            gate = _Gate(trainer, asyncio.get_running_loop())
            waiting = asyncio.ensure_future(anext(trainer))
            await gate.entered.wait()
            waiting.cancel()
            await asyncio.wait([waiting])
            gate.go.set()
            return [update.update async for update in trainer]

    assert run(impatient()) == [1, 2, 3]


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


# ------------------------------------------------------------------------ errors


def test_environment_that_cannot_be_made_fails_on_entering() -> None:
    with pytest.raises(EnvError, match="a fault that was injected"):
        run(train(config(faulty(Toy, "raise", at="make"))))


def test_too_little_shared_memory_fails_on_entering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shm, "free_bytes", lambda: 1000)
    with pytest.raises(SharedMemoryError, match="--shm-size"):
        run(train(config()))


def test_trainer_is_used_once_and_while_it_is_open() -> None:
    async def misuse() -> None:
        trainer = Trainer(config())
        with pytest.raises(TrainerStateError, match="not opened"):
            await anext(trainer)
        with pytest.raises(TrainerStateError, match="no result yet"):
            trainer.result()
        async with trainer:
            with pytest.raises(TrainerStateError, match="is open"):
                await trainer.__aenter__()
        with pytest.raises(TrainerStateError, match="closed"):
            await trainer.__aenter__()
        with pytest.raises(TrainerStateError, match="closed"):
            await anext(trainer)

    run(misuse())


def test_one_task_at_a_time_iterates() -> None:
    async def both() -> list[float]:
        async with Trainer(config(max_policy_lag=0)) as trainer:
            gate = _Gate(trainer, asyncio.get_running_loop())
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


def test_configuration_is_checked_where_the_trainer_is_made() -> None:
    with pytest.raises(ConfigError, match="CartPole-v1"):
        Trainer(config("CartPole-v2x"))


def test_updates_and_results_can_be_copied_and_pickled() -> None:
    update = Update({"update": 1, "mean_return": 2.5}, (2.0, 3.0))
    for each in (copy.copy(update), copy.deepcopy(update), pickle.loads(pickle.dumps(update))):
        assert each == update
        assert each.mean_return == 2.5
    with pytest.raises(AttributeError, match="no metric 'nothing'; it has update, mean_return"):
        update.nothing  # noqa: B018


def test_killed_worker_costs_no_more_than_it_played(tmp_path: Path) -> None:
    """While the learner learns at lag 0, workers have nothing to do: nobody waits for the one that dies then."""

    async def killed() -> Result:
        async with Trainer(config(max_policy_lag=0)) as trainer:
            gate = _Gate(trainer, asyncio.get_running_loop())
            waiting = asyncio.ensure_future(anext(trainer))
            await gate.entered.wait()
            workers = trainer._collector._workers  # type: ignore[attr-defined]
            for worker in workers:
                if worker.executor is not None and worker.ready:
                    worker.executor.kill()
                    while worker.executor.context.alive:
                        await asyncio.sleep(0.005)
            gate.go.set()
            await waiting
            async for _ in trainer:
                pass
            return trainer.result()

    result: Result = run(killed())
    assert (result.episodes, result.lost) == (30, 0)


def test_status_can_be_had_at_any_time() -> None:
    async def look() -> list[str]:
        trainer = Trainer(config())
        phases = [trainer.status().phase]
        async with trainer:
            phases.append(trainer.status().phase)
            async for _ in trainer:
                status = trainer.status()
                assert 0 <= status.learn_share <= 1
                assert all(each.episodes >= 0 for each in status.workers)
                dataclasses.asdict(status)
        return [*phases, trainer.status().phase]

    assert run(look()) == ["starting", "training", "finished"]


def test_no_process_is_there_before_the_trainer_is_opened() -> None:
    before = psutil.Process().children(recursive=True)
    Trainer(config())
    assert psutil.Process().children(recursive=True) == before

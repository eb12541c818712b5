"""The trainer as its users see it: updates, results, status and state."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import functools
import math
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from small_runs import RUNNERS, SMALL, config, run, updates_of

from aiotrain import (
    ConfigError,
    Result,
    Trainer,
    TrainerStateError,
    train,
)
from aiotrain.testing import faulty
from aiotrain.training.reports import GROUPS
from envs import Endless, Toy


@pytest.mark.parametrize("loop", list(RUNNERS))
def test_iterating_gives_an_update_for_each_batch(loop: str) -> None:
    updates, result = run(updates_of(config()), loop)
    assert [update.update for update in updates] == [1, 2, 3]
    assert [update.episodes for update in updates] == [10, 20, 30]
    for update in updates:
        assert not update.metrics
        assert update.row(()).keys() == GROUPS.keys()
        assert all(value is not None and math.isfinite(value) for value in update.row(()).values()), update
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


def test_configuration_is_checked_where_the_trainer_is_made() -> None:
    with pytest.raises(ConfigError, match="CartPole-v1"):
        Trainer(config("CartPole-v2x"))


def test_updates_and_results_can_be_copied_and_pickled() -> None:
    updates, result = run(updates_of(config(total_episodes=10)))
    for told in (*updates, result):
        for each in (copy.deepcopy(told), pickle.loads(pickle.dumps(told))):
            np.testing.assert_equal(vars(each), vars(told))


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

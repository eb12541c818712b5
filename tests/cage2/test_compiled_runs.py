"""Training on the compiled simulator, whose workers play whole tasks without Python in between."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import numpy as np
import pytest

from aiotrain import Config, ConfigError, Curriculum, PPOConfig, Result, Trainer, Update, train
from aiotrain.cage2 import Cage2
from collector_harness import worker_processes

WITHIN_S = 90


def config(env: Cage2 | None = None, **changes: Any) -> Config:
    settings: dict[str, Any] = {
        "workers": 1,
        "total_episodes": 48,
        "episodes_per_update": 16,
        "max_policy_lag": 0,
        "ppo": PPOConfig(hidden_sizes=(8,), epochs=2, minibatch_size=512),
        "device": "cpu",
    }
    return Config(env=env or Cage2(), **(settings | changes))


def run(settings: Config) -> Result:
    result: Result = asyncio.run(asyncio.wait_for(train(settings), WITHIN_S))
    assert (result.episodes, result.steps) == (48, 4800)
    return result


@pytest.fixture(scope="module", params=["none", "reverse"])
def expected(request: pytest.FixtureRequest) -> tuple[str, Result]:
    """What one worker learns, with and without an order in sight."""
    return request.param, run(config(Cage2(workflow=request.param)))


@pytest.mark.parametrize("changes", [{"workers": 3}, {"envs_per_worker": 5}, {"workers": 2, "envs_per_worker": 16}])
def test_weights_do_not_depend_on_workers_or_the_size_of_tasks(
    expected: tuple[str, Result], changes: dict[str, Any]
) -> None:
    workflow, alone = expected
    np.testing.assert_array_equal(run(config(Cage2(workflow=workflow), **changes)).weights, alone.weights)


def test_seed_and_order_matter(expected: tuple[str, Result]) -> None:
    workflow, alone = expected
    assert not np.array_equal(run(config(Cage2(workflow=workflow), seed=1)).weights, alone.weights)
    if workflow != "none":
        assert not np.array_equal(run(config(Cage2(workflow="balanced"))).weights, alone.weights)


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_killed_while_it_plays_is_replaced_and_nothing_else_changes(
    expected: tuple[str, Result], workers: int
) -> None:
    workflow, alone = expected

    async def disturbed() -> tuple[Result, int]:
        async with asyncio.timeout(WITHIN_S), Trainer(config(Cage2(workflow=workflow), workers=workers)) as trainer:
            await anext(trainer)
            victims = worker_processes()
            for victim in victims:
                victim.suspend()  # none is quick enough to be missed
            following = asyncio.ensure_future(anext(trainer))
            while trainer.status().episodes_in_flight < 16:
                await asyncio.sleep(0.002)
            victims[0].kill()
            for other in victims[1:]:
                other.resume()
            await following
            async for _ in trainer:
                pass
            return trainer.result(), sum(worker.restarts for worker in trainer.status().workers)

    result, restarts = asyncio.run(disturbed())
    assert restarts == 1
    np.testing.assert_array_equal(result.weights, alone.weights)


async def first_update(**changes: Any) -> Update:
    async with asyncio.timeout(WITHIN_S), Trainer(config(Cage2(workflow="reverse"), **changes)) as trainer:
        return await anext(trainer)


@pytest.mark.parametrize("slot_steps", [30, 130])
def test_slots_may_be_shorter_or_longer_than_episodes(slot_steps: int) -> None:
    """In shorter ones, episodes are played step by step; both ways they are the same."""
    update = asyncio.run(first_update(slot_steps=slot_steps))
    whole = asyncio.run(first_update())
    assert update.returns == pytest.approx(whole.returns)
    for name in ("mean_length", "mean_bonus", "batch_steps"):
        assert getattr(update, name) == pytest.approx(getattr(whole, name)), name
    assert update.metrics["compliance"].mean == pytest.approx(whole.metrics["compliance"].mean)
    assert (whole.mean_length, whole.metrics["compliance"].count) == (100, whole.batch_episodes)


def test_slots_shorter_than_episodes_train_to_the_end() -> None:
    assert np.isfinite(run(config(slot_steps=30, workers=2)).weights).all()


def test_shorter_episodes_on_request() -> None:
    result = asyncio.run(asyncio.wait_for(train(config(max_episode_steps=7)), WITHIN_S))
    assert (result.episodes, result.steps) == (48, 48 * 7)


@pytest.mark.parametrize("simulator", ["compiled", "cyborg"])
def test_memory_and_compact_actions_are_trained_with(simulator: Any) -> None:
    """With the search over orders, whose bits stand behind the memory's."""
    settings = config(Cage2(simulator=simulator, observation="memory", actions="compact"), workers=2)
    trained = run(settings)
    assert np.isfinite(trained.weights).all()
    inputs, outputs = 307 + 25, 42
    assert len(trained.weights) == 2 * inputs + (inputs + 1) * 8 + (8 + 1) * outputs
    if simulator == "compiled":
        plain = run(dataclasses.replace(settings, workers=1))
        np.testing.assert_array_equal(plain.weights, trained.weights)


@pytest.mark.parametrize("red_agent", ["RedMeanderAgent", "SleepAgent"])
def test_red_agents_are_played(red_agent: str) -> None:
    result = run(config(Cage2(red_agent=red_agent)))
    assert result.mean_return < 0


@pytest.mark.parametrize("red_agent", ["my_agents:Red", "B_linAgent"])
def test_red_agents_that_it_does_not_have_are_refused(red_agent: str) -> None:
    with pytest.raises(ConfigError, match=rf"red-agent: .*{red_agent}"):
        Trainer(config(Cage2(red_agent=red_agent)))


def test_a_metric_that_compiled_play_does_not_tell_is_absent() -> None:
    """A zero would be taken for a number of the episodes."""

    async def metrics_of(settings: Config) -> list[set[str]]:
        async with Trainer(settings) as trainer:
            return [set(update.metrics) async for update in trainer]

    told = asyncio.run(metrics_of(config(Cage2(workflow="reverse"), metrics=("red_hosts", "other"))))
    assert told == [{"compliance"}] * 3
    assert asyncio.run(metrics_of(config(Cage2(workflow="none"), metrics=("compliance",)))) == [set()] * 3


def test_a_curriculum_may_give_an_order_as_a_list() -> None:
    class Listed(Curriculum):
        def plan(self, batch: int) -> list[dict[str, Any]]:
            return [{"workflow": ["user", "enterprise", "op_server", "op_host", "defender"]}]

    run(config(Cage2(workflow="reverse"), curriculum=Listed))

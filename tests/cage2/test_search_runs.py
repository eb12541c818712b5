"""A search over workflows as a whole run: batches, policies, files."""

from __future__ import annotations

import asyncio
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded_runs import WITHIN_S, A, B, Run, assert_same, config, play
from safetensors.numpy import load_file

from aiotrain import Trainer
from aiotrain.cage2 import SearchConfig
from aiotrain.cage2.search.status import WorkflowStatus
from aiotrain.cage2.search.workflow_search import WorkflowSearch
from aiotrain.cage2.workflows import Order, order_text
from aiotrain.collect.protocol import WorkerState
from aiotrain.learn.ppo import Learner


@pytest.fixture(scope="module", params=[0, 1], ids=lambda lag: f"lag {lag}")
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return play(tmp_path_factory.mktemp("search") / "run", max_policy_lag=request.param)


def test_trainings_use_up_the_budget(found: Run) -> None:
    trainings = found.trainings
    assert len(trainings) >= 3
    assert [int(training["iteration"]) for training in trainings] == list(range(1, len(trainings) + 1))
    assert sum(int(training["episodes"]) for training in trainings) == 84 == int(found.updates[-1]["episodes"])
    assert {training["ended"] for training in trainings[:-1]} <= {"compliance", "plateau", "episodes"}
    assert trainings[-1]["ended"] in ("compliance", "plateau", "episodes", "budget")
    assert len({training["workflow"] for training in trainings}) == len(trainings)
    for training in trainings:
        assert (training["complied"] == "True") == (float(training["compliance"]) >= 0.95)


def test_rows_of_updates_and_trainings_agree(found: Run) -> None:
    firsts = found.first_updates
    for first, after, training in zip(firsts, [*firsts[1:], len(found.updates)], found.trainings, strict=True):
        rows = found.updates[first:after]
        assert {row["curriculum"] for row in rows} == {training["workflow"]}
        returns = np.concatenate([each.batch.headers["episode_return"] for each in found.learned[first:after]])
        assert float(training["value"]) == pytest.approx(returns.mean())
        for name, column in (("value", "mean_return"), ("alignment", "mean_bonus")):
            mean = np.average(
                [float(row[column]) for row in rows], weights=[int(row["batch_episodes"]) for row in rows]
            )
            assert float(training[name]) == pytest.approx(mean, rel=1e-5)
        assert f"{float(training['compliance']):.6g}" in {row["compliance"] for row in rows}


def test_each_batch_is_of_one_order(found: Run) -> None:
    for each, row in zip(found.learned, found.updates, strict=True):
        assert set(each.orders) == {row["curriculum"]}


def test_nothing_of_an_order_is_played_before_the_one_before_it_is_learned(found: Run) -> None:
    firsts = found.first_updates
    for number, each in enumerate(found.learned):
        oldest = max(first for first in firsts if first <= number)
        assert each.batch.headers["version"].min() >= oldest


def test_batches_are_played_by_the_policy_that_learns_from_them(found: Run) -> None:
    """Else what was loaded for a new order is not what was published."""
    for number, each in enumerate(found.learned):
        if (each.batch.headers["version"] == number).all():
            np.testing.assert_allclose(each.batch.log_probs, each.log_probs, rtol=0, atol=1e-4)
        else:
            assert number not in found.first_updates


def test_each_order_leaves_its_policy(found: Run) -> None:
    ends = [*found.first_updates[1:], len(found.updates)]
    for end, training in zip(ends, found.trainings, strict=True):
        kept = load_file(found.folder / f"weights-{training['workflow'].replace(',', '-')}.safetensors")
        learned = found.learned[end - 1].after["network"]
        assert kept.keys() == learned.keys()
        for name in kept:
            np.testing.assert_array_equal(kept[name], learned[name])
    last = load_file(found.folder / "weights.safetensors")
    np.testing.assert_array_equal(last["actor.0.weight"], found.learned[-1].after["network"]["actor.0.weight"])


def test_bonus_is_lambda_times_compliance(found: Run) -> None:
    for each in found.learned:
        headers = each.batch.headers
        np.testing.assert_allclose(
            headers["episode_bonus"], SearchConfig().alignment_lambda * np.nan_to_num(headers["compliance"]), atol=1e-9
        )
        per_episode = each.batch.bonuses.reshape(len(headers), -1).sum(axis=1)
        np.testing.assert_allclose(per_episode, headers["episode_bonus"], atol=1e-4)


def test_at_lag_0_trainings_and_weights_do_not_depend_on_workers(tmp_path: Path) -> None:
    first, second = (play(tmp_path / str(workers), workers=workers, max_policy_lag=0) for workers in (1, 3))
    assert first.trainings == second.trainings
    assert len(first.weights) == 1 + len(first.trainings)
    assert_same(first.weights, second.weights)


# ------------------------------------------------------------------------ status


def test_search_is_told_also_when_its_last_training_ends_with_the_budget() -> None:
    async def statuses() -> list[WorkflowStatus | None]:
        told = []
        settings = {"total_episodes": 16, "search": SearchConfig(parallel_workflows=1, fixed_episodes=8)}
        async with asyncio.timeout(WITHIN_S), Trainer(config(max_policy_lag=0, **settings)) as trainer:
            async for _ in trainer:
                told.append(trainer.status().curriculum)
        return [*told, trainer.status().curriculum]

    now, *ended = asyncio.run(statuses())
    assert now is not None
    assert [(each.iteration, each.episodes) for each in now.running] == [(2, 0)]
    for last in ended:
        assert last is not None, "a console has nothing to tell of a search that has found something"
        assert [(each.iteration, each.episodes) for each in last.running] == [(2, 8)]
        assert last.trainings == 2


# ------------------------------------------------------------------ inheritance


def small(inherit: str) -> dict[str, Any]:
    return {
        "total_episodes": 24,
        "episodes_per_update": 4,
        "max_policy_lag": 0,
        "search": SearchConfig(parallel_workflows=1, fixed_episodes=8, inherit=inherit),  # type: ignore[arg-type]
    }


def test_training_that_the_budget_cuts_off_is_told_as_such(tmp_path: Path) -> None:
    found = play(tmp_path / "run", [A, B, A], **small("latest") | {"total_episodes": 20})
    told = [(training["ended"], training["episodes"]) for training in found.trainings]
    assert told == [("episodes", "8"), ("episodes", "8"), ("budget", "4")]


def test_policy_simply_goes_on_from_order_to_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def go_back(learner: Learner, snapshot: dict[str, Any]) -> None:
        pytest.fail("a policy was loaded")

    monkeypatch.setattr(Learner, "go_back_to", go_back)
    found = play(tmp_path / "run", [A, B, A], **small("latest"))
    assert [training["workflow"] for training in found.trainings] == [order_text(order) for order in (A, B, A)]
    for before, after in itertools.pairwise(found.learned):
        assert_same(after.before, before.after)


def test_policy_of_a_repeated_order_is_resumed(tmp_path: Path) -> None:
    found = play(tmp_path / "run", [A, B, A], **small("nearest"))
    assert [training["workflow"] for training in found.trainings] == [order_text(order) for order in (A, B, A)]
    assert found.first_updates == [0, 2, 4]
    assert_same(found.learned[2].before, found.learned[1].after)
    assert_same(found.learned[4].before, found.learned[1].after)
    assert not np.array_equal(
        found.learned[3].after["network"]["actor.0.weight"], found.learned[1].after["network"]["actor.0.weight"]
    ), "then nothing was learned in between"


def test_without_inheritance_each_order_begins_as_the_first_did(tmp_path: Path) -> None:
    found = play(tmp_path / "run", [A, B, A], **small("none"))
    assert_same(found.learned[2].before, found.learned[0].before)
    assert_same(found.learned[4].before, found.learned[0].before)


# ------------------------------------------------------------------ coming up


def test_worker_that_comes_up_while_an_order_is_chosen_waits_for_its_policy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker that is ready sets off a launch, whatever the learner's thread is at."""
    choose = WorkflowSearch.choose
    running: list[tuple[Trainer, asyncio.AbstractEventLoop]] = []
    came_up, in_flight = [], []

    async def until_another_is_ready(trainer: Trainer) -> None:
        def starting() -> int:
            return [worker.state for worker in trainer.status().workers].count(WorkerState.STARTING)

        before = starting()
        while starting() == before > 0:
            await asyncio.sleep(0.005)
        came_up.append(before - starting())
        for _ in range(10):  # whatever that sets off has its turn
            await asyncio.sleep(0)
        in_flight.append(trainer.status().episodes_in_flight)

    def slow(search: WorkflowSearch) -> list[Order]:
        orders = choose(search)
        if search.trainings:  # before the first order, nothing is played
            trainer, loop = running[0]
            asyncio.run_coroutine_threadsafe(until_another_is_ready(trainer), loop).result(WITHIN_S)
        return orders

    async def updates() -> None:
        settings = small("nearest") | {"max_policy_lag": 2}
        async with asyncio.timeout(WITHIN_S), Trainer(config(workers=6, **settings)) as trainer:
            running.append((trainer, asyncio.get_running_loop()))
            async for _ in trainer:
                pass

    monkeypatch.setattr(WorkflowSearch, "choose", slow)
    asyncio.run(updates())
    assert any(came_up), "no worker was late"
    assert not any(in_flight), "played with the policy of the order before"


# ------------------------------------------------------------------------ cyborg


@pytest.fixture(scope="module")
def on_cyborg(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("cyborg")
    settings = {"simulator": "cyborg", "max_episode_steps": 20, **small("nearest")}
    return [play(folder / str(workers), workers=workers, **settings) for workers in (1, 3)]


def test_search_on_the_simulator_itself(on_cyborg: list[Run]) -> None:
    found, other = on_cyborg
    assert [training["ended"] for training in found.trainings] == ["episodes"] * 3
    assert [int(training["episodes"]) for training in found.trainings] == [8, 8, 8]
    assert found.trainings == other.trainings
    assert_same(found.weights, other.weights)
    test_each_batch_is_of_one_order(found)
    test_rows_of_updates_and_trainings_agree(found)
    assert any(not math.isnan(value) for value in found.learned[0].batch.headers["compliance"])
    test_bonus_is_lambda_times_compliance(found)

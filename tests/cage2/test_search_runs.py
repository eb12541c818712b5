"""A search over workflows as a whole run: batches, policies, files."""

from __future__ import annotations

import asyncio
import csv
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.numpy import load_file

from aiotrain import Config, PPOConfig, Trainer, train
from aiotrain.cage2 import Cage2, SearchConfig
from aiotrain.cage2.domain import Simulator
from aiotrain.cage2.search.status import WorkflowStatus
from aiotrain.cage2.search.strategies import SEARCHES
from aiotrain.cage2.search.workflow_search import WorkflowSearch
from aiotrain.cage2.workflows import NAMED_ORDERS, ONE_HOT, ORDERS, Order, order_text
from aiotrain.collect.protocol import Outcome, WorkerState
from aiotrain.collect.shared_memory import SharedMemoryCollector
from aiotrain.learn.ppo import Learner
from aiotrain.play.player import LostEpisode
from aiotrain.transport.ring import Trajectories
from making import scripted

WITHIN_S = 90
BITS = 52
A, B = NAMED_ORDERS["critical_first"], NAMED_ORDERS["reverse"]


ONE_BY_ONE = SearchConfig(parallel_workflows=1, max_episodes_per_workflow=24, patience=2)


def config(search: SearchConfig = ONE_BY_ONE, simulator: Simulator = "compiled", **changes: Any) -> Config:
    settings: dict[str, Any] = {
        "workers": 2,
        "total_episodes": 84,
        "episodes_per_update": 8,
        "ppo": PPOConfig(hidden_sizes=(8,), epochs=2, minibatch_size=256),
        "device": "cpu",
    }
    return Config(env=Cage2(simulator=simulator, workflow="search", search=search), **(settings | changes))


class Learned(NamedTuple):
    """An update as the learner saw it."""

    batch: Trajectories
    before: dict[str, Any]
    """State of the learner when it was given the batch."""
    after: dict[str, Any]
    log_probs: npt.NDArray[np.float32]
    """Of the batch's actions, by the policy as it was before."""

    @property
    def orders(self) -> list[str]:
        """The order that each trajectory was played under; all its observations must show the same."""
        batch = self.batch
        shown = np.split(batch.observations[:, BITS:], np.cumsum(batch.headers["length"])[:-1])
        orders = []
        for rows, last in zip(shown, batch.final_observations[:, BITS:], strict=True):
            assert (rows == last).all(), "an episode of several orders"
            (number,) = np.flatnonzero((last == ONE_HOT).all(axis=1))
            orders.append(order_text(ORDERS[number]))
        return orders


class Run(NamedTuple):
    """What a run left behind."""

    folder: Path
    learned: list[Learned]

    def rows(self, name: str) -> list[dict[str, str]]:
        with (self.folder / name).open(newline="") as file:
            return list(csv.DictReader(file))

    @property
    def trainings(self) -> list[dict[str, str]]:
        return self.rows("workflows.csv")

    @property
    def updates(self) -> list[dict[str, str]]:
        return self.rows("updates.csv")

    @property
    def first_updates(self) -> list[int]:
        """For each training, the number of its first update, from 0."""
        began = np.cumsum([0, *(int(training["episodes"]) for training in self.trainings)])[:-1].tolist()
        learned_before = [int(row["episodes"]) - int(row["batch_episodes"]) for row in self.updates]
        return [learned_before.index(episodes) for episodes in began]

    @property
    def weights(self) -> dict[str, dict[str, npt.NDArray[Any]]]:
        return {path.name: load_file(path) for path in sorted(self.folder.glob("*.safetensors"))}


def play(folder: Path, orders: Sequence[Order] = (), **changes: Any) -> Run:
    """Train into ``folder`` and record every update; a search proposes ``orders``, if there are any."""
    learned: list[Learned] = []
    update = Learner.update

    def recording(learner: Learner, batch: Trajectories, progress: float) -> dict[str, float]:
        before, log_probs = learner.snapshot(), log_probs_of(learner, batch)
        metrics = update(learner, batch, progress)
        learned.append(Learned(batch, before, learner.snapshot(), log_probs))
        return metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "update", recording)
        if orders:
            patch.setitem(SEARCHES, "gp-ucb", scripted(orders))
        asyncio.run(asyncio.wait_for(train(config(run_dir=str(folder), **changes)), WITHIN_S))
    return Run(folder, learned)


@torch.no_grad()
def log_probs_of(learner: Learner, batch: Trajectories) -> npt.NDArray[np.float32]:
    logits = learner.network.actor(torch.from_numpy(batch.observations).float())
    actions = torch.from_numpy(batch.actions).long()
    return torch.log_softmax(logits, -1).gather(1, actions[:, None])[:, 0].numpy()


def assert_same(first: Any, second: Any) -> None:
    """Two states of a learner are equal to the bit."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    else:
        np.testing.assert_array_equal(first, second)


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


# --------------------------------------------------------------- several at once

TOGETHER = SearchConfig(parallel_workflows=3, max_episodes_per_workflow=12)


@pytest.fixture(scope="module", params=[0, 1], ids=lambda lag: f"lag {lag}")
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three orders share each batch of eight: 3, 3 and 2 episodes of it."""
    folder = tmp_path_factory.mktemp("together") / "run"
    return play(folder, max_policy_lag=request.param, search=TOGETHER)


def names_of(run: Run) -> list[list[str]]:
    """The orders of each update, by its row."""
    return [row["curriculum"].split(";") for row in run.updates]


def test_trainings_together_use_up_the_budget(together: Run) -> None:
    trainings = together.trainings
    assert sum(int(training["episodes"]) for training in trainings) == 84 == int(together.updates[-1]["episodes"])
    assert sorted(int(training["iteration"]) for training in trainings) == list(range(1, len(trainings) + 1))
    assert len({training["workflow"] for training in trainings}) == len(trainings) >= 5
    ends = [training["ended"] for training in trainings]
    assert set(ends) <= {"compliance", "episodes", "budget"}
    assert 1 <= ends.count("budget") <= 3, f"three at most can be cut off: {ends}"
    assert set(ends[-ends.count("budget") :]) == {"budget"}, f"cut off by the budget, but not at the end: {ends}"


def test_batches_show_the_orders_of_their_rows_in_equal_shares(together: Run) -> None:
    for number, (each, names) in enumerate(zip(together.learned, names_of(together), strict=True)):
        episodes = len(each.orders)
        assert 1 <= len(names) == len(set(names)) <= 3
        assert each.orders == [names[len(names) * place // episodes] for place in range(episodes)], (
            f"update {number} is not made up of its orders, {names}"
        )
    assert [len(names) for names in names_of(together)].count(3) >= 5


def test_trainings_together_are_told_what_was_played_of_their_order(together: Run) -> None:
    headers = np.concatenate([each.batch.headers for each in together.learned])
    orders = np.array([order for each in together.learned for order in each.orders])
    for training in together.trainings:
        own = headers[orders == training["workflow"]]
        assert int(training["episodes"]) == len(own)
        assert float(training["value"]) == pytest.approx(own["episode_return"].mean())
        assert float(training["alignment"]) == pytest.approx(own["episode_bonus"].mean())


def test_one_order_takes_the_place_of_another_while_the_rest_go_on(together: Run) -> None:
    names = names_of(together)
    changes = 0
    for before, after in itertools.pairwise(names):
        stayed = [name for name in before if name in after]
        assert after[: len(stayed)] == stayed, "the parts of those that go on are exchanged"
        changes += bool(stayed) and bool(set(after) - set(before))
    assert changes, f"no order came while others were trained: {names}"
    lasts = {name: number for number, each in enumerate(names) for name in each}
    for name in lasts:
        updates = [number for number, each in enumerate(names) if name in each]
        assert updates == list(range(updates[0], updates[-1] + 1)), f"the training of {name} had a pause"


def test_orders_together_leave_the_policy_that_they_were_trained_to(together: Run) -> None:
    names = names_of(together)
    for training in together.trainings:
        last = max(number for number, each in enumerate(names) if training["workflow"] in each)
        kept = load_file(together.folder / f"weights-{training['workflow'].replace(',', '-')}.safetensors")
        learned = together.learned[last].after["network"]
        for name in kept:
            np.testing.assert_array_equal(kept[name], learned[name])


def test_at_lag_0_trainings_together_do_not_depend_on_workers(tmp_path: Path) -> None:
    first, second = (
        play(tmp_path / str(workers), workers=workers, max_policy_lag=0, search=TOGETHER) for workers in (1, 3)
    )
    assert first.trainings == second.trainings
    assert len(first.weights) == 1 + len(first.trainings)
    assert_same(first.weights, second.weights)


# ----------------------------------------------------------------- empty batches


@pytest.mark.parametrize("together", [1, 2])
def test_search_that_waits_for_a_batch_of_which_nothing_comes_goes_on(
    together: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch 1 is under way when the orders of batch 0 are done with, and every episode of it is given up."""
    outcomes = SharedMemoryCollector.outcomes

    def fate(outcome: Outcome) -> Outcome:
        lost = tuple(LostEpisode(episode, "it broke") for episode in outcome.launch.episodes if episode in (2, 3))
        return Outcome(outcome.launch, None, (), lost) if lost else outcome

    async def losing(collector: SharedMemoryCollector) -> list[Outcome]:
        return [fate(outcome) for outcome in await outcomes(collector)]

    monkeypatch.setattr(SharedMemoryCollector, "outcomes", losing)
    found = play(
        tmp_path / "run",
        total_episodes=8,
        episodes_per_update=2,
        max_policy_lag=1,
        search=SearchConfig(fixed_episodes=2 // together, parallel_workflows=together),
    )
    assert [each.batch.headers["episode"].tolist() for each in found.learned] == [[0, 1], [4, 5], [6, 7]]
    first, second, third = names_of(found)
    assert len(first) == together
    assert second == third
    assert not set(first) & set(second), "the orders of batch 0 were done with"
    assert [int(training["episodes"]) for training in found.trainings] == [2 // together] * together + [
        4 // together
    ] * together
    assert {training["ended"] for training in found.trainings} == {"episodes"}
    assert [row["update"] for row in found.updates] == ["1", "2", "3"], "an empty batch is no update"
    headers = found.learned[1].batch.headers
    assert headers["version"].tolist() == [2, 2], "played before the empty batch was done with"
    assert float(found.updates[1]["policy_lag"]) == 0, "the policy that learns is the one that played"


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

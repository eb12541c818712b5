"""A search that trains several orders together, as a whole run; also where nothing comes of a batch."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from recorded_runs import Run, assert_same, names_of, play
from safetensors.numpy import load_file

from aiotrain.cage2 import SearchConfig
from aiotrain.collect.protocol import Outcome
from aiotrain.collect.shared_memory_collector import SharedMemoryCollector
from aiotrain.play.player import LostEpisode

TOGETHER = SearchConfig(parallel_workflows=3, max_episodes_per_workflow=12)


@pytest.fixture(scope="module", params=[0, 1], ids=lambda lag: f"lag {lag}")
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three orders share each batch of eight: 3, 3 and 2 episodes of it."""
    folder = tmp_path_factory.mktemp("together") / "run"
    return play(folder, max_policy_lag=request.param, search=TOGETHER)


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

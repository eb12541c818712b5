"""Several orders in training share every batch: each is judged by its part, and gives its place to the next one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from search_rounds import Rounds, compliance_of, judged

from aiotrain.cage2.search.settings import SearchConfig
from aiotrain.cage2.search.workflow_search import WorkflowSearch
from aiotrain.cage2.workflows import Order, order_text


def together(**settings: Any) -> tuple[Rounds, list[Order]]:
    """A search with three orders in training."""
    one = Rounds(WorkflowSearch(SearchConfig(**({"search": "round-robin", "parallel_workflows": 3} | settings)), 0, 9))
    return one, one.choose()


def test_each_order_learns_its_own_part_of_a_batch() -> None:
    one, orders = together(max_episodes_per_workflow=2)
    assert one.open() == orders
    assert one.search.workflows(0) == [order_text(order) for order in orders]
    parts = [judged([0.1 * part] * (2 + part), value=-10.0 * part, bonus=1.0 * part) for part in range(3)]
    assert one.learn(*parts) == orders
    told = one.search.status()
    assert told is not None
    assert [(each.workflow, each.iteration, each.episodes) for each in told.running] == [
        (order_text(order), number, 1 + number) for number, order in enumerate(orders, 1)
    ]
    trainings = one.search.finish(one.over)
    assert [(each.value, each.alignment) for each in trainings] == [(0.0, 0.0), (-10.0, 1.0), (-20.0, 2.0)]
    assert {each.order: each.value for each in one.search.search.observations} == dict(
        zip(orders, (0.0, -10.0, -20.0), strict=True)
    )


def test_trajectories_of_a_part_may_lie_anywhere_in_the_batch() -> None:
    one, _ = together()
    one.open()
    mixed = judged([0.0, 0.5, 1.0] * 2)
    mixed.headers["episode_return"] = [-1, -2, -3, -3, -4, -5]
    one.search.learned(0, mixed.headers, np.array([0, 1, 2] * 2))
    values = [training.value for training in one.search.finish(one.search.running, "budget")]
    assert values == [-2.0, -3.0, -4.0]


def test_each_is_judged_over_as_many_episodes_as_an_update_has() -> None:
    """A part alone is too few for a mean to trust, whatever it says."""
    one, orders = together(compliance_threshold=0.7)
    thirds = [[1.0, 0.0, 0.5], [1.0, 1.0, 0.5], [1.0, 1.0, 0.5]]  # of the first part; a batch has 9
    for number, third in enumerate(thirds):
        assert math.isnan(compliance_of(one)), f"judged over {3 * number} episodes of 9"
        over = one.learn(judged(third), judged([0.5] * 3), judged([0.0] * 3))
    told = one.search.status()
    assert told is not None
    assert over == orders[:1]
    assert [each.compliance for each in told.running] == [0.5, 0.0]
    assert (training := one.finish()).ended == "compliance"
    assert (training.episodes, training.compliance) == (9, pytest.approx(6.5 / 9))


def test_patience_counts_judgements_and_not_batches() -> None:
    one, orders = together(patience=2)
    ends = []
    for number in range(1, 13):
        parts = [judged([0.1 * number] * 3), judged([0.3] * 3), judged([0.1 * number] * 3)]
        ends += [(number, order) for order in one.learn(*parts)]
        if ends:
            break
    assert ends == [(9, orders[1])], "judged after batches 3, 6 and 9, it has gained nothing twice with the last"


def test_episodes_are_those_of_the_order_and_not_of_the_batch() -> None:
    one, orders = together(max_episodes_per_workflow=8)
    parts = [judged([0.5] * count) for count in (4, 2, 2)]
    assert one.learn(*parts) == []
    assert one.learn(*[judged([0.5] * count) for count in (4, 2, 2)]) == orders[:1]
    assert one.finish().ended == "episodes"


def test_place_is_taken_after_the_last_batch_is_learned_while_the_others_go_on() -> None:
    one, (first, second, third) = together(fixed_episodes=4)
    for _ in range(2):  # batches 0 and 1 are under way
        assert one.open() == [first, second, third]
    assert one.learn(judged(0.5, 2), judged(0.5, 4), judged(0.5, 2)) == [], "batch 1 has a part for the second yet"
    assert one.choose() == [], "its place is taken before its last batch is learned"
    assert one.open() == [first, third], "batch 2: the others go on, and what is over has no part any more"
    assert one.learn(judged(0.5, 1), judged(0.5, 3), judged(0.5, 1)) == [second]
    assert one.open() == [first, third], "batch 3: the next order is not chosen yet"
    training = one.finish()
    assert (training.workflow, training.episodes, training.ended) == (order_text(second), 7, "episodes")
    (fourth,) = one.choose()
    assert fourth not in (first, second, third)
    assert one.open() == [first, third, fourth], "batch 4"
    assert one.search.workflows(2) == [order_text(first), order_text(third)], "a batch keeps the parts it had"
    assert one.learn(judged(0.5, 1), judged(0.5, 1)) == []
    assert one.learn(judged(0.5, 1), judged(0.5, 1)) == []
    assert one.learn(judged(0.5, 1), judged(0.5, 1), judged(0.5, 3)) == [first, third]
    told = one.search.status()
    assert told is not None
    assert [(each.workflow, each.iteration, each.episodes) for each in told.running] == [(order_text(fourth), 4, 3)]


def test_all_may_end_with_the_same_batch() -> None:
    one, orders = together(compliance_threshold=0.9, fixed_episodes=2)
    one.open(), one.open()
    parts = [judged(1.0, 2) for _ in orders]
    assert one.learn(*parts) == []
    assert one.open() is None, "nothing is left to be trained"
    assert one.learn(*(judged(1.0, 2) for _ in orders)) == orders
    assert [one.finish().workflow for _ in orders] == [order_text(order) for order in orders]
    assert len(one.choose()) == 3
    assert one.open() is not None


@pytest.mark.parametrize("fate", ["goes on", "waits"])
def test_empty_batch_ends_nothing_but_lets_the_search_go_on(fate: str) -> None:
    one, orders = together(fixed_episodes=4)
    one.open(), one.open()
    if fate == "goes on":
        assert one.learn() == [], "nothing was played, and a training is over"
        assert one.learn(*(judged(0.5, 2) for _ in orders)) == []
        told = one.search.status()
        assert told is not None
        assert [each.episodes for each in told.running] == [2, 2, 2]
    else:
        assert one.learn(*(judged(0.5, 4) for _ in orders)) == []
        assert one.open() is None
        assert one.learn() == orders, "the last batch of all three is learned, though it is empty"
        assert {one.finish().episodes for _ in orders} == {4}
        assert len(one.choose()) == 3


def test_part_without_an_episode_teaches_its_order_nothing() -> None:
    one, orders = together(patience=1, fixed_episodes=None)
    for _ in range(3):
        assert one.learn(judged([0.5] * 3), judged([0.5] * 3), judged([])) == []
    told = one.search.status()
    assert told is not None
    assert [each.episodes for each in told.running] == [9, 9, 0]
    (training,) = one.search.finish([one.search.running[2]], "budget")
    assert (training.learned, training.workflow) == (False, order_text(orders[2]))


def test_search_that_is_out_of_budget_still_tells_what_was_trained_last() -> None:
    """The last trainings may end with the budget; then no order is chosen, but policies are published as ever."""
    one, orders = together(fixed_episodes=2)
    one.learn(*(judged(0.5, 2) for _ in orders))
    for _ in orders:
        one.finish()
    one.search.begin()
    told = one.search.status()
    assert told is not None, "nothing is told of the search after its last training"
    assert [each.workflow for each in told.running] == [order_text(order) for order in orders]
    assert told.trainings == 3


def test_no_more_orders_are_trained_together_than_a_batch_has_episodes() -> None:
    one = WorkflowSearch(SearchConfig(parallel_workflows=16), 0, batch_episodes=3)
    assert len(one.choose()) == 3
    assert one.free_places == 0

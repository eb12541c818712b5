"""When the training of an order ends, what the search learns from it, and what the next one goes on from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from search_rounds import (
    NAN,
    NEAR_A,
    NEARER_B,
    A,
    B,
    Rounds,
    compliance_of,
    judged,
    learn_until_over,
    scripted,
    workflows,
)

from aiotrain.cage2.search.settings import SearchConfig
from aiotrain.cage2.search.strategies import SEARCHES
from aiotrain.cage2.search.workflow_search import Training, WorkflowSearch
from aiotrain.cage2.workflows import NAMED_ORDERS, ORDER_INDEX, Order, kendall, order_text, parse_order

# ---------------------------------------------------------------------- endings


def test_full_update_of_the_threshold_ends_it() -> None:
    one = workflows(compliance_threshold=0.8)
    assert learn_until_over(one, [0.5, 0.79, 0.8, 0.9]) == 3
    training = one.finish()
    assert (training.ended, training.complied, training.learned) == ("compliance", True, True)
    assert (training.compliance, training.episodes) == (0.8, 30)


def test_mean_over_the_update_counts_and_not_its_best_episodes() -> None:
    one = workflows(compliance_threshold=0.8)
    assert learn_until_over(one, [[1.0] * 7 + [0.0] * 3]) == 0
    assert learn_until_over(one, [[1.0] * 8 + [0.0] * 2]) == 1


def test_updates_without_a_gain_of_more_than_a_hundredth_end_it() -> None:
    one = workflows(patience=3)
    assert learn_until_over(one, [0.25, 0.26, 0.5, 0.501, 0.509, 0.51, 0.9]) == 6
    training = one.finish()
    assert (training.ended, training.complied) == ("plateau", False)


def test_small_gains_add_up() -> None:
    """The best so far is what a gain is measured by, not the update before."""
    assert learn_until_over(workflows(patience=3), [0.3, 0.308, 0.316, 0.324, 0.332, 0.34]) == 0
    assert learn_until_over(workflows(patience=3), [0.5, 0.3, 0.4, 0.45]) == 4


@pytest.mark.parametrize(("updates", "ended"), [(2, ""), (3, "episodes")])
def test_episodes_run_out(updates: int, ended: str) -> None:
    one = workflows(max_episodes_per_workflow=25)
    learn_until_over(one, [0.1 * number for number in range(updates)])
    training = one.finish()
    assert (training.ended, training.complied, training.episodes) == (ended, False, 10 * updates)


@pytest.mark.parametrize("compliance", [1.0, 0.0, NAN], ids=str)
def test_fixed_episodes_heed_neither_compliance_nor_patience_nor_the_maximum(compliance: float) -> None:
    one = workflows(fixed_episodes=50, patience=1, max_episodes_per_workflow=10)
    assert learn_until_over(one, [compliance] * 9) == 5
    assert one.finish().ended == "episodes"


@pytest.mark.parametrize(("fixing", "ended"), [(4, ""), (5, ""), (6, "compliance")])
def test_update_is_not_compliant_if_most_of_its_episodes_never_fix(fixing: int, ended: str) -> None:
    one = workflows()
    one.learn(judged([1.0] * fixing + [NAN] * (10 - fixing)))
    assert math.isnan(compliance_of(one)) == (not ended)
    assert one.finish().ended == ended


def test_compliance_that_there_is_none_of_is_no_gain() -> None:
    assert learn_until_over(workflows(patience=3), [NAN] * 9) == 3
    assert learn_until_over(workflows(patience=3), [0.5, NAN, NAN, NAN]) == 4
    assert learn_until_over(workflows(patience=3), [NAN, NAN, 0.1, NAN, NAN]) == 0, "the first known one is a gain"


def test_batches_under_way_when_it_ends_are_learned_and_change_nothing_about_the_end() -> None:
    one = workflows(compliance_threshold=0.9)
    one.open(), one.open()
    assert one.learn(judged(0.9375, value=-100.0)) == [], "over before its last batch is learned"
    assert one.open() is None, "a batch is opened for an order that is done with"
    assert len(one.learn(judged(0.2, value=-50.0))) == 1
    training = one.finish()
    assert (training.ended, training.complied) == ("compliance", True)
    assert (training.compliance, training.episodes, training.value) == (0.9375, 20, -75.0)
    assert one.search.search.failures.sum() == 0


@pytest.mark.parametrize("reason", ["budget", "interrupted"])
def test_training_that_is_cut_off_is_told_as_such(reason: str) -> None:
    one = workflows()
    one.learn(judged(0.5))
    assert one.finish(reason).ended == reason


def test_training_that_was_over_when_it_was_cut_off_keeps_its_reason() -> None:
    one = workflows()
    one.learn(judged(1.0))
    assert one.finish("budget").ended == "compliance"


def test_next_training_begins_anew() -> None:
    one = workflows(patience=2, compliance_threshold=0.9)
    assert learn_until_over(one, [0.8, 0.8, 0.8]) == 3
    one.finish()
    one.choose()
    told = one.search.status()
    assert told is not None
    (running,) = told.running
    assert (running.iteration, running.episodes) == (2, 0)
    assert math.isnan(running.compliance)
    assert learn_until_over(one, [0.25, 0.25]) == 0
    training = one.finish("budget")
    assert (training.iteration, training.episodes, training.compliance) == (2, 20, 0.25)


# --------------------------------------------------------------------- planning


def test_nothing_is_planned_between_the_end_and_the_next_beginning() -> None:
    one = Rounds(WorkflowSearch(SearchConfig(parallel_workflows=1), 0, 10))
    assert one.open() is None, "no order is chosen yet"
    (order,) = one.search.choose()
    assert one.open() is None, "its policy is not published yet"
    one.search.begin()
    assert one.open() == [order]
    assert one.search.workflows(0) == [order_text(order)]
    assert one.learn(judged(1.0)) == [order]
    assert one.open() is None
    one.finish()
    assert one.open() is None
    (following,) = one.search.choose()
    assert following != order
    assert one.open() is None
    one.search.begin()
    assert one.open() == [following]


def test_no_more_orders_are_chosen_than_there_are_places_for() -> None:
    one = Rounds(WorkflowSearch(SearchConfig(parallel_workflows=3), 0, 10))
    assert len(one.search.choose()) == 3
    assert one.search.choose() == [], "those that are chosen and not begun have their places"
    one.search.begin()
    assert one.search.choose() == []


# --------------------------------------------------------- what the search learns


def test_value_is_the_mean_return_of_the_last_200_episodes_without_the_bonus() -> None:
    one = workflows(max_episodes_per_workflow=350)
    for value, bonus, episodes in ((-1000.0, 1.0, 150), (-80.0, 10.0, 100), (-20.0, 30.0, 100)):
        one.learn(judged(0.5, episodes, value, bonus))
    training = one.finish()
    assert (training.value, training.alignment, training.episodes) == (-50.0, 20.0, 350)
    (observation,) = one.search.search.observations
    assert (order_text(observation.order), observation.value) == (training.workflow, -50.0)


def test_fewer_episodes_than_that_are_all_of_them() -> None:
    one = workflows()
    one.learn(judged(0.5, 30, -10.0))
    one.learn(judged(0.5, 10, -50.0))
    assert one.finish("budget").value == -20.0


@pytest.mark.parametrize(
    ("settings", "compliance", "complied", "failures"),
    [
        ({}, 0.96, True, 0),
        ({}, 0.94, False, 1),
        ({}, NAN, False, 1),
        ({"fixed_episodes": 10}, 0.1, False, 0),  # nobody wanted compliance of it
    ],
    ids=str,
)
def test_training_that_missed_the_threshold_is_a_failure_for_the_search(
    settings: dict[str, Any], compliance: float, complied: bool, failures: int
) -> None:
    one = workflows(**({"max_episodes_per_workflow": 10} | settings))
    one.learn(judged(compliance))
    training = one.finish()
    assert training.complied == complied
    assert one.search.search.failures[ORDER_INDEX[parse_order(training.workflow)]] == failures
    assert (one.search.search.rest > 0).sum() == failures


@pytest.mark.parametrize("compliance", [0.2, 1.0])
def test_training_that_was_cut_off_teaches_nothing(compliance: float) -> None:
    """Neither that its order complied, nor that it did not: it was not given the time."""
    one = workflows()
    one.learn(judged(compliance, 9))
    training = one.finish("budget")
    assert (training.learned, training.episodes, training.value) == (False, 9, -100.0)
    assert one.search.search.observations == []
    told = one.search.status()
    assert told is not None
    assert (told.trainings, told.complied, told.best) == (0, 0, ())


def test_small_last_batch_decides_nothing() -> None:
    """Where the budget ends within a batch, a few lucky episodes are no compliance."""
    one = workflows(compliance_threshold=0.9)
    assert one.learn(judged(1.0, 4)) == []
    assert math.isnan(compliance_of(one))


def test_training_without_an_episode_teaches_nothing() -> None:
    one = workflows()
    training = one.finish("stopped")
    assert not training.learned
    assert math.isnan(training.value)
    assert one.search.search.observations == []


def test_bound_is_that_of_the_choice() -> None:
    """The order was not out then, and its own return not known."""
    one = workflows(gp_beta=3.0)
    one.learn(judged(1.0, value=-50.0))
    first = one.finish()
    assert all(math.isnan(number) for number in (first.ucb, first.mean, first.std))
    believed = one.search.search.posterior()
    (order,) = one.choose()
    one.learn(judged(1.0, value=-300.0))
    second = one.finish()
    assert second.workflow == order_text(order)
    assert second.mean == believed.mean[ORDER_INDEX[order]]
    assert second.std == believed.std[ORDER_INDEX[order]]
    assert second.ucb == pytest.approx(second.mean + 3 * second.std)


@pytest.mark.parametrize("search", SEARCHES)
def test_search_is_the_configured_one_and_its_seed_decides(search: str) -> None:
    def chosen(seed: int) -> list[str]:
        one = Rounds(WorkflowSearch(SearchConfig(search=search, parallel_workflows=1), seed, 10))  # type: ignore[arg-type]
        for _ in range(4):
            one.choose()
            one.learn(judged(1.0))
            one.finish()
        return [training.workflow for training in one.search.trainings]

    assert isinstance(WorkflowSearch(SearchConfig(search=search), 0, 10).search, SEARCHES[search])  # type: ignore[arg-type]
    assert chosen(1) == chosen(1)
    assert (chosen(1) == chosen(2)) == (search == "round-robin")


# ------------------------------------------------------------------ inheritance


def trained(orders: Sequence[Order], monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Rounds:
    """A search in which the last of ``orders`` is chosen and the others are trained."""
    monkeypatch.setitem(SEARCHES, "random", scripted(orders))
    one = workflows(search="random", **settings)
    for _ in orders[1:]:
        one.learn(judged(1.0))
        one.finish()
        one.choose()
    return one


@pytest.mark.parametrize(
    ("orders", "parent"),
    [
        ([A], None),
        ([A, B], A),
        ([A, B, A], A),
        ([A, B, NEAR_A], A),
        ([A, B, NEARER_B], B),
        ([A, NEAR_A, A, B, A], A),
        ([NEAR_A, A, B], NEAR_A),  # 9 pairs away, where A is 10
    ],
)
def test_parent_is_the_order_itself_or_the_nearest(
    orders: list[Order], parent: Order | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trained(orders, monkeypatch).search.parent(orders[-1]) == parent


def test_latest_of_equally_near_orders_is_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    first: Order = ("enterprise", "defender", "op_server", "op_host", "user")
    second: Order = ("defender", "enterprise", "op_server", "user", "op_host")
    distances = kendall(ORDER_INDEX[A], [ORDER_INDEX[first], ORDER_INDEX[second]])
    assert distances.tolist() == [1, 1]
    assert trained([first, second, A], monkeypatch).search.parent(A) == second
    assert trained([second, first, A], monkeypatch).search.parent(A) == first
    again = trained([first, second, first, A], monkeypatch)
    assert again.search.parent(A) == first, "trained again, it is the latest"


def test_trainings_are_numbered_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    one = trained([A, B, A, NAMED_ORDERS["balanced"]], monkeypatch)
    assert [(training.iteration, training.workflow) for training in one.search.trainings] == [
        (1, order_text(A)),
        (2, order_text(B)),
        (3, order_text(A)),
    ]
    assert all(isinstance(training, Training) for training in one.search.trainings)

"""When the training of an order ends, what the search learns from it, and what the next one goes on from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from aiotrain.cage2.workflows import NAMED_ORDERS, ORDER_INDEX, Order, kendall, order_text
from aiotrain.config import SearchConfig
from aiotrain.ring import Trajectories
from aiotrain.search import SEARCHES
from aiotrain.workflow_search import Training, WorkflowSearch
from making import scripted, spec_of, trajectories

NAN = math.nan
A: Order = ("defender", "enterprise", "op_server", "op_host", "user")
B: Order = ("user", "op_host", "op_server", "enterprise", "defender")
NEAR_A: Order = ("enterprise", "defender", "op_server", "op_host", "user")  # one pair exchanged
NEARER_B: Order = ("user", "op_host", "enterprise", "op_server", "defender")


def workflows(**settings: Any) -> WorkflowSearch:
    """A search whose first order is being trained."""
    one = WorkflowSearch(SearchConfig(**({"search": "round-robin"} | settings)), seed=0)
    one.choose()
    one.begin()
    return one


def batch(
    compliance: float | Sequence[float], episodes: int = 10, value: float = -100.0, bonus: float = 5.0
) -> Trajectories:
    """An update's episodes, all of this compliance, or one of each."""
    each = [compliance] * episodes if isinstance(compliance, float) else list(compliance)
    made = trajectories(spec_of(), [2] * len(each))
    made.headers["compliance"] = each
    made.headers["episode_return"] = value
    made.headers["episode_bonus"] = bonus
    return made


def learn_until_over(one: WorkflowSearch, compliances: Sequence[float | Sequence[float]]) -> int:
    """The number of the update with which the training ended, 0 if it goes on."""
    for number, compliance in enumerate(compliances, 1):
        one.learned(batch(compliance))
        if one.is_over:
            return number
    return 0


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


def test_only_episodes_that_ended_count() -> None:
    one = workflows(compliance_threshold=0.9, max_episodes_per_workflow=5)
    cut = batch([0.0, 0.0, 1.0, 1.0])
    cut.headers["ended"] = [False, False, True, True]
    one.learned(cut)
    training = one.finish()
    assert (training.ended, training.episodes, training.compliance) == ("compliance", 2, 1.0)


@pytest.mark.parametrize(("fixing", "ended"), [(4, ""), (5, ""), (6, "compliance")])
def test_update_is_not_compliant_if_most_of_its_episodes_never_fix(fixing: int, ended: str) -> None:
    one = workflows()
    one.learned(batch([1.0] * fixing + [NAN] * (10 - fixing)))
    assert math.isnan(one.compliance) == (not ended)
    assert one.finish().ended == ended


def test_compliance_that_there_is_none_of_is_no_gain() -> None:
    assert learn_until_over(workflows(patience=3), [NAN] * 9) == 3
    assert learn_until_over(workflows(patience=3), [0.5, NAN, NAN, NAN]) == 4
    assert learn_until_over(workflows(patience=3), [NAN, NAN, 0.1, NAN, NAN]) == 0, "the first known one is a gain"


def test_batches_under_way_when_it_ends_are_learned_and_change_nothing_about_the_end() -> None:
    one = workflows(compliance_threshold=0.9)
    one.learned(batch(0.9375, value=-100.0))
    one.learned(batch(0.2, value=-50.0))
    training = one.finish()
    assert (training.ended, training.complied) == ("compliance", True)
    assert (training.compliance, training.episodes, training.value) == (0.9375, 20, -75.0)
    assert one.search.failures.sum() == 0


@pytest.mark.parametrize("reason", ["budget", "interrupted"])
def test_training_that_is_cut_off_is_told_as_such(reason: str) -> None:
    one = workflows()
    one.learned(batch(0.5))
    assert one.finish(reason).ended == reason


def test_training_that_was_over_when_it_was_cut_off_keeps_its_reason() -> None:
    one = workflows()
    one.learned(batch(1.0))
    assert one.finish("budget").ended == "compliance"


def test_next_training_begins_anew() -> None:
    one = workflows(patience=2, compliance_threshold=0.9)
    assert learn_until_over(one, [0.8, 0.8, 0.8]) == 3
    one.finish()
    one.choose()
    assert (one.episodes, one.is_over) == (0, False)
    assert math.isnan(one.compliance)
    assert learn_until_over(one, [0.25, 0.25]) == 0
    training = one.finish("budget")
    assert (training.iteration, training.episodes, training.compliance) == (2, 20, 0.25)


# --------------------------------------------------------------------- planning


def test_nothing_is_planned_between_the_end_and_the_next_beginning() -> None:
    one = WorkflowSearch(SearchConfig(), seed=0)
    assert one.plan() is None, "no order is chosen yet"
    order = one.choose()
    assert one.plan() is None, "its policy is not published yet"
    one.begin()
    assert one.plan() == {"workflow": order}
    assert one.workflow == order_text(order)
    one.learned(batch(1.0))
    assert one.plan() is None
    one.finish()
    assert one.plan() is None
    following = one.choose()
    assert following != order
    assert one.plan() is None
    one.begin()
    assert one.plan() == {"workflow": following}


# --------------------------------------------------------- what the search learns


def test_value_is_the_mean_return_of_the_last_200_episodes_without_the_bonus() -> None:
    one = workflows(max_episodes_per_workflow=10**6)
    for value, bonus, episodes in ((-1000.0, 1.0, 150), (-80.0, 10.0, 100), (-20.0, 30.0, 100)):
        one.learned(batch(0.5, episodes, value, bonus))
    training = one.finish("budget")
    assert (training.value, training.alignment, training.episodes) == (-50.0, 20.0, 350)
    (observation,) = one.search.observations
    assert (observation.order, observation.value) == (one.order, -50.0)


def test_fewer_episodes_than_that_are_all_of_them() -> None:
    one = workflows()
    one.learned(batch(0.5, 30, -10.0))
    one.learned(batch(0.5, 10, -50.0))
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
    one = workflows(**settings)
    one.learned(batch(compliance))
    training = one.finish("budget")
    assert training.complied == complied
    assert one.order is not None
    assert one.search.failures[ORDER_INDEX[one.order]] == failures
    assert (one.search.rest > 0).sum() == failures


def test_training_without_an_episode_teaches_nothing() -> None:
    one = workflows()
    training = one.finish("stopped")
    assert not training.learned
    assert math.isnan(training.value)
    assert one.search.observations == []


def test_bound_is_that_of_the_choice() -> None:
    """The order was not out then, and its own return not known."""
    one = workflows(gp_beta=3.0)
    one.learned(batch(1.0, value=-50.0))
    first = one.finish()
    assert all(math.isnan(number) for number in (first.ucb, first.mean, first.std))
    believed = one.search.posterior()
    order = one.choose()
    one.learned(batch(1.0, value=-300.0))
    second = one.finish()
    assert second.workflow == order_text(order)
    assert second.mean == believed.mean[ORDER_INDEX[order]]
    assert second.std == believed.std[ORDER_INDEX[order]]
    assert second.ucb == pytest.approx(second.mean + 3 * second.std)


@pytest.mark.parametrize("search", SEARCHES)
def test_search_is_the_configured_one_and_its_seed_decides(search: str) -> None:
    def chosen(seed: int) -> list[str]:
        one = WorkflowSearch(SearchConfig(search=search), seed)  # type: ignore[arg-type]
        for _ in range(4):
            one.choose()
            one.learned(batch(1.0))
            one.finish()
        return [training.workflow for training in one.trainings]

    assert isinstance(WorkflowSearch(SearchConfig(search=search), 0).search, SEARCHES[search])  # type: ignore[arg-type]
    assert chosen(1) == chosen(1)
    assert (chosen(1) == chosen(2)) == (search == "round-robin")


# ------------------------------------------------------------------ inheritance


def trained(orders: Sequence[Order], monkeypatch: pytest.MonkeyPatch, **settings: Any) -> WorkflowSearch:
    """A search in which the last of ``orders`` is chosen and the others are trained."""
    monkeypatch.setitem(SEARCHES, "random", scripted(orders))
    one = workflows(search="random", **settings)
    for _ in orders[1:]:
        one.learned(batch(1.0))
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
    assert trained(orders, monkeypatch).parent() == parent


def test_latest_of_equally_near_orders_is_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    first: Order = ("enterprise", "defender", "op_server", "op_host", "user")
    second: Order = ("defender", "enterprise", "op_server", "user", "op_host")
    distances = kendall(ORDER_INDEX[A], [ORDER_INDEX[first], ORDER_INDEX[second]])
    assert distances.tolist() == [1, 1]
    assert trained([first, second, A], monkeypatch).parent() == second
    assert trained([second, first, A], monkeypatch).parent() == first
    assert trained([first, second, first, A], monkeypatch).parent() == first, "trained again, it is the latest"


@pytest.mark.parametrize("orders", [[A], [A, NEAR_A], [A, B, A]])
def test_nothing_is_inherited_with_inherit_none(orders: list[Order], monkeypatch: pytest.MonkeyPatch) -> None:
    assert trained(orders, monkeypatch, inherit="none").parent() is None


def test_trainings_are_numbered_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    one = trained([A, B, A, NAMED_ORDERS["balanced"]], monkeypatch)
    assert [(training.iteration, training.workflow) for training in one.trainings] == [
        (1, order_text(A)),
        (2, order_text(B)),
        (3, order_text(A)),
    ]
    assert one.trained_orders == [B, A]
    assert all(isinstance(training, Training) for training in one.trainings)

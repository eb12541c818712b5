"""What a search over workflows tells of itself while it goes on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from search_rounds import Rounds, judged

from aiotrain.cage2.search.settings import SearchConfig
from aiotrain.cage2.search.status import TrainingStatus, WorkflowStatus
from aiotrain.cage2.search.strategies import GpUcb
from aiotrain.cage2.search.workflow_search import WorkflowSearch
from aiotrain.cage2.workflows import order_text

NAN = math.nan


def train(rounds: Rounds, value: float, compliance: float) -> str:
    (order,) = rounds.choose()
    rounds.learn(judged(compliance, value=value))
    rounds.finish()
    return order_text(order)


def rounds(**settings: Any) -> Rounds:
    return Rounds(WorkflowSearch(SearchConfig(**({"parallel_workflows": 1} | settings)), 0, 4))


def told(one: Rounds) -> WorkflowStatus:
    status = one.search.status()
    assert status is not None, "nothing is told"
    return status


def test_before_the_first_order_there_is_nothing_to_tell() -> None:
    assert WorkflowSearch(SearchConfig(), 0, 4).status() is None


def test_the_training_now_is_told() -> None:
    one = rounds(compliance_threshold=0.8)
    (order,) = one.choose()
    assert told(one).threshold == 0.8
    (now,) = told(one).running
    assert (now.workflow, now.iteration, now.episodes) == (order_text(order), 1, 0)
    assert math.isnan(now.compliance)
    one.learn(judged(0.5, 4))
    one.learn(judged(0.75, 4))
    assert told(one).running == (TrainingStatus(order_text(order), 1, 8, 0.75),)
    assert (told(one).trainings, told(one).best) == (0, ())


def test_all_trainings_now_are_told_and_nothing_of_those_that_are_chosen_only() -> None:
    one = rounds(parallel_workflows=2, compliance_threshold=0.9)
    orders = one.choose()
    assert [each.workflow for each in told(one).running] == [order_text(order) for order in orders]
    for _ in range(2):
        one.learn(judged(1.0, 2), judged(0.5, 2))
    assert told(one).running == (TrainingStatus(order_text(orders[1]), 2, 4, 0.5),)
    assert told(one).complied == 0, "the search is not told yet"
    one.finish()
    one.search.choose()
    assert [each.iteration for each in told(one).running] == [2], "a third is chosen, but no policy is published"
    one.search.begin()
    assert [each.iteration for each in told(one).running] == [2, 3]
    assert (told(one).trainings, told(one).complied) == (1, 1)


def test_while_the_next_order_is_chosen_the_last_is_told() -> None:
    one = rounds()
    (order,) = one.choose()
    one.learn(judged(1.0, 4))
    assert told(one).running == (TrainingStatus(order_text(order), 1, 4, 1.0),)
    one.finish()
    one.search.choose()
    assert told(one).running == (TrainingStatus(order_text(order), 1, 4, 1.0),)
    assert told(one).trainings == 1


def test_the_best_orders_are_told_with_those_that_complied_first() -> None:
    one = rounds(patience=1)
    trained = {}
    for value, compliance in ((-20, NAN), (-90, 1.0), (-40, 1.0)):  # of no compliance, it ends at once
        trained[train(one, value, compliance)] = value
    (last,) = told(one).running
    assert (last.iteration, told(one).trainings, told(one).complied) == (3, 3, 2)
    best = told(one).best
    assert [trained[known.workflow] for known in best] == [-40, -90, -20]
    assert [known.complied for known in best] == [True, True, False]
    posterior = one.search.search.posterior()
    for known in best:
        assert min(abs(posterior.mean - known.mean)) < 1e-9
        assert 0 < known.std < np.std(list(trained.values())) * 2


def test_at_most_five_orders_are_told_and_the_latest_training_counts() -> None:
    one = rounds()
    for number in range(7):
        latest = train(one, -50.0 + number, 1.0)
    best = told(one).best
    assert len(best) == 5
    assert latest in {known.workflow for known in best}
    one.choose()
    (now,) = told(one).running
    assert (now.iteration, told(one).trainings, told(one).best) == (8, 7, best)


def test_the_posterior_is_fitted_once_for_each_training(monkeypatch: pytest.MonkeyPatch) -> None:
    from aiotrain.cage2.search import strategies as module

    fits = []
    fit = module._GaussianProcess
    monkeypatch.setattr(module, "_GaussianProcess", lambda *args: fits.append(args) or fit(*args))
    one = rounds()
    assert isinstance(one.search.search, GpUcb)
    for number in range(4):
        train(one, -50.0 + number, 1.0)
        for _ in range(10):
            one.search.status()
    one.choose()
    assert len(fits) == 4

"""What a search over workflows tells of itself while it goes on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aiotrain.cage2.workflows import order_text
from aiotrain.config import SearchConfig
from aiotrain.ring import Trajectories
from aiotrain.search import GpUcb
from aiotrain.workflow_search import WorkflowSearch
from making import spec_of, trajectories


def batch(value: float, compliance: float, episodes: int = 4) -> Trajectories:
    made = trajectories(spec_of(), [3] * episodes)
    made.headers["episode_return"] = value
    made.headers["compliance"] = compliance
    return made


def train(search: WorkflowSearch, value: float, compliance: float) -> str:
    order = order_text(search.choose())
    search.learned(batch(value, compliance))
    search.finish()
    return order


def test_before_the_first_order_there_is_nothing_to_tell() -> None:
    assert WorkflowSearch(SearchConfig(), 0).status() is None


def test_the_training_now_is_told() -> None:
    search = WorkflowSearch(SearchConfig(compliance_threshold=0.8), 0)
    order = order_text(search.choose())
    told = search.status()
    assert told is not None
    assert (told.workflow, told.iteration, told.episodes, told.threshold) == (order, 1, 0, 0.8)
    assert math.isnan(told.compliance)
    search.learned(batch(-50.0, 0.5))
    search.learned(batch(-50.0, 0.75))
    told = search.status()
    assert told is not None
    assert (told.episodes, told.compliance, told.trainings, told.best) == (8, 0.75, 0, ())


def test_the_best_orders_are_told_with_those_that_complied_first() -> None:
    search = WorkflowSearch(SearchConfig(), 0)
    trained = {train(search, value, compliance): value for value, compliance in ((-20, 0.5), (-90, 1.0), (-40, 1.0))}
    told = search.status()
    assert told is not None
    assert (told.iteration, told.trainings, told.complied) == (3, 3, 2)
    assert [trained[known.workflow] for known in told.best] == [-40, -90, -20]
    assert [known.complied for known in told.best] == [True, True, False]
    posterior = search.search.posterior()
    for known in told.best:
        assert min(abs(posterior.mean - known.mean)) < 1e-9
        assert 0 < known.std < np.std(list(trained.values())) * 2


def test_at_most_five_orders_are_told_and_the_latest_training_counts() -> None:
    search = WorkflowSearch(SearchConfig(), 0)
    for number in range(7):
        latest = train(search, -50.0 + number, 1.0)
    told = search.status()
    assert told is not None
    assert len(told.best) == 5
    assert latest in {known.workflow for known in told.best}
    search.choose()
    after = search.status()
    assert after is not None
    assert (after.iteration, after.trainings, after.best) == (8, 7, told.best)


def test_the_posterior_is_fitted_once_for_each_training(monkeypatch: pytest.MonkeyPatch) -> None:
    from aiotrain import search as module

    fits = []
    fit = module._gaussian_process
    monkeypatch.setattr(module, "_gaussian_process", lambda *args: fits.append(args) or fit(*args))
    search = WorkflowSearch(SearchConfig(), 0)
    assert isinstance(search.search, GpUcb)
    for number in range(4):
        train(search, -50.0 + number, 1.0)
        for _ in range(10):
            search.status()
    search.choose()
    assert len(fits) == 4

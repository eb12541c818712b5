"""Checkpoints of a search over workflows: it goes on as it would have, and what was forged is refused."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiotrain import CheckpointError, RunServices
from aiotrain.cage2 import SearchConfig
from aiotrain.cage2.search.workflow_curriculum import WorkflowCurriculum
from saved_run import VALUES, SavedRun, closing, forge, newest, put_anywhere, saved, try_to_resume

SEARCH = SearchConfig(parallel_workflows=1, inherit="nearest", max_episodes_per_workflow=3)


def search(run: RunServices) -> WorkflowCurriculum:
    """Each order is trained in one update."""
    return WorkflowCurriculum(run, SEARCH, 1, 3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search with checkpoints after updates 1 and 3."""
    return saved(tmp_path_factory.mktemp("whole") / "run", search)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def test_everything_is_there_again(tmp_path: Path) -> None:
    with closing(SavedRun(tmp_path / "run", make=search)) as run:
        run.learn(3)
        run.save()
        shutil.copytree(tmp_path / "run", tmp_path / "again")
        with closing(SavedRun(tmp_path / "again", tmp_path / "again", search)) as resumed:
            status, before = resumed.curriculum.status(), run.curriculum.status()
            assert str(status.running) == str(before.running)
            assert [each.mean for each in status.best] == [each.mean for each in before.best]
            resumed.assert_goes_on_as(run)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: state["policies"].clear(), "the policy of .* is missing"),
        (lambda state: state["policies"].update({"../../x": {}}), "does not fit"),
        (lambda state: state["running"].extend(state["running"]), "orders in training"),
        (lambda state: state["search"]["observations"][0].update(value=math.inf), "has no return"),
    ],
)
def test_states_that_do_not_fit_are_refused(
    change: Callable[[dict[str, Any]], None], reason: str, folder: Path
) -> None:
    forge(folder, lambda state: change(state["curriculum"]))
    with pytest.raises(CheckpointError, match=reason) as caught, closing(SavedRun(folder, folder, search)):
        pytest.fail("it was resumed")
    assert str(caught.value).startswith(str(newest(folder)))


@settings(max_examples=15)  # each ranks all orders anew
@given(st.integers(0, 10**6), VALUES)
def test_any_value_in_place_of_any_other(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, seed: int, value: Any
) -> None:
    folder = shutil.copytree(whole, tmp_path_factory.mktemp("changed") / "run")
    with contextlib.suppress(CheckpointError):
        forge(folder, lambda state: put_anywhere(state["curriculum"], value, Random(seed)))
    try_to_resume(folder, search)

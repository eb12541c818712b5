"""Searches that are interrupted and go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aiotrain.cage2 import Cage2, SearchConfig
from resuming import assert_all_learned_with_lag, assert_same_in_parts, events, rows

SEARCHED = {"total_episodes": 56, "episodes_per_update": 8, "max_episode_steps": None}
KINDS: dict[str, dict[str, Any]] = {
    "orders together": {
        **SEARCHED,
        "env": Cage2(search=SearchConfig(parallel_workflows=4, max_episodes_per_workflow=6)),
    },
    "each order from the nearest": {
        **SEARCHED,
        "env": Cage2(search=SearchConfig(parallel_workflows=1, inherit="nearest", max_episodes_per_workflow=8)),
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_search_is_the_same_to_the_bit_as_one_in_one_go(kind: str, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert_same_in_parts(KINDS[kind], whole, parts)
    assert (parts / "workflows.csv").read_bytes() == (whole / "workflows.csv").read_bytes()
    assert len(rows(parts, "workflows.csv")) >= 4
    chosen = [[e for e in events(each) if e["event"] == "workflow"] for each in (parts, whole)]
    assert [e["order"] for e in chosen[0]] == [e["order"] for e in chosen[1]]


@pytest.mark.parametrize("kind", KINDS)
def test_with_policy_lag_nothing_is_lost_or_counted_twice(kind: str, tmp_path: Path) -> None:
    assert_all_learned_with_lag(KINDS[kind], tmp_path / "run")

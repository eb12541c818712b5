"""Searches over orders in rounds of choosing, learning and finishing, without a trainer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from aiotrain.cage2.search.settings import SearchConfig
from aiotrain.cage2.search.workflow_search import WorkflowSearch
from aiotrain.cage2.workflows import Order
from making import Rounds, judged

NAN = math.nan
A: Order = ("defender", "enterprise", "op_server", "op_host", "user")
B: Order = ("user", "op_host", "op_server", "enterprise", "defender")
NEAR_A: Order = ("enterprise", "defender", "op_server", "op_host", "user")  # one pair exchanged
NEARER_B: Order = ("user", "op_host", "enterprise", "op_server", "defender")


def workflows(**settings: Any) -> Rounds:
    """A search whose first orders are being trained."""
    one = Rounds(WorkflowSearch(SearchConfig(**({"search": "round-robin", "parallel_workflows": 1} | settings)), 0, 10))
    one.choose()
    return one


def learn_until_over(one: Rounds, compliances: Sequence[float | Sequence[float]]) -> int:
    """The number of the update with which the training ended, 0 if it goes on."""
    for number, compliance in enumerate(compliances, 1):
        if one.learn(judged(compliance)):
            return number
    return 0


def compliance_of(one: Rounds) -> float:
    told = one.search.status()
    assert told is not None
    return told.running[0].compliance

"""Searches over orders in rounds of choosing, learning and finishing, without a trainer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from aiotrain.cage2.search.settings import SearchConfig
from aiotrain.cage2.search.strategies import Search
from aiotrain.cage2.search.workflow_search import Training, WorkflowSearch
from aiotrain.cage2.workflows import ORDER_INDEX, Order
from aiotrain.transport.slot_ring import Trajectories, header_dtype
from sample_data import spec_of, trajectories

NAN = math.nan
A: Order = ("defender", "enterprise", "op_server", "op_host", "user")
B: Order = ("user", "op_host", "op_server", "enterprise", "defender")
NEAR_A: Order = ("enterprise", "defender", "op_server", "op_host", "user")  # one pair exchanged
NEARER_B: Order = ("user", "op_host", "enterprise", "op_server", "defender")


def scripted(orders: Sequence[Order]) -> type[Search]:
    """A search that proposes ``orders`` one after the other."""

    class Scripted(Search):
        def _choose(self, candidates: npt.NDArray[np.int64], generator: np.random.Generator) -> int:
            return ORDER_INDEX[orders[self.proposals]]

    return Scripted


def judged(
    compliance: float | Sequence[float], episodes: int = 10, value: float = -100.0, bonus: float = 5.0
) -> Trajectories:
    """Episodes of an order, all of this compliance, or one of each."""
    each = [compliance] * episodes if isinstance(compliance, float) else list(compliance)
    made = trajectories(spec_of(), [2] * len(each), metrics=("compliance",))
    made.headers["compliance"] = each
    made.headers["episode_return"] = value
    made.headers["episode_bonus"] = bonus
    return made


class Rounds:
    """Opens the batches of a search and has it learn what was played of them, as a trainer does."""

    def __init__(self, search: WorkflowSearch) -> None:
        self.search = search
        self.opened = self.learned = 0
        self.over: list[Any] = []

    def choose(self) -> list[Order]:
        """Let as many orders begin as there are places for."""
        orders = self.search.choose()
        self.search.begin()
        return orders

    def open(self) -> list[Order] | None:
        """The orders of the next batch's parts; None if no batch is to be opened now."""
        options = self.search.plan(self.opened)
        if options is None:
            return None
        self.opened += 1
        assert all(option.keys() == {"workflow"} for option in options), f"options besides the order: {options}"
        return [option["workflow"] for option in options]

    def learn(self, *parts: Trajectories) -> list[Order]:
        """Learn the oldest batch, with what was played of each of its parts. The orders whose trainings are over."""
        if self.learned == self.opened:
            assert self.open() is not None, "no order is being trained, but there is something to learn"
        numbers = np.repeat(np.arange(len(parts)), [len(part.headers) for part in parts])
        first = 0
        for part in parts:  # joining sorts by episode
            part.headers["episode"] = first + np.arange(len(part.headers))
            first += len(part.headers)
        headers = Trajectories.join(parts).headers if parts else np.empty(0, header_dtype(("compliance",)))
        over = self.search.learned(self.learned, headers, numbers)
        self.learned += 1
        self.over += over
        return [running.order for running in over]

    def finish(self, reason: str = "") -> Training:
        """Finish the training that was over first, or cut off the one that goes on."""
        (training,) = self.search.finish([self.over.pop(0) if self.over else self.search.running[0]], reason)
        return training


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

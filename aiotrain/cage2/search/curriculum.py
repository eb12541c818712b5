"""The search over workflows as a curriculum: it tells each episode its order, and exchanges policies between orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aiotrain.cage2.search.settings import SearchConfig
from aiotrain.cage2.search.status import WorkflowStatus
from aiotrain.cage2.search.workflow_search import Running, WorkflowSearch
from aiotrain.cage2.workflows import Order, order_text, parse_order
from aiotrain.training.curriculum import Curriculum, RunServices

__all__ = ["TRAININGS", "WorkflowCurriculum", "weights_file"]

TRAININGS: Final = "workflows.csv"
"""File in the run's folder with a row for each training of an order that is over."""


def weights_file(order: Sequence[str]) -> str:
    """Return the name of the file with the policy that the last training of ``order`` left."""
    return f"weights-{'-'.join(order)}.safetensors"


class WorkflowCurriculum(Curriculum):
    """Carries out in the learner what a `WorkflowSearch` decides.

    The policy at the start is what the first order begins from, and with ``inherit`` none every order.
    """

    def __init__(self, run: RunServices, config: SearchConfig, seed: int, batch_episodes: int) -> None:
        super().__init__(run)
        self._inherit = config.inherit
        self._search = WorkflowSearch(config, seed, batch_episodes)
        self._first = run.learner.snapshot()
        self._kept: dict[Order, dict[str, Any]] = {}  # policies of orders, with inherit nearest
        self._over: list[Running] = []  # trainings whose batches are all learned, and that are not ended yet

    def plan(self, batch: int) -> list[dict[str, Any]] | None:
        """See Curriculum."""
        return self._search.plan(batch)

    def label(self, batch: int) -> str:
        """See Curriculum."""
        return ";".join(self._search.workflows(batch))

    def learned(self, batch: int, episodes: npt.NDArray[np.void], parts: npt.NDArray[np.int64]) -> None:
        """See Curriculum."""
        self._over = self._search.learned(batch, episodes, parts)

    def advance(self, *, has_more: bool) -> None:
        """See Curriculum. May take some tenths of a second of CPU."""
        over, self._over = self._over, []
        self._end(over)
        if not has_more:
            return
        for order in self._search.choose():
            parent = self._search.parent(order) if self._inherit == "nearest" else None
            if self._inherit != "latest":
                self.run.learner.go_back_to(self._first if parent is None else self._kept[parent])
            told = None if parent is None else order_text(parent)
            self.run.event("workflow", order=order_text(order), parent=told)

    def published(self) -> None:
        """See Curriculum."""
        self._search.begin()

    def end(self, reason: str) -> None:
        """See Curriculum."""
        self._end([running for running in self._search.running if running.episodes], reason)

    def _end(self, over: Sequence[Running], reason: str = "") -> None:
        """Tell the search what came of trainings, and keep their policies."""
        for running, training in zip(over, self._search.finish(over, reason), strict=True):
            if self._inherit == "nearest":
                self._kept[running.order] = self.run.learner.snapshot()
            self.run.row(TRAININGS, training._asdict())
            self.run.save_policy(weights_file(running.order))

    def status(self) -> WorkflowStatus | None:
        """See Curriculum."""
        return self._search.status()

    def state_dict(self) -> dict[str, Any]:
        """Return the search and the policies that were kept. The first one comes from the seed."""
        kept = {order_text(order): state for order, state in self._kept.items()}
        return {**self._search.state_dict(), "policies": kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See Curriculum."""
        self._search.load_state_dict(state)
        self._kept = {parse_order(text): policy for text, policy in state["policies"].items()}
        for policy in self._kept.values():  # each must be one that the learner can go back to
            self.run.learner.go_back_to(policy)
        if self._inherit == "nearest":
            missing = {parse_order(each.workflow) for each in self._search.trainings} - self._kept.keys()
            if missing:
                raise ValueError(f"the policy of {order_text(missing.pop())} is missing")

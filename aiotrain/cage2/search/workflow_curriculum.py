"""The workflow search as a curriculum: it gives each episode its order, and exchanges policies between orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aiotrain.cage2.search.inner_loop import InnerLoop
from aiotrain.cage2.search.settings import SearchConfig
from aiotrain.cage2.search.status import WorkflowStatus
from aiotrain.cage2.search.workflow_search import WorkflowSearch
from aiotrain.cage2.workflows import Order, order_text, parse_order
from aiotrain.training.curriculum import Curriculum, RunServices

__all__ = ["TRAININGS", "WorkflowCurriculum", "weights_file"]

TRAININGS: Final = "workflows.csv"
"""Name of the file in the run's folder with a row for each finished training."""


def weights_file(order: Sequence[str]) -> str:
    """Return the name of the file with the policy at the end of the last training of ``order``."""
    return f"weights-{'-'.join(order)}.safetensors"


class WorkflowCurriculum(Curriculum):
    """Applies the decisions of a `WorkflowSearch` to the learner.

    The first order begins from the initial policy; with ``inherit`` none, every order does.
    """

    def __init__(self, run: RunServices, config: SearchConfig, seed: int, batch_episodes: int) -> None:
        super().__init__(run)
        self._inherit = config.inherit
        self._search = WorkflowSearch(config, seed, batch_episodes)
        self._first = run.learner.snapshot()
        self._kept: dict[Order, dict[str, Any]] = {}  # the policies of orders, with inherit nearest
        self._over: list[InnerLoop] = []  # trainings that ended and have all batches learned, but are not finished

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
        """See Curriculum. Takes up to some tenths of a second of CPU."""
        over, self._over = self._over, []
        self._finish(over)
        if not has_more:
            return
        for order in self._search.choose():
            parent = self._search.parent(order) if self._inherit == "nearest" else None
            if self._inherit != "latest":
                self.run.learner.go_back_to(self._first if parent is None else self._kept[parent])
            self.run.event("workflow", order=order_text(order), parent=None if parent is None else order_text(parent))

    def published(self) -> None:
        """See Curriculum."""
        self._search.begin()

    def end(self, reason: str) -> None:
        """See Curriculum."""
        self._finish([running for running in self._search.running if running.episodes], reason)

    def _finish(self, over: Sequence[InnerLoop], reason: str = "") -> None:
        """Finish trainings: record them, and save their policies."""
        for running, training in zip(over, self._search.finish(over, reason), strict=True):
            if self._inherit == "nearest":
                self._kept[running.order] = self.run.learner.snapshot()
            self.run.row(TRAININGS, training._asdict())
            self.run.save_policy(weights_file(running.order))

    def status(self) -> WorkflowStatus | None:
        """See Curriculum."""
        return self._search.status()

    def state_dict(self) -> dict[str, Any]:
        """Return the search and the kept policies. The initial policy is left out: the seed determines it."""
        kept = {order_text(order): state for order, state in self._kept.items()}
        return {**self._search.state_dict(), "policies": kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See Curriculum."""
        self._search.load_state_dict(state)
        self._kept = {parse_order(text): policy for text, policy in dict(state["policies"]).items()}
        for policy in self._kept.values():  # raises an error if the learner cannot take it
            self.run.learner.go_back_to(policy)
        if self._inherit == "nearest":
            missing = {parse_order(each.workflow) for each in self._search.trainings} - self._kept.keys()
            if missing:
                raise ValueError(f"the policy of {order_text(missing.pop())} is missing")

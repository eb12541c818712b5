"""Which policy each order of a workflow search begins from, and which one it leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiotrain.cage2.search.workflow_search import Running, Training, WorkflowSearch
from aiotrain.cage2.workflows import Order, order_text, parse_order
from aiotrain.config import SearchConfig

if TYPE_CHECKING:  # torch takes seconds to import
    from aiotrain.learn.ppo import Learner

__all__ = ["WorkflowPolicies"]


class WorkflowPolicies:
    """Carries out in ``learner`` what ``search`` decides.

    To be made before the learner learns anything: its policy is what the first order begins from, and with ``inherit``
    none every order. ``chosen`` is told each order and the one whose policy it begins from, if any; ``ended`` each
    training that is over, while its policy is the learner's. The methods may take some tenths of a second of CPU.
    """

    def __init__(
        self,
        config: SearchConfig,
        search: WorkflowSearch,
        learner: Learner,
        *,
        chosen: Callable[[Order, Order | None], None],
        ended: Callable[[Training], None],
    ) -> None:
        self._inherit = config.inherit
        self._search, self._learner = search, learner
        self._chosen, self._ended = chosen, ended
        self._first = learner.state()
        self._kept: dict[Order, dict[str, Any]] = {}

    def choose(self) -> None:
        """Choose the next orders, and have the policy that they begin from."""
        for order in self._search.choose():
            parent = self._search.parent(order) if self._inherit == "nearest" else None
            if self._inherit != "latest":
                self._learner.load(self._first if parent is None else self._kept[parent])
            self._chosen(order, parent)

    def end(self, over: Sequence[Running], reason: str = "") -> None:
        """Tell the search what came of trainings, and keep the policies."""
        for running, training in zip(over, self._search.finish(over, reason), strict=True):
            if self._inherit == "nearest":
                self._kept[running.order] = self._learner.state()
            self._ended(training)

    def state_dict(self) -> dict[str, Any]:
        """The search and the policies that were kept, for `load_state_dict`. The first one comes from the seed."""
        kept = {order_text(order): state for order, state in self._kept.items()}
        return {**self._search.state_dict(), "policies": kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave. Raises KeyError, RuntimeError, TypeError or ValueError."""
        self._search.load_state_dict(state)
        self._kept = {parse_order(text): policy for text, policy in state["policies"].items()}
        for policy in self._kept.values():  # each must be one that the learner can go back to
            self._learner.load(policy)
        if self._inherit == "nearest":
            missing = {parse_order(each.workflow) for each in self._search.trainings} - self._kept.keys()
            if missing:
                raise ValueError(f"the policy of {order_text(missing.pop())} is missing")

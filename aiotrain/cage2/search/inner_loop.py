"""Inner loop of the workflow search: training the policy on one order, and judging when that is enough."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from aiotrain.cage2.search.settings import SearchConfig
from aiotrain.cage2.workflows import Order, order_text, parse_order
from aiotrain.runs.checkpoints import natural

__all__ = ["InnerLoop", "Training"]

_VALUE_EPISODES: Final = 200
"""The search learns the mean environment return of the last so many episodes of a training."""
_GAIN: Final = 0.01
"""Smallest increase of compliance that counts as a gain."""
_SERIES: Final = ("returns", "bonuses", "unjudged")
"""Fields of `InnerLoop` that hold a number for each episode."""


class Training(NamedTuple):
    """A finished training of an order: a row of workflows.csv."""

    iteration: int
    workflow: str
    ucb: float
    """Upper confidence bound, posterior mean and deviation of the order's return when it was chosen; NaN at first."""
    mean: float
    std: float
    value: float
    """Mean environment return of the last episodes, which the search learned."""
    alignment: float
    """Mean alignment bonus of the same episodes."""
    compliance: float
    """Mean compliance at the last judgement, over as many episodes as an update has; NaN if most fixed nothing."""
    episodes: int
    ended: str
    """Reason of the end: compliance, plateau, episodes or budget; stopped, interrupted or failed with the run."""
    complied: bool
    learned: bool
    """Whether the search learned its value. It does not if the training was cut off."""


@dataclass(eq=False)
class InnerLoop:
    """A training that is under way."""

    iteration: int
    order: Order
    ucb: float
    mean: float
    std: float
    episodes: int = 0
    compliance: float = math.nan
    ended: str = ""
    """Reason of the end, once there is one. Batches under way are still learned."""
    returns: deque[float] = field(default_factory=lambda: deque(maxlen=_VALUE_EPISODES))
    bonuses: deque[float] = field(default_factory=lambda: deque(maxlen=_VALUE_EPISODES))
    unjudged: list[float] = field(default_factory=list)
    """Compliances of the episodes since the last judgement."""
    best_compliance: float = -math.inf
    stale: int = 0
    """Judgements in a row without a gain."""

    def learned(self, headers: npt.NDArray[np.void], config: SearchConfig, batch_episodes: int) -> None:
        """Count this order's episodes of an update, and judge the training after every ``batch_episodes``."""
        self.episodes += len(headers)
        self.returns.extend(headers["episode_return"].tolist())
        self.bonuses.extend(headers["episode_bonus"].tolist())
        if self.ended:  # batches that were under way at the end decide nothing
            return
        self.unjudged += headers["compliance"].tolist()
        if len(self.unjudged) >= batch_episodes:
            self.compliance = _mean_compliance(np.array(self.unjudged))
            self.unjudged = []
            if config.fixed_episodes is None:
                self.ended = self._judge(config)
        limit = config.max_episodes_per_workflow if config.fixed_episodes is None else config.fixed_episodes
        if not self.ended and self.episodes >= limit:
            self.ended = "episodes"

    def _judge(self, config: SearchConfig) -> str:
        """Return why the training ends by its compliance; empty if it goes on."""
        if self.compliance >= config.compliance_threshold:
            return "compliance"
        if self.compliance > self.best_compliance + _GAIN:
            self.best_compliance, self.stale = self.compliance, 0
        else:
            self.stale += 1
        return "plateau" if self.stale >= config.patience else ""

    def finished(self, threshold: float, reason: str) -> Training:
        """Return the finished training. ``reason``: why it is cut off, if it has not ended by itself."""
        value = float(np.mean(self.returns)) if self.returns else math.nan
        return Training(
            self.iteration,
            order_text(self.order),
            self.ucb,
            self.mean,
            self.std,
            value,
            float(np.mean(self.bonuses)) if self.bonuses else math.nan,
            self.compliance,
            self.episodes,
            self.ended or reason,
            complied=self.compliance >= threshold,
            learned=bool(self.ended) and math.isfinite(value),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the training as plain data for JSON, for `of`."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        return plain | {"order": order_text(self.order), **{name: list(plain[name]) for name in _SERIES}}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> InnerLoop:
        """Return the training that `state_dict` described. Raises KeyError, TypeError or ValueError."""
        kinds: dict[str, Callable[[Any], Any]] = {
            "iteration": natural,
            "episodes": natural,
            "stale": natural,
            "order": parse_order,
            "ended": str,
        }
        names = [each.name for each in fields(cls) if each.name not in _SERIES]
        made = cls(**{name: kinds.get(name, float)(state[name]) for name in names})
        for name in _SERIES:
            getattr(made, name).extend(float(value) for value in state[name])
        return made


def _mean_compliance(compliance: npt.NDArray[np.float64]) -> float:
    """Return the mean over the episodes with a compliance; NaN if most have none, because they fixed nothing."""
    known = compliance[~np.isnan(compliance)]
    return float(known.mean()) if 2 * len(known) > len(compliance) else math.nan

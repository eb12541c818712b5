"""Workflow search: which order is trained now, when its training ends, and what the search learns from it.

The outer loop asks a `Search` for an order. The inner loop trains the policy on that order until it complies, stops
getting better, or has had its episodes. Then no batch is begun until those under way are learned, the search is told
the mean return of the last episodes, and the next order begins from the nearest policy there is.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from aiotrain.cage2.workflows import ORDER_INDEX, Order, kendall, order_text
from aiotrain.config import SearchConfig
from aiotrain.ring import Trajectories
from aiotrain.search import SEARCHES
from aiotrain.status import OrderEstimate, WorkflowStatus

__all__ = ["Training", "WorkflowSearch"]

_VALUE_EPISODES: Final = 200
"""Last episodes of a training whose mean environment return the search learns."""
_GAIN: Final = 0.01
"""Of compliance: less is no progress."""
_TOLD: Final = 5
"""Orders that `WorkflowSearch.status` tells."""


class Training(NamedTuple):
    """A finished training of an order, as the files and the console tell it."""

    iteration: int
    workflow: str
    ucb: float
    """Upper confidence bound, posterior mean and deviation of the order's return when it was chosen; NaN at first."""
    mean: float
    std: float
    value: float
    """Mean environment return of its last episodes: what the search learned."""
    alignment: float
    """Mean alignment bonus of the same episodes."""
    compliance: float
    """Mean compliance of the episodes of the update that ended it, NaN if most of them fixed nothing."""
    episodes: int
    ended: str
    """Why: compliance, plateau, episodes, or budget; stopped, interrupted or failed if the run was."""
    complied: bool
    learned: bool
    """Whether the search was told."""


class WorkflowSearch:
    """Plans batches: each is played under one order, given as the option ``workflow`` of the environment's reset."""

    def __init__(self, config: SearchConfig, seed: int) -> None:
        self._config = config
        self.search = SEARCHES[config.search](seed, beta=config.gp_beta)
        self.trainings: list[Training] = []
        self.order: Order | None = None
        self.episodes = 0
        """Learned in the present training."""
        self._ended = ""  # why the present training is over, once it is
        self._begun = False
        self.compliance = math.nan
        """Of the last update that could end the present training, see `Training`."""
        self.trained_orders: list[Order] = []
        """Those that have a policy of their own, the latest last."""
        self._iteration = 0
        self._best: tuple[OrderEstimate, ...] = ()

    # -------------------------------------------------------------- outer loop

    def choose(self) -> Order:
        """Choose the order to train next, see `begin`. May take some tenths of a second of CPU."""
        posterior = self.search.posterior()  # before the order is out, which makes its deviation smaller
        self.order = self.search.propose()
        self._iteration = len(self.trainings) + 1
        index = ORDER_INDEX[self.order]
        self._chosen = float(posterior.ucb[index]), float(posterior.mean[index]), float(posterior.std[index])
        self._ended, self._begun = "", False
        self.episodes = self._stale_updates = 0
        self._best_compliance = -math.inf
        self.compliance = math.nan
        self._returns: deque[float] = deque(maxlen=_VALUE_EPISODES)
        self._bonuses: deque[float] = deque(maxlen=_VALUE_EPISODES)
        return self.order

    def parent(self) -> Order | None:
        """The trained order whose policy the present one goes on from: itself, or the nearest; None for a new one."""
        if self._config.inherit == "none" or not self.trained_orders:
            return None
        assert self.order is not None
        distances = kendall(
            ORDER_INDEX[self.order], np.array([ORDER_INDEX[order] for order in reversed(self.trained_orders)])
        )
        return list(reversed(self.trained_orders))[int(distances.argmin())]

    def begin(self) -> None:
        """Let the chosen order be played from now on: the policy that is to play it is published."""
        self._begun = True

    def finish(self, reason: str = "") -> Training:
        """End the present training, whose batches are all learned, and tell the search. ``reason`` if it is cut off."""
        assert self.order is not None
        ended = self._ended or reason
        value = float(np.mean(self._returns)) if self._returns else math.nan
        complied = self.compliance >= self._config.compliance_threshold
        learned = math.isfinite(value)
        if learned:
            self.search.observe(self.order, value, complied or self._config.fixed_episodes is not None)
        if self.order in self.trained_orders:
            self.trained_orders.remove(self.order)
        self.trained_orders.append(self.order)
        training = Training(
            self._iteration,
            order_text(self.order),
            *self._chosen,
            value,
            float(np.mean(self._bonuses)) if self._bonuses else math.nan,
            self.compliance,
            self.episodes,
            ended,
            complied,
            learned,
        )
        self.trainings.append(training)
        if learned:
            self._best = self._estimates()  # here, where there is time, and not for every redraw of a console
        return training

    def _estimates(self) -> tuple[OrderEstimate, ...]:
        posterior = self.search.posterior()
        complied = {training.workflow: training.complied for training in self.trainings}
        return tuple(
            OrderEstimate(
                order_text(order),
                float(posterior.mean[ORDER_INDEX[order]]),
                float(posterior.std[ORDER_INDEX[order]]),
                complied[order_text(order)],
            )
            for order in self.search.ranking()[:_TOLD]
        )

    def status(self) -> WorkflowStatus | None:
        """The search at this moment, for a console; None before the first order is chosen. May be called meanwhile."""
        if self.order is None:
            return None
        return WorkflowStatus(
            workflow=self.workflow,
            iteration=self._iteration,
            episodes=self.episodes,
            compliance=self.compliance,
            threshold=self._config.compliance_threshold,
            trainings=len(self.trainings),
            complied=sum(training.complied for training in self.trainings),
            best=self._best,
        )

    # -------------------------------------------------------------- inner loop

    def plan(self) -> dict[str, Any] | None:
        """The reset options of a batch that is begun now; None if there is to be none before the next order."""
        return {"workflow": self.order} if self._begun and not self._ended else None

    @property
    def workflow(self) -> str:
        """The present order in words."""
        return "" if self.order is None else order_text(self.order)

    @property
    def is_over(self) -> bool:
        """Whether the present training has ended, but for the batches under way."""
        return bool(self._ended)

    def learned(self, batch: Trajectories) -> None:
        """Take in what an update learned from, and decide whether the training goes on."""
        ended = batch.headers[batch.headers["ended"]]
        self.episodes += len(ended)
        self._returns.extend(ended["episode_return"].tolist())
        self._bonuses.extend(ended["episode_bonus"].tolist())
        if not self._ended:  # batches that were under way then decide nothing any more
            self.compliance = _mean_compliance(ended["compliance"])
            self._ended = self._reason_to_end()

    def _reason_to_end(self) -> str:
        config = self._config
        if config.fixed_episodes is not None:
            return "episodes" if self.episodes >= config.fixed_episodes else ""
        if self.compliance >= config.compliance_threshold:
            return "compliance"
        if self.compliance > self._best_compliance + _GAIN:
            self._best_compliance = self.compliance
            self._stale_updates = 0
        else:
            self._stale_updates += 1
        if self._stale_updates >= config.patience:
            return "plateau"
        return "episodes" if self.episodes >= config.max_episodes_per_workflow else ""


def _mean_compliance(compliance: npt.NDArray[np.float64]) -> float:
    """Mean over the episodes that have a compliance; NaN if most of them have none, because they never fixed."""
    known = compliance[~np.isnan(compliance)]
    return float(known.mean()) if 2 * len(known) > len(compliance) else math.nan

"""Workflow search: which orders are trained now, when a training ends, and what the search learns from it.

The outer loop asks a `Search` for an order, or for several, which then share every batch. The inner loop trains the
policy on an order until it complies, stops getting better, or has had its episodes. Then no further batch has a part
for it; once those under way are learned, the search is told the mean return of its last episodes, and the next order
takes its place.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple, get_type_hints

import numpy as np
import numpy.typing as npt

from aiotrain.cage2.search.settings import SearchConfig
from aiotrain.cage2.search.status import OrderEstimate, TrainingStatus, WorkflowStatus
from aiotrain.cage2.search.strategies import SEARCHES
from aiotrain.cage2.workflows import ORDER_INDEX, Order, kendall, order_text, parse_order
from aiotrain.runs.checkpoints import natural

__all__ = ["Running", "Training", "WorkflowSearch"]

_VALUE_EPISODES: Final = 200
"""Last episodes of a training whose mean environment return the search learns."""
_GAIN: Final = 0.01
"""Of compliance: less is no progress."""
_TOLD: Final = 5
"""Orders that `WorkflowSearch.status` tells."""
_SERIES: Final = ("returns", "bonuses", "unjudged")
"""Fields of `Running` that hold a number for each episode."""


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
    """Mean compliance of as many episodes as an update has, when it was judged last; NaN if most fixed nothing."""
    episodes: int
    ended: str
    """Why: compliance, plateau, episodes, or budget; stopped, interrupted or failed if the run was."""
    complied: bool
    learned: bool
    """Whether the search was told, which it is not of a training that was cut off."""


@dataclass(eq=False)
class Running:
    """A training that is under way."""

    iteration: int
    order: Order
    ucb: float
    mean: float
    std: float
    episodes: int = 0
    compliance: float = math.nan
    ended: str = ""
    """Why it is over, once it is; batches under way are still learned."""
    returns: deque[float] = field(default_factory=lambda: deque(maxlen=_VALUE_EPISODES))
    bonuses: deque[float] = field(default_factory=lambda: deque(maxlen=_VALUE_EPISODES))
    unjudged: list[float] = field(default_factory=list)
    """Compliances of the episodes since it was judged last."""
    best_compliance: float = -math.inf
    stale: int = 0
    """Judgements in a row without a gain."""


class WorkflowSearch:
    """Plans batches: each has a part for every order in training, given as the reset option ``workflow``.

    No more orders are trained together than ``batch_episodes``.
    """

    def __init__(self, config: SearchConfig, seed: int, batch_episodes: int) -> None:
        self._config = config
        self._batch_episodes = batch_episodes
        self._places = min(config.parallel_workflows, batch_episodes)
        self.search = SEARCHES[config.search](seed, beta=config.gp_beta)
        self.trainings: list[Training] = []
        """Those that are finished, in the order in which they were."""
        self.running: list[Running] = []
        """Those that are not; also when they are over and batches are still under way."""
        self._chosen: list[Running] = []  # not begun yet
        self._planned: dict[int, list[Running]] = {}  # the parts of each batch that is not learned yet
        self._last: list[Running] = []
        self._best: tuple[OrderEstimate, ...] = ()
        self._choices = 0

    # -------------------------------------------------------------- outer loop

    def choose(self) -> list[Order]:
        """Choose an order for each free place, see `begin`. May take some tenths of a second of CPU for each."""
        chosen = []
        for _ in range(self.free_places):
            posterior = self.search.posterior()  # before the order is out, which makes its deviation smaller
            order = self.search.propose()
            index = ORDER_INDEX[order]
            self._choices += 1
            bound, mean, std = (float(each[index]) for each in (posterior.ucb, posterior.mean, posterior.std))
            chosen.append(Running(self._choices, order, bound, mean, std))
        self._chosen += chosen
        return [running.order for running in chosen]

    @property
    def free_places(self) -> int:
        """How many orders could be trained besides those that are."""
        return self._places - len(self.running) - len(self._chosen)

    def begin(self) -> None:
        """Let the chosen orders be played from now on: the policy that is to play them is published."""
        self.running += self._chosen
        self._chosen = []

    def parent(self, order: Order) -> Order | None:
        """The order whose policy ``order`` goes on from: itself or the nearest trained one, the latest of equals."""
        trained = list(dict.fromkeys(parse_order(training.workflow) for training in reversed(self.trainings)))
        if not trained:
            return None
        distances = kendall(ORDER_INDEX[order], np.array([ORDER_INDEX[each] for each in trained]))
        return trained[int(distances.argmin())]

    def finish(self, over: Sequence[Running], reason: str = "") -> list[Training]:
        """Tell the search what came of trainings whose batches are all learned. ``reason`` if some are cut off."""
        finished = [self._finish(running, reason) for running in over]
        if any(training.learned for training in finished):
            self._best = self._estimates()  # here, where there is time, and not for every redraw of a console
        return finished

    def _finish(self, running: Running, reason: str) -> Training:
        value = float(np.mean(running.returns)) if running.returns else math.nan
        complied = running.compliance >= self._config.compliance_threshold
        learned = bool(running.ended) and math.isfinite(value)
        if learned:
            self.search.observe(running.order, value, complied or self._config.fixed_episodes is not None)
        training = Training(
            running.iteration,
            order_text(running.order),
            running.ucb,
            running.mean,
            running.std,
            value,
            float(np.mean(running.bonuses)) if running.bonuses else math.nan,
            running.compliance,
            running.episodes,
            running.ended or reason,
            complied,
            learned,
        )
        self.trainings.append(training)
        return training

    def _estimates(self) -> tuple[OrderEstimate, ...]:
        posterior = self.search.posterior()
        complied = {training.workflow: training.complied for training in self.trainings if training.learned}
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
        """The search at this moment, for a console; None before anything is in training. May be called meanwhile."""
        shown = self.running or self._last
        if not shown:
            return None
        return WorkflowStatus(
            running=tuple(
                TrainingStatus(order_text(each.order), each.iteration, each.episodes, each.compliance) for each in shown
            ),
            threshold=self._config.compliance_threshold,
            trainings=sum(training.learned for training in self.trainings),
            complied=sum(training.learned and training.complied for training in self.trainings),
            best=self._best,
        )

    # -------------------------------------------------------------- inner loop

    def plan(self, batch: int) -> list[dict[str, Any]] | None:
        """The reset options of the parts of a batch that is opened now; None if there is to be none for the moment."""
        trained = self._planned.get(batch) or [running for running in self.running if not running.ended]
        if not trained:
            return None
        self._planned[batch] = trained  # where it was resumed, that may be so already
        return [{"workflow": running.order} for running in trained]

    def workflows(self, batch: int) -> list[str]:
        """The orders of a batch that is not learned yet, in words."""
        return [order_text(running.order) for running in self._planned[batch]]

    def learned(self, batch: int, episodes: npt.NDArray[np.void], parts: npt.NDArray[np.int64]) -> list[Running]:
        """Take in what an update learned from, as of Curriculum. Return the trainings that are over, to `finish`."""
        for part, running in enumerate(self._planned.pop(batch)):
            self._take(running, episodes[parts == part])
        under_way = {running for others in self._planned.values() for running in others}
        over = [running for running in self.running if running.ended and running not in under_way]
        if over:
            self._last = self.running
            self.running = [running for running in self.running if running not in over]
        return over

    def _take(self, running: Running, headers: npt.NDArray[np.void]) -> None:
        """Count a training's episodes of an update, and judge it once there are as many as an update has."""
        running.episodes += len(headers)
        running.returns.extend(headers["episode_return"].tolist())
        running.bonuses.extend(headers["episode_bonus"].tolist())
        if running.ended:  # batches that were under way then decide nothing any more
            return
        config = self._config
        running.unjudged += headers["compliance"].tolist()
        if len(running.unjudged) >= self._batch_episodes:
            running.compliance = _mean_compliance(np.array(running.unjudged))
            running.unjudged = []
            if config.fixed_episodes is None:
                running.ended = self._judge(running)
        limit = config.max_episodes_per_workflow if config.fixed_episodes is None else config.fixed_episodes
        if not running.ended and running.episodes >= limit:
            running.ended = "episodes"

    def _judge(self, running: Running) -> str:
        """Why the training is over by its compliance, if it is."""
        config = self._config
        if running.compliance >= config.compliance_threshold:
            return "compliance"
        if running.compliance > running.best_compliance + _GAIN:
            running.best_compliance, running.stale = running.compliance, 0
        else:
            running.stale += 1
        return "plateau" if running.stale >= config.patience else ""

    # ------------------------------------------------------------- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """History, trainings and plans as plain data for JSON, for `load_state_dict`."""
        return {
            "search": self.search.state_dict(),
            "choices": self._choices,
            "trainings": [training._asdict() for training in self.trainings],
            "running": [_plain(running) for running in self.running],
            "chosen": [_plain(running) for running in self._chosen],
            "planned": [[batch, [each.iteration for each in parts]] for batch, parts in self._planned.items()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave. Raises KeyError, TypeError or ValueError.

        Batches that were planned have the same parts when they are opened again. May take some tenths of a second.
        """
        self.search.load_state_dict(state["search"])
        self._choices = natural(state["choices"])
        kinds = get_type_hints(Training)
        self.trainings = [Training(**{name: kinds[name](row[name]) for name in kinds}) for row in state["trainings"]]
        for training in self.trainings:
            parse_order(training.workflow)
        self.running = [_running(plain) for plain in state["running"]]
        self._chosen = [_running(plain) for plain in state["chosen"]]
        if self.free_places < 0:
            raise ValueError(f"{self._places - self.free_places} orders in training, where there are {self._places}")
        by_iteration = {running.iteration: running for running in self.running}
        self._planned = {natural(batch): [by_iteration[each] for each in parts] for batch, parts in state["planned"]}
        if any(training.learned for training in self.trainings):
            self._best = self._estimates()


def _plain(running: Running) -> dict[str, Any]:
    """A training that is under way, as plain data for JSON."""
    plain = {each.name: getattr(running, each.name) for each in fields(running)}
    return plain | {"order": order_text(running.order), **{name: list(plain[name]) for name in _SERIES}}


def _running(plain: Mapping[str, Any]) -> Running:
    """The opposite of `_plain`."""
    kinds: dict[str, Callable[[Any], Any]] = {
        "iteration": natural,
        "episodes": natural,
        "stale": natural,
        "order": parse_order,
        "ended": str,
    }
    running = Running(
        **{
            each.name: kinds.get(each.name, float)(plain[each.name])
            for each in fields(Running)
            if each.name not in _SERIES
        }
    )
    for name in _SERIES:
        getattr(running, name).extend(float(value) for value in plain[name])
    return running


def _mean_compliance(compliance: npt.NDArray[np.float64]) -> float:
    """Mean over the episodes that have a compliance; NaN if most of them have none, because they never fixed."""
    known = compliance[~np.isnan(compliance)]
    return float(known.mean()) if 2 * len(known) > len(compliance) else math.nan

"""Outer loop of the workflow search: which orders are trained now, and what the search learns from each training.

The outer loop asks a `Search` for an order, or for several, which then share every batch. An inner loop trains the
policy on each of them. After its end, further batches have no part for its order. Once the batches under way are
learned, the search learns the mean return of its last episodes, and the next order takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, get_type_hints

import numpy as np
import numpy.typing as npt

from aiotrain.cage2.search.inner_loop import InnerLoop, Training
from aiotrain.cage2.search.settings import SearchConfig
from aiotrain.cage2.search.status import OrderEstimate, TrainingStatus, WorkflowStatus
from aiotrain.cage2.search.strategies import SEARCHES
from aiotrain.cage2.workflows import ORDER_INDEX, Order, kendall, order_text, parse_order
from aiotrain.runs.checkpoints import natural

__all__ = ["WorkflowSearch"]

_BEST_SHOWN: Final = 5
"""Orders that the status lists as the best."""


class WorkflowSearch:
    """Plans batches with a part for each order in training. The part's reset option is ``workflow``.

    At most ``batch_episodes`` orders are trained together.
    """

    def __init__(self, config: SearchConfig, seed: int, batch_episodes: int) -> None:
        self._config = config
        self._batch_episodes = batch_episodes
        self._places = min(config.parallel_workflows, batch_episodes)
        self.search = SEARCHES[config.search](seed, beta=config.gp_beta)
        self.trainings: list[Training] = []
        """The finished trainings, in the order in which they finished."""
        self.running: list[InnerLoop] = []
        """The trainings that are not finished. Some may have ended while batches are still under way."""
        self._chosen: list[InnerLoop] = []  # not begun yet
        self._planned: dict[int, list[InnerLoop]] = {}  # the parts of each batch that is not learned yet
        self._last: list[InnerLoop] = []
        self._best: tuple[OrderEstimate, ...] = ()
        self._choices = 0

    # ------------------------------------------------------- choosing and ending

    def choose(self) -> list[Order]:
        """Choose an order for each free place; see `begin`. Each may take some tenths of a second of CPU."""
        chosen = []
        for _ in range(self.free_places):
            posterior = self.search.posterior()  # before the proposal, which makes the order's deviation smaller
            order = self.search.propose()
            index = ORDER_INDEX[order]
            self._choices += 1
            bound, mean, std = (float(each[index]) for each in (posterior.ucb, posterior.mean, posterior.std))
            chosen.append(InnerLoop(self._choices, order, bound, mean, std))
        self._chosen += chosen
        return [running.order for running in chosen]

    @property
    def free_places(self) -> int:
        """Number of orders that could be trained in addition."""
        return self._places - len(self.running) - len(self._chosen)

    def begin(self) -> None:
        """Plan batches with the chosen orders from now on, because the policy that plays them is published."""
        self.running += self._chosen
        self._chosen = []

    def parent(self, order: Order) -> Order | None:
        """Return the trained order that is nearest to ``order``, or ``order`` itself; of equals the latest.

        None if no order was trained yet.
        """
        trained = list(dict.fromkeys(parse_order(training.workflow) for training in reversed(self.trainings)))
        if not trained:
            return None
        distances = kendall(ORDER_INDEX[order], np.array([ORDER_INDEX[each] for each in trained]))
        return trained[int(distances.argmin())]

    def finish(self, over: Sequence[InnerLoop], reason: str = "") -> list[Training]:
        """Finish trainings whose batches are all learned, and let the search learn from those that ended.

        ``reason``: why the others are cut off.
        """
        finished = [running.finished(self._config.compliance_threshold, reason) for running in over]
        for running, training in zip(over, finished, strict=True):
            if training.learned:
                complied = training.complied or self._config.fixed_episodes is not None
                self.search.observe(running.order, training.value, complied)
            self.trainings.append(training)
        if any(training.learned for training in finished):
            self._best = self._estimates()  # now, because the status must be quick
        return finished

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
            for order in self.search.ranking()[:_BEST_SHOWN]
        )

    def status(self) -> WorkflowStatus | None:
        """Return the search at this moment; None before the first training. May be called during other calls."""
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

    # ------------------------------------------------------------------- batches

    def plan(self, batch: int) -> list[dict[str, Any]] | None:
        """Return the reset options of the parts of a new batch; None if there can be no batch at the moment."""
        trained = self._planned.get(batch) or [running for running in self.running if not running.ended]
        if not trained:
            return None
        self._planned[batch] = trained  # a resumed batch has its plan already
        return [{"workflow": running.order} for running in trained]

    def workflows(self, batch: int) -> list[str]:
        """Return the orders, as text, of the parts of a batch that is not learned yet."""
        return [order_text(running.order) for running in self._planned[batch]]

    def learned(self, batch: int, episodes: npt.NDArray[np.void], parts: npt.NDArray[np.int64]) -> list[InnerLoop]:
        """Take in what an update learned from; see Curriculum. Return the trainings that are over, for `finish`."""
        for part, running in enumerate(self._planned.pop(batch)):
            running.learned(episodes[parts == part], self._config, self._batch_episodes)
        under_way = {running for others in self._planned.values() for running in others}
        over = [running for running in self.running if running.ended and running not in under_way]
        if over:
            self._last = self.running
            self.running = [running for running in self.running if running not in over]
        return over

    # --------------------------------------------------------------- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Return history, trainings and plans as plain data for JSON, for `load_state_dict`."""
        return {
            "search": self.search.state_dict(),
            "choices": self._choices,
            "trainings": [training._asdict() for training in self.trainings],
            "running": [running.state_dict() for running in self.running],
            "chosen": [running.state_dict() for running in self._chosen],
            "planned": [[batch, [each.iteration for each in parts]] for batch, parts in self._planned.items()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned. Planned batches have the same parts when they are planned again.

        May take some tenths of a second. Raises KeyError, TypeError or ValueError.
        """
        self.search.load_state_dict(dict(state["search"]))
        self._choices = natural(state["choices"])
        kinds = get_type_hints(Training)
        self.trainings = [Training(**{name: kinds[name](row[name]) for name in kinds}) for row in state["trainings"]]
        for training in self.trainings:
            parse_order(training.workflow)
        self.running = [InnerLoop.of(each) for each in state["running"]]
        self._chosen = [InnerLoop.of(each) for each in state["chosen"]]
        if self.free_places < 0:
            raise ValueError(f"{self._places - self.free_places} orders in training, where there are {self._places}")
        by_iteration = {running.iteration: running for running in self.running}
        self._planned = {natural(batch): [by_iteration[each] for each in parts] for batch, parts in state["planned"]}
        if any(training.learned for training in self.trainings):
            self._best = self._estimates()

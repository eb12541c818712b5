"""Which order of the host types to train next: GP-UCB over all 120, and two searches to compare it with.

A `Search` is asked for an order (`propose`), which is trained, and told what came of it (`observe`). Several orders may
be out at once. An order whose training missed the compliance threshold rests for a number of proposals that grows with
each failure in a row, so that no search can get stuck on it; its return is an observation like any other.

A search is a function of its seed and its history alone: restored from `state_dict`, it goes on exactly as it would
have. Nothing here is asynchronous; a proposal takes milliseconds to some tenths of a second of CPU, and the first one
imports scikit-learn (about a second), so an event loop calls it in a thread.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aiotrain.cage2.workflows import ORDER_INDEX, ORDERS, PRECEDENCE, Order, kendall, order_text, parse_order

__all__ = ["SEARCHES", "GpUcb", "Observation", "Posterior", "RandomSearch", "RoundRobin", "Search"]

FIRST_REST: Final = 10
"""Proposals that an order rests after it missed the threshold once; doubled for every further time in a row."""
LONGEST_REST: Final = 60
"""Every proposal fails at most once, so of the 120 orders about this many rest at a time, at most."""
SCHEDULE_DELTA: Final = 0.1
"""Probability with which the bound behind the theoretical schedule of beta may fail."""

HYPER_PRIOR: Final = ((1.0, 1.6), (4.0, 1.4), (0.5, 1.6))
"""Signal and noise variance (of standardised returns) and length scale are log-normal: (signal, length, noise), each
as its median and the factor that a standard deviation is.

A length of 4 ties orders at Kendall distance 1 by 0.88 and an order to its reverse by 0.29. Without a prior, ten or
twenty noisy returns are often explained by no noise at all: the best order found after 20 was then twice as far off
(`bench/search.py`). A hundred observations outweigh it.
"""

Beta = float | Literal["schedule"]


class Observation(NamedTuple):
    """What came of training an order."""

    order: Order
    value: float
    """Its mean environment return."""
    complied: bool
    """Whether it reached the compliance threshold."""
    proposals: int
    """How many proposals had been made when this became known."""


class Posterior(NamedTuple):
    """What the Gaussian process believes of each order's return, in the order of ``ORDERS``; float64 [120] each.

    All NaN before the first observation.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    """Standard deviation of the return itself, without the noise of one more observation."""
    ucb: NDArray[np.float64]
    """Upper confidence bound: ``mean + width * std``, with `Search.width`."""


class Search(ABC):
    """The history of a search, what a Gaussian process makes of it, and a way to choose the next order.

    ``seed``: decides everything that is left to chance. ``beta``: deviations that an upper confidence bound lies above
    the mean, or ``"schedule"`` for the growing width of `width`.
    Raises ValueError for a beta that is negative or not finite.
    """

    def __init__(self, seed: int = 0, beta: Beta = 2.0) -> None:
        if beta != "schedule" and not (math.isfinite(beta) and beta >= 0):
            raise ValueError(f"beta is {beta}, but it must be a number of at least 0, or 'schedule'")
        self.seed = seed
        self.beta = beta
        self.observations: list[Observation] = []
        self.pending: list[int] = []
        """Numbers of the orders that were proposed and not yet observed."""
        self.proposals = 0
        self._fitted: tuple[tuple[Observation, ...], _GaussianProcess] | None = None
        """The observations of the last `posterior`, and what was fitted to them: it is asked for several times."""

    @abstractmethod
    def _choose(self, candidates: NDArray[np.int64], generator: np.random.Generator) -> int:
        """The next order's number, one of ``candidates``."""

    def propose(self) -> Order:
        """The order to train next: never one that is still out.

        Raises ValueError if all 120 are out.
        """
        free = np.setdiff1d(np.arange(len(ORDERS)), self.pending)
        if not len(free):
            raise ValueError("all 120 orders are proposed and none of them observed yet")
        rest = self.rest[free]
        # The shortest rest is none at all, unless nearly all orders are out or rest.
        candidates = free[rest == rest.min()]
        chosen = self._choose(candidates, np.random.default_rng((self.seed, self.proposals)))
        self.proposals += 1
        self.pending.append(chosen)
        return ORDERS[chosen]

    def observe(self, order: Order, value: float, complied: bool = True) -> None:
        """Learn that training ``order`` gave a mean environment return of ``value``, proposed or not.

        Observations of the same order all count. Raises ValueError for what is no order, and for a value that is not
        finite.
        """
        if not math.isfinite(value):
            raise ValueError(
                f"the return of {order_text(order)} is {value}, and a Gaussian process cannot learn from that. "
                "Was the training cut off before its first episode ended?"
            )
        index = ORDER_INDEX[parse_order(order)]
        if index in self.pending:
            self.pending.remove(index)
        self.observations.append(Observation(ORDERS[index], float(value), bool(complied), self.proposals))

    @property
    def failures(self) -> NDArray[np.int64]:
        """int64 [120]: how many times in a row each order has now missed the compliance threshold."""
        failures = np.zeros(len(ORDERS), np.int64)
        for observation in self.observations:
            index = ORDER_INDEX[observation.order]
            failures[index] = 0 if observation.complied else failures[index] + 1
        return failures

    @property
    def rest(self) -> NDArray[np.int64]:
        """int64 [120]: for how many more proposals each order rests, 0 if it may be proposed now."""
        last = np.zeros(len(ORDERS), np.int64)
        for observation in self.observations:
            last[ORDER_INDEX[observation.order]] = observation.proposals
        failures = self.failures
        length = np.minimum(FIRST_REST * 2 ** np.minimum(failures, 8) // 2, LONGEST_REST)
        rest: NDArray[np.int64] = np.where(failures > 0, np.maximum(last + length - self.proposals, 0), 0)
        return rest

    @property
    def tries(self) -> NDArray[np.int64]:
        """int64 [120]: how often each order has been observed or is out."""
        tried: list[int] = [ORDER_INDEX[observation.order] for observation in self.observations] + self.pending
        counts: NDArray[np.int64] = np.bincount(np.array(tried, np.int64), minlength=len(ORDERS))
        return counts

    @property
    def width(self) -> float:
        """Deviations between mean and upper confidence bound.

        With the schedule it is sqrt(beta_t), beta_t = 2 log(|D| t² π² / (6 δ)): theorem 1 of Srinivas, Krause, Kakade
        and Seeger, "Gaussian Process Optimization in the Bandit Setting", 2010, for |D| = 120 orders, the t-th
        proposal and δ = ``SCHEDULE_DELTA``.
        """
        if self.beta != "schedule":
            return float(self.beta)
        t = self.proposals + 1
        return math.sqrt(2 * math.log(len(ORDERS) * t**2 * math.pi**2 / (6 * SCHEDULE_DELTA)))

    def posterior(self) -> Posterior:
        """The belief from all observations, with those that are out taken into account.

        The deviations are smaller for orders that are out: their results are imagined to equal the mean, which leaves
        all means as they are (GP-BUCB: Desautels, Krause and Burdick, 2014).
        """
        values = np.array([observation.value for observation in self.observations])
        if not len(values):
            return Posterior(*np.full((3, len(ORDERS)), np.nan))
        centre, scale = values.mean(), values.std() or 1.0
        history = tuple(self.observations)
        if self._fitted is None or self._fitted[0] != history:
            observed = [ORDER_INDEX[observation.order] for observation in self.observations]
            self._fitted = history, _GaussianProcess(observed, (values - centre) / scale)
        mean, std = self._fitted[1].posterior(self.pending)
        mean, std = centre + scale * mean, scale * std
        return Posterior(mean, std, mean + self.width * std)

    def ranking(self) -> list[Order]:
        """The orders that have been trained, those with the highest posterior mean first.

        Orders that complied the last time go before those that did not.
        """
        complied = {ORDER_INDEX[o.order]: o.complied for o in self.observations}
        mean = self.posterior().mean
        return [ORDERS[i] for i in sorted(complied, key=lambda index: (complied[index], mean[index]), reverse=True)]

    def best(self) -> Order | None:
        """The first of `ranking`, or None."""
        return next(iter(self.ranking()), None)

    def state_dict(self) -> dict[str, Any]:
        """The history as plain data for JSON, for `load_state_dict` of a search with the same seed and beta."""
        return {
            "proposals": self.proposals,
            "pending": [order_text(ORDERS[index]) for index in self.pending],
            "observations": [{**o._asdict(), "order": order_text(o.order)} for o in self.observations],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a history. Raises KeyError, TypeError or ValueError if it is not one, and then changes nothing."""
        observations = [Observation(**{**row, "order": parse_order(row["order"])}) for row in state["observations"]]
        if not all(math.isfinite(each.value) and type(each.proposals) is int for each in observations):
            raise ValueError("an observation has no return, or was made at no time")
        pending = [ORDER_INDEX[parse_order(text)] for text in state["pending"]]
        self.proposals = int(state["proposals"])
        self.observations, self.pending = observations, pending


class GpUcb(Search):
    """The order with the highest upper confidence bound; the first two as far from each other as can be."""

    def _choose(self, candidates: NDArray[np.int64], generator: np.random.Generator) -> int:
        tried = np.flatnonzero(self.tries)
        if len(tried) == 0:
            return int(generator.choice(candidates))
        if len(tried) == 1 or not self.observations:
            score = kendall(candidates[:, None], tried).min(axis=1).astype(np.float64)
        else:
            score = self.posterior().ucb[candidates]
        # Orders that are alike in everything observed differ by rounding only: chance, not their number, decides.
        ties = candidates[score >= score.max() - 1e-9 * np.ptp(score)]
        return int(generator.choice(ties))


class RandomSearch(Search):
    """Any of the orders that have been tried least."""

    def _choose(self, candidates: NDArray[np.int64], generator: np.random.Generator) -> int:
        tries = self.tries[candidates]
        return int(generator.choice(candidates[tries == tries.min()]))


class RoundRobin(Search):
    """The first in the sequence of ``ORDERS`` that has been tried least."""

    def _choose(self, candidates: NDArray[np.int64], generator: np.random.Generator) -> int:
        return int(candidates[self.tries[candidates].argmin()])


SEARCHES: Final[dict[str, type[Search]]] = {"gp-ucb": GpUcb, "random": RandomSearch, "round-robin": RoundRobin}


class _GaussianProcess:
    """A Gaussian process on orders, fitted to ``values`` (float64 [n], standardised) of ``observed`` ones, by number.

    The kernel is signal × RBF + noise over the ±1 precedence vectors. Their squared distance is four times Kendall's
    distance K, so the RBF of length l is exp(-2K / l²): the Mallows kernel (Jiao and Vert, 2015). Within their bounds
    the three hyper-parameters maximise the marginal likelihood times the prior of `HYPER_PRIOR`.

    What is observed of an order n times counts as its mean, whose noise is an n-th. Together with the scatter around
    the means this is the same likelihood and the same posterior, and however many trainings there are, the matrices
    have at most 120 rows.
    """

    def __init__(self, observed: list[int], values: NDArray[np.float64]) -> None:
        from scipy.optimize import minimize
        from threadpoolctl import threadpool_limits

        medians, spreads = np.log(HYPER_PRIOR).T
        rows, place, counts = np.unique(observed, return_inverse=True, return_counts=True)
        means = np.bincount(place, values) / counts
        scatter = float(((values - means[place]) ** 2).sum())
        repeats = len(values) - len(rows)
        process = self._process(rows, counts, means, medians)

        def loss(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            likelihood, gradient = process.log_marginal_likelihood(theta, eval_gradient=True, clone_kernel=False)
            around = scatter / np.exp(theta[-1])  # the noise's part: that of normal deviations from the orders' means
            likelihood -= (repeats * theta[-1] + around) / 2
            gradient = gradient - np.array([0.0, 0.0, (repeats - around) / 2])
            deviations = (theta - medians) / spreads
            return deviations @ deviations / 2 - likelihood, deviations / spreads - gradient

        with threadpool_limits(1, "blas"):  # the matrices are small, and the other cores play
            # Not by fit(), which knows no prior, and warns of every bound that is reached.
            starts = (medians, medians + spreads * (0, -2, -2))  # smooth under much noise, rough under little
            bounds = process.kernel_.bounds
            found = [minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds) for start in starts]
            self._theta = min(found, key=lambda result: result.fun).x
            self._counts = np.bincount(observed, minlength=len(ORDERS))
            self._fitted = self._process(rows, counts, means, self._theta)
            self._mean = self._fitted.predict(PRECEDENCE.astype(np.float64))

    def posterior(self, pending: list[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of the noiseless function, float64 [120] each.

        ``pending``: numbers of orders whose values are imagined to equal the mean.
        """
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, "blas"):
            process = self._fitted
            if pending:
                counts = self._counts + np.bincount(pending, minlength=len(ORDERS))
                rows = np.flatnonzero(counts)
                process = self._process(rows, counts[rows], self._mean[rows], self._theta)
            std = process.predict(PRECEDENCE.astype(np.float64), return_std=True)[1]
        # scikit-learn counts the noise of one more observation in.
        return self._mean, np.sqrt(np.maximum(std**2 - np.exp(self._theta[-1]), 0.0))

    @staticmethod
    def _process(rows: NDArray[np.int64], counts: NDArray[np.int64], means: NDArray[np.float64], theta: Any) -> Any:
        """scikit-learn's process with hyper-parameters ``theta`` on orders that were observed ``counts`` times."""
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        class NoiseOfMeans(WhiteKernel):  # type: ignore[misc]  # scikit-learn has no types
            """White noise, divided by how often each row was observed."""

            def __init__(
                self, counts: NDArray[np.int64], noise_level: float, noise_level_bounds: tuple[float, float]
            ) -> None:
                super().__init__(noise_level, noise_level_bounds)
                self.counts = counts

            def __call__(self, X: Any, Y: Any = None, eval_gradient: bool = False) -> Any:
                result = super().__call__(X, Y, eval_gradient)
                if Y is not None:
                    return result
                share = np.diag(1 / self.counts)
                return (result[0] * share, result[1] * share[:, :, None]) if eval_gradient else result * share

        kernel = ConstantKernel(1.0, (0.05, 20.0)) * RBF(1.0, (0.8, 20.0)) + NoiseOfMeans(counts, 1.0, (1e-3, 3.0))
        process = GaussianProcessRegressor(kernel.clone_with_theta(theta), optimizer=None)
        return process.fit(PRECEDENCE[rows].astype(np.float64), means)

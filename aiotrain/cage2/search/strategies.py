"""Strategies that choose the next order to train: GP-UCB over all 120 orders, and two baselines.

A `Search` proposes an order (`propose`). The caller trains it and reports the return (`observe`). Several orders may be
pending, that is proposed and not yet observed. An order rests after a training that missed the compliance threshold,
for a number of proposals that grows with each failure in a row. No strategy can therefore get stuck on one order. The
return of such a training is an observation like any other.

A search depends on its seed and its history only. Restored from `state_dict`, it continues exactly. A proposal takes
milliseconds to some tenths of a second of CPU, and the first one imports scikit-learn (about a second): an event loop
should call it in a thread.
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
"""Proposals for which an order rests after its first failure. Each further failure in a row doubles the rest."""
LONGEST_REST: Final = 60
"""Longest rest in proposals. A proposal fails at most once, so that at most about this many of the 120 orders rest."""
SCHEDULE_DELTA: Final = 0.1
"""Probability with which the bound behind the theoretical schedule of beta may fail."""

HYPER_PRIOR: Final = ((1.0, 1.6), (4.0, 1.4), (0.5, 1.6))
"""Log-normal priors of signal variance, length scale and noise variance, for standardised returns.

Each is given by its median and by the factor of one standard deviation. With a length of 4, the correlation is 0.88 at
Kendall distance 1 and 0.29 between an order and its reverse. Without a prior, the fit often explains ten or twenty
noisy returns without any noise, and the best order found after 20 is twice as far from the optimum (`bench/search.py`).
A hundred observations outweigh the prior.
"""

Beta = float | Literal["schedule"]


class Observation(NamedTuple):
    """The result of training an order."""

    order: Order
    value: float
    """Mean environment return."""
    complied: bool
    """Whether the training reached the compliance threshold."""
    proposals: int
    """Number of proposals that were made before this observation."""


class Posterior(NamedTuple):
    """The Gaussian process's posterior of each order's return; float64 [120] each, indexed like ``ORDERS``.

    All values are NaN before the first observation.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    """Standard deviation of the noiseless return."""
    ucb: NDArray[np.float64]
    """Upper confidence bound: ``mean + width * std``, with `Search.width`."""


class Search(ABC):
    """Holds the history of a search and its posterior. Subclasses choose the next order.

    ``seed`` decides all random draws. ``beta`` is the width of the upper confidence bound in standard deviations, or
    ``"schedule"`` for a width that grows; see `width`.
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
        """Cache of `posterior`: the observations of its last call, and the process that was fitted to them."""

    @abstractmethod
    def _choose(self, candidates: NDArray[np.int64], generator: np.random.Generator) -> int:
        """Return the number of the next order, one of ``candidates``."""

    def propose(self) -> Order:
        """Return the order to train next. It is not pending. Raises ValueError if all 120 are."""
        free = np.setdiff1d(np.arange(len(ORDERS)), self.pending)
        if not len(free):
            raise ValueError("all 120 orders are proposed and none of them observed yet")
        rest = self.rest[free]
        # The shortest rest is 0, unless nearly all orders are pending or rest.
        candidates = free[rest == rest.min()]
        chosen = self._choose(candidates, np.random.default_rng((self.seed, self.proposals)))
        self.proposals += 1
        self.pending.append(chosen)
        return ORDERS[chosen]

    def observe(self, order: Order, value: float, complied: bool = True) -> None:
        """Add the observation that training ``order``, proposed or not, gave a mean environment return of ``value``.

        All observations of the same order count. Raises ValueError if ``order`` is none or ``value`` not finite.
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
        """int64 [120]: how often in a row each order has missed the compliance threshold until now."""
        failures = np.zeros(len(ORDERS), np.int64)
        for observation in self.observations:
            index = ORDER_INDEX[observation.order]
            failures[index] = 0 if observation.complied else failures[index] + 1
        return failures

    @property
    def rest(self) -> NDArray[np.int64]:
        """int64 [120]: the number of further proposals for which each order rests; 0 if it may be proposed now."""
        last = np.zeros(len(ORDERS), np.int64)
        for observation in self.observations:
            last[ORDER_INDEX[observation.order]] = observation.proposals
        failures = self.failures
        length = np.minimum(FIRST_REST * 2 ** np.minimum(failures, 8) // 2, LONGEST_REST)
        rest: NDArray[np.int64] = np.where(failures > 0, np.maximum(last + length - self.proposals, 0), 0)
        return rest

    @property
    def tries(self) -> NDArray[np.int64]:
        """int64 [120]: how often each order was observed, plus 1 if it is pending."""
        tried: list[int] = [ORDER_INDEX[observation.order] for observation in self.observations] + self.pending
        counts: NDArray[np.int64] = np.bincount(np.array(tried, np.int64), minlength=len(ORDERS))
        return counts

    @property
    def width(self) -> float:
        """Width of the upper confidence bound, in standard deviations above the mean.

        With the schedule it is sqrt(beta_t), beta_t = 2 log(|D| t² π² / (6 δ)), for |D| = 120 orders, the t-th proposal
        and δ = ``SCHEDULE_DELTA``: theorem 1 of Srinivas, Krause, Kakade and Seeger, "Gaussian Process Optimization in
        the Bandit Setting", 2010.
        """
        if self.beta != "schedule":
            return float(self.beta)
        t = self.proposals + 1
        return math.sqrt(2 * math.log(len(ORDERS) * t**2 * math.pi**2 / (6 * SCHEDULE_DELTA)))

    def posterior(self) -> Posterior:
        """Return the posterior, given all observations and the pending orders.

        A pending order counts as observed at its mean. This lowers standard deviations and leaves all means unchanged
        (GP-BUCB: Desautels, Krause and Burdick, 2014).
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
        """Return the observed orders: first those that complied the last time, then the others.

        Within each group, the highest posterior mean comes first.
        """
        complied = {ORDER_INDEX[o.order]: o.complied for o in self.observations}
        mean = self.posterior().mean
        return [ORDERS[i] for i in sorted(complied, key=lambda index: (complied[index], mean[index]), reverse=True)]

    def best(self) -> Order | None:
        """Return the first order of `ranking`; None if there is none."""
        return next(iter(self.ranking()), None)

    def state_dict(self) -> dict[str, Any]:
        """Return the history as plain data for JSON, for `load_state_dict` of a search with the same seed and beta."""
        return {
            "proposals": self.proposals,
            "pending": [order_text(ORDERS[index]) for index in self.pending],
            "observations": [{**o._asdict(), "order": order_text(o.order)} for o in self.observations],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the history. For an invalid one, raise KeyError, TypeError or ValueError and change nothing."""
        rows = [{**row} for row in state["observations"]]
        observations = [Observation(**{**row, "order": parse_order(row["order"])}) for row in rows]
        if not all(math.isfinite(each.value) and type(each.proposals) is int for each in observations):
            raise ValueError("an observation has no return, or was made at no time")
        pending = [ORDER_INDEX[parse_order(text)] for text in state["pending"]]
        self.proposals = int(state["proposals"])
        self.observations, self.pending = observations, pending


class GpUcb(Search):
    """Chooses the order with the highest upper confidence bound. The first two are as distant as possible."""

    def _choose(self, candidates: NDArray[np.int64], generator: np.random.Generator) -> int:
        tried = np.flatnonzero(self.tries)
        if len(tried) == 0:
            return int(generator.choice(candidates))
        if len(tried) == 1 or not self.observations:
            score = kendall(candidates[:, None], tried).min(axis=1).astype(np.float64)
        else:
            score = self.posterior().ucb[candidates]
        # Orders with equal scores may differ by rounding errors. A random draw decides between them, not their numbers.
        ties = candidates[score >= score.max() - 1e-9 * np.ptp(score)]
        return int(generator.choice(ties))


class RandomSearch(Search):
    """Chooses one of the least tried orders at random."""

    def _choose(self, candidates: NDArray[np.int64], generator: np.random.Generator) -> int:
        tries = self.tries[candidates]
        return int(generator.choice(candidates[tries == tries.min()]))


class RoundRobin(Search):
    """Chooses the first of the least tried orders, in the sequence of ``ORDERS``."""

    def _choose(self, candidates: NDArray[np.int64], generator: np.random.Generator) -> int:
        return int(candidates[self.tries[candidates].argmin()])


SEARCHES: Final[dict[str, type[Search]]] = {"gp-ucb": GpUcb, "random": RandomSearch, "round-robin": RoundRobin}


class _GaussianProcess:
    """A Gaussian process on orders, fitted to the standardised ``values`` (float64 [n]) of ``observed`` order numbers.

    The kernel is signal × RBF + noise over the ±1 precedence vectors. Their squared distance is four times Kendall's
    distance K, so the RBF of length l is exp(-2K / l²): the Mallows kernel (Jiao and Vert, 2015). Within their bounds
    the three hyper-parameters maximise the marginal likelihood times the prior of `HYPER_PRIOR`.

    The n observations of an order are replaced by their mean, which has an n-th of the noise, and by their scatter
    around it. Likelihood and posterior stay the same, and the matrices never have more than 120 rows.
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
            around = scatter / np.exp(theta[-1])  # likelihood of the deviations from the orders' means
            likelihood -= (repeats * theta[-1] + around) / 2
            gradient = gradient - np.array([0.0, 0.0, (repeats - around) / 2])
            deviations = (theta - medians) / spreads
            return deviations @ deviations / 2 - likelihood, deviations / spreads - gradient

        with threadpool_limits(1, "blas"):  # the matrices are small, and workers need the other cores
            # fit() supports no prior, and warns about every bound that is reached.
            starts = (medians, medians + spreads * (0, -2, -2))  # smooth with much noise; rough with little
            bounds = process.kernel_.bounds
            found = [minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds) for start in starts]
            self._theta = min(found, key=lambda result: result.fun).x
            self._counts = np.bincount(observed, minlength=len(ORDERS))
            self._fitted = self._process(rows, counts, means, self._theta)
            self._mean = self._fitted.predict(PRECEDENCE.astype(np.float64))

    def posterior(self, pending: list[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and standard deviation of the noiseless function, float64 [120] each.

        ``pending``: numbers of orders that count as observed at their means.
        """
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, "blas"):
            process = self._fitted
            if pending:
                counts = self._counts + np.bincount(pending, minlength=len(ORDERS))
                rows = np.flatnonzero(counts)
                process = self._process(rows, counts[rows], self._mean[rows], self._theta)
            std = process.predict(PRECEDENCE.astype(np.float64), return_std=True)[1]
        # scikit-learn includes the noise of another observation.
        return self._mean, np.sqrt(np.maximum(std**2 - np.exp(self._theta[-1]), 0.0))

    @staticmethod
    def _process(rows: NDArray[np.int64], counts: NDArray[np.int64], means: NDArray[np.float64], theta: Any) -> Any:
        """Return scikit-learn's process with hyper-parameters ``theta``. Row i was observed ``counts[i]`` times."""
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

"""Which search finds a good order of the host types with few trainings, on tasks whose answer is known.

    python -m bench.search --json search.json

Each order's score falls with Kendall's distance from a hidden best order, from -100 to -200; an evaluation adds normal
noise of 20% of that range. Every strategy gets the same hidden orders and the same noise, in turns, and recommends an
order after ``--evaluations``. Its simple regret is the best order's score minus that of the recommended one, in percent
of the range. Also measured: the time to choose the next order after 100 observations.

Strategies: GP-UCB with beta 2 and with the theoretical schedule; random orders, with the recommendation made by the
same Gaussian process or simply the highest mean observed; orders in turn; and the heuristic that an earlier workflow
search used in place of a Gaussian process.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aiotrain.cage2.search.strategies import GpUcb, RandomSearch, RoundRobin, Search
from aiotrain.cage2.workflows import ORDER_INDEX, ORDERS, Order, kendall
from bench.tools.figures import Figures
from bench.tools.progress import say
from bench.tools.report import Report
from bench.tools.script import Script

TAKES = "10 minutes"
SMALLEST = "--seeds 1 --evaluations 3 --repeats 1"

BEST, WORST = -100.0, -200.0
NOISE = 0.2

# Shares of the range by Kendall distance 0 to 10: an even slope, and a peak that few orders are near.
SHAPES: dict[str, Callable[[Any], NDArray[np.float64]]] = {
    "slope": lambda distance: 1 - distance / 10,
    "peak": lambda distance: (np.exp(-distance / 2) - np.exp(-5)) / (1 - np.exp(-5)),
}


class Strategy(Protocol):
    def propose(self) -> Order: ...

    def observe(self, order: Order, value: float) -> None: ...

    def best(self) -> Order | None: ...


class HighestMean(RandomSearch):
    """Random search that recommends the order with the highest mean observed."""

    def best(self) -> Order | None:
        values = defaultdict(list)
        for observation in self.observations:
            values[observation.order].append(observation.value)
        return max(values, key=lambda order: statistics.fmean(values[order]))


class OlderHeuristic:
    """Scores made from distances: a weighted mean of all values, and a bonus for being far from what was seen.

    An order that was seen keeps its first value, and its bonus shrinks with its visits; distances are Kendall's,
    divided by their greatest; the bonus is in units of return, whatever their scale.
    """

    def __init__(self, seed: int) -> None:
        self.orders: list[int] = []
        self.values: list[float] = []

    def propose(self) -> Order:
        if not self.orders:
            return ORDERS[0]
        distance = kendall(np.arange(len(ORDERS))[:, None], np.array(self.orders)) / 10
        weights = np.exp(-2 * distance)
        mean = weights @ np.array(self.values) / weights.sum(axis=1)
        std = 10 * distance.min(axis=1) + 1
        visits = np.bincount(self.orders, minlength=len(ORDERS))
        for order in set(self.orders):
            mean[order] = self.values[self.orders.index(order)]
            std[order] = 1 / (1 + visits[order])
        return ORDERS[int(np.argmax(mean + 2 / (1 + 0.5 * visits) * std))]

    def observe(self, order: Order, value: float) -> None:
        self.orders.append(ORDER_INDEX[order])
        self.values.append(value)

    def best(self) -> Order | None:
        return ORDERS[self.orders[int(np.argmax(self.values))]]


STRATEGIES: dict[str, Callable[[int], Strategy]] = {
    "gp-ucb, beta 2": GpUcb,
    "gp-ucb, schedule": lambda seed: GpUcb(seed, "schedule"),
    "random": RandomSearch,
    "random, highest mean": HighestMean,
    "round-robin": RoundRobin,
    "older heuristic": OlderHeuristic,
}


def simple_regret(strategy: Strategy, scores: NDArray[np.float64], noise: NDArray[np.float64]) -> float:
    """Return the regret of the recommendation after ``len(noise)`` evaluations, in percent of the range of scores."""
    for deviation in noise:
        order = strategy.propose()
        strategy.observe(order, float(scores[ORDER_INDEX[order]] + deviation))
    recommended = strategy.best()
    assert recommended is not None
    return float(100 * (scores.max() - scores[ORDER_INDEX[recommended]]) / np.ptp(scores))


def measure(shape: str, seeds: int, evaluations: int) -> dict[str, list[float]]:
    """Return the regret of each strategy for each seed."""
    regrets: dict[str, list[float]] = {name: [] for name in STRATEGIES}
    for seed in range(seeds):
        rng = np.random.default_rng((2010, seed))
        distance = kendall(np.arange(len(ORDERS)), rng.integers(len(ORDERS)))
        scores = WORST + (BEST - WORST) * SHAPES[shape](distance)
        noise = rng.normal(0, NOISE * np.ptp(scores), evaluations)
        for name, make in STRATEGIES.items():
            regrets[name].append(simple_regret(make(seed), scores, noise))
        say(f"{shape}: seed {seed + 1} of {seeds}")
    return regrets


def choice_seconds(observations: int, repeats: int) -> list[float]:
    """Return the seconds of a choice by GP-UCB after so many observations, without the import of scikit-learn."""
    seconds = []
    for repeat in range(repeats + 1):  # the first one imports
        rng = np.random.default_rng(repeat)
        search: Search = GpUcb(repeat)
        for _ in range(observations):
            order = int(rng.integers(len(ORDERS)))
            search.observe(ORDERS[order], -10 * float(kendall(order, 0)) + rng.normal(0, 20))
        began = time.perf_counter()
        search.propose()
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def main() -> None:
    script = Script.of(__file__)
    parser = script.parser()
    parser.add_argument("--seeds", type=int, default=200, help="hidden orders (default %(default)s)")
    parser.add_argument("--evaluations", type=int, default=20, help="evaluations each (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=10, help="choices that are timed (default %(default)s)")
    arguments = script.parse(parser)
    report = Report(script, arguments)
    figures = Figures()
    all_regrets = {shape: measure(shape, arguments.seeds, arguments.evaluations) for shape in SHAPES}
    for shape, regrets in all_regrets.items():
        for name, values in regrets.items():
            figures.note(name, f"{shape}, mean regret", float(np.mean(values)), "% of the range")
            figures.note(name, f"{shape}, standard error", float(np.std(values)) / len(values) ** 0.5, "%")
    for seconds in choice_seconds(100, arguments.repeats):
        figures.note("choice by gp-ucb after 100 observations", "duration", seconds, "s")
    title = f"Simple regret after {arguments.evaluations} evaluations, {arguments.seeds} seeds"
    report.finish(figures, title, {"regrets": all_regrets})


if __name__ == "__main__":
    main()

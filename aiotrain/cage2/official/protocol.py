"""The official protocol of CAGE Challenge 2: its nine cells, its total, and the scores of those who took part.

One agent plays all cells, and is not told the red agent. A cell's score is the mean return of its episodes, the total
the sum of the nine scores: https://github.com/cage-challenge/cage-challenge-2, "Leader Board (final)".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from aiotrain.cage2.scenario import RED_AGENTS


class Cell(NamedTuple):
    """Episodes of a length against a red agent."""

    steps: int
    red_agent: str


CELLS: Final = tuple(Cell(steps, red_agent) for steps in (30, 50, 100) for red_agent in RED_AGENTS)
"""In the order of the leaderboard's columns."""

EPISODES: Final = 1_000
"""Episodes of each cell on the leaderboard."""

_NORMAL_95: Final = 1.959964
"""Deviations of a normal distribution within which 95% of it lie."""


def total_score(means: Sequence[float], standard_errors: Sequence[float]) -> tuple[float, float]:
    """The sum of the cells' ``means``, and the half width of its 95% confidence interval.

    The interval takes the cells for independent: their episodes must not have random numbers in common.
    """
    return math.fsum(means), _NORMAL_95 * math.hypot(*standard_errors)


class Entry(NamedTuple):
    """A row of the leaderboard."""

    team: str
    method: str
    total: float
    half_width: float
    """Of the total's 95% confidence interval."""
    means: tuple[float, ...]
    """A score for each of ``CELLS``."""


LEADERBOARD: Final = (
    Entry("CardiffUni", "PPO + Greedy Decoys", -54.57, 0.43, (-3.47, -5.64, 0, -6.41, -8.69, 0, -13.76, -16.6, 0)),
    Entry(
        "Keeping it RL", "Ensemble of Ensembles", -56.9, 0.59, (-3.48, -6.47, 0, -5.85, -10.33, 0, -11.39, -19.38, 0)
    ),
    Entry("Mindrake", "HIPPO Float Observations", -57.05, 0.56, (-3.53, -6.76, 0, -6.2, -10.13, 0, -12.78, -17.65, 0)),
    Entry("Mindrake", "HIPPO-Heuristic", -57.29, 0.59, (-3.69, -6.81, 0, -6.24, -10.09, 0, -12.86, -17.6, 0)),
    Entry("Mindrake", "HIPPO Bandit Controller", -57.46, 0.74, (-3.73, -6.85, 0, -6.65, -9.98, 0, -12.86, -17.39, 0)),
    Entry("Keeping it RL", "Ensemble", -58.68, 0.61, (-3.62, -6.57, 0, -6.1, -10.32, 0, -11.9, -20.16, 0)),
    Entry("UoA", "Belief Ensemble", -69.88, 0.88, (-3.87, -6.54, 0, -6.74, -12.01, 0, -14.63, -26.09, 0)),
    Entry("Keeping it RL", "Transfer Learning", -70.12, 0.71, (-5.54, -6.4, 0, -9.74, -10.21, 0, -19.57, -18.65, 0)),
    Entry("Keeping it RL", "Action Masking", -72.17, 1.6, (-4.61, -6.45, 0, -7.92, -11.22, 0, -17.75, -24.22, 0)),
    Entry("Keeping it RL", "PPO", -73.98, 0.94, (-4.76, -8.03, 0, -8.13, -12.91, 0, -17.19, -22.94, -0.01)),
    Entry("SRG Raytheon", "HPPO", -75.7, 1.29, (-4.44, -6.57, 0, -7.7, -11.78, 0, -15.68, -29.52, 0)),
    Entry("UoA", "Ensemble", -81.83, 0.86, (-6.02, -6.23, 0, -10.19, -11.74, 0, -22.09, -25.55, 0)),
    Entry("CCS RL Benchmark", "PPO", -95.47, 1.36, (-8.75, -7.31, -0.01, -14.92, -12.04, -0.01, -30.19, -22.21, -0.03)),
    Entry("Keeping it RL", "HPPO", -119.7, 1.63, (-4.64, -9.15, 0, -8.45, -22.3, 0, -17.44, -57.72, 0)),
    Entry(
        "Reward is not Enough",
        "ACME IMPALA CAGE 2",
        -122.91,
        1.11,
        (-6, -9.27, -0.12, -10.25, -22.27, -0.16, -19.72, -54.79, -0.33),
    ),
    Entry(
        "KingMatthew",
        "PPO with RE3 Exploration",
        -137.79,
        3.89,
        (-12.48, -6.99, 0, -23.33, -12.26, -0.01, -54.01, -28.69, -0.02),
    ),
    Entry("UTS_CIBCI", "Ensembled DDDQN", -154.71, 1.95, (-5.87, -10.93, 0, -10.82, -26.29, 0, -23.96, -67.89, 0)),
    Entry(
        "CCS Heuristic",
        "Blue React Restore",
        -823.89,
        1.03,
        (-58.83, -44.29, -27, -93.05, -85.75, -46, -184.34, -192.63, -92),
    ),
    Entry(
        "CCS Random",
        "Random Agent",
        -2015.61,
        30.93,
        (-154.06, -33.43, -2.8, -347.1, -171.49, -4.45, -726.92, -566.41, -8.94),
    ),
    Entry(
        "CCS Sleeper",
        "Sleeping Agent",
        -3112.2,
        6.67,
        (-218.65, -39.31, 0, -480.17, -267.6, 0, -1134.03, -972.43, 0),
    ),
)
"""The validated scores, best first, of 1,000 episodes a cell, as the challenge's repository tells them.

(The total of UTS_CIBCI is not the sum of its cells there, -145.76; all others are.)
They were computed by the rules "leaderboard". The repository does not name its commit; it was 606813b (12 August 2022)
or one with the same scores, for the winner's published agent gets these scores there, and 24 points less against
B_lineAgent in 100 steps by the rules "main", which came a week later.
"""

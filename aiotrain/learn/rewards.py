"""Rewards as PPO learns from them: counted within the horizons, with bonuses, and scaled.

N is the number of steps in a batch, M that of its trajectories. The steps of all trajectories lie one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from aiotrain.learn.running_statistics import RunningMoments
from aiotrain.play.policy import FloatArray
from aiotrain.transport.trajectories import Trajectories

__all__ = ["counted", "has_no_future", "padded", "returns_so_far", "scaled"]

_SMALLEST_DEVIATION = 1e-6  # of returns; a smaller one is no measure of the rewards' scale


def counted(batch: Trajectories, horizons: Sequence[int]) -> FloatArray:
    """Return the rewards ``[N]``, each once for every one of ``horizons`` that its step lies within, and the bonuses.

    Without horizons, rewards count once. Bonuses always do.
    """
    rewards = batch.rewards
    if horizons:
        lengths = batch.headers["length"]
        ends = np.cumsum(lengths)
        step = np.arange(ends[-1]) + np.repeat(batch.headers["episode_steps"] - ends, lengths)
        rewards = rewards * np.sum([step < horizon for horizon in horizons], 0, np.float32)
    return rewards + batch.bonuses


def has_no_future(headers: npt.NDArray[np.void], horizons: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Return which trajectories ``[M]`` terminated or reached the longest of ``horizons``: no later reward counts."""
    over: npt.NDArray[np.bool_] = headers["terminated"]
    return over | (headers["episode_steps"] >= max(horizons)) if horizons else over


def scaled(rewards: FloatArray, lengths: npt.NDArray[Any], gamma: float, moments: RunningMoments) -> FloatArray:
    """Return ``rewards`` ``[N]`` over the running deviation of the discounted return; add to its ``moments``."""
    moments.add(returns_so_far(rewards, lengths, gamma))
    deviation = math.sqrt(float(moments.variance))
    return rewards / np.float32(deviation) if deviation > _SMALLEST_DEVIATION else rewards


def returns_so_far(rewards: FloatArray, lengths: npt.NDArray[Any], gamma: float) -> npt.NDArray[np.float64]:
    """Return for each step ``[N]`` the discounted sum of its trajectory's rewards so far; ``lengths`` is ``[M]``."""
    table, there = padded(rewards, lengths)
    for t in range(1, table.shape[1]):
        table[:, t] += gamma * table[:, t - 1]
    result: npt.NDArray[np.float64] = table[there]
    return result


def padded(flat: FloatArray, lengths: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return steps ``[N]`` as ``[M, T]``, 0 beyond the end of each trajectory, and where there are steps."""
    there = np.arange(lengths.max()) < lengths[:, None]
    table = np.zeros(there.shape)
    table[there] = flat
    return table, there

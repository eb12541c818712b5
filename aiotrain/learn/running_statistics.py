"""Running mean and variance: the scale of rewards and of observations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["RunningMoments"]


@dataclass
class RunningMoments:
    """Count, mean and variance of all values so far, by merging those of each part (Chan, Golub & LeVeque, 1979)."""

    count: float = 0.0
    mean: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(()))
    variance: npt.NDArray[np.float64] = field(default_factory=lambda: np.ones(()))

    def add(self, values: npt.NDArray[Any]) -> None:
        """Add ``values`` ``[N, *shape]``; mean and variance are over the first axis."""
        count = len(values)
        mean, variance = values.mean(axis=0, dtype=np.float64), values.var(axis=0, dtype=np.float64)
        total = self.count + count
        delta = mean - self.mean
        squares = self.variance * self.count + variance * count + delta**2 * self.count * count / total
        self.mean = self.mean + delta * count / total
        self.variance = squares / total
        self.count = total

    def state_dict(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return count, mean and variance, for `load_state_dict`."""
        return {name: np.array(getattr(self, name), np.float64) for name in ("count", "mean", "variance")}

    def load_state_dict(self, state: Mapping[str, npt.NDArray[np.float64]], shape: tuple[int, ...] = ()) -> None:
        """Go on from what `state_dict` returned for values of ``shape``. Raises KeyError, TypeError or ValueError."""
        count, mean, variance = (np.asarray(state[name], np.float64) for name in ("count", "mean", "variance"))
        if mean.shape != variance.shape or mean.shape not in ((), shape):
            raise ValueError(f"moments of shape {mean.shape}, where {shape} belongs")
        self.count, self.mean, self.variance = float(count), mean, variance

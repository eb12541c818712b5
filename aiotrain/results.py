"""What a training gives its caller: a report of each update, and the sum of it all at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Result", "Update"]


@dataclass(frozen=True)
class Update:
    """One learner update. Every metric of records.METRICS is an attribute: ``update.mean_return``."""

    values: Mapping[str, float]
    """All metrics by name."""
    returns: tuple[float, ...]
    """Return of each episode that ended in the batch, in the order in which they were launched."""

    def __getattr__(self, name: str) -> float:
        values: Mapping[str, float] = self.__dict__.get("values", {})  # not there yet while copied or unpickled
        try:
            return values[name]
        except KeyError:
            raise AttributeError(f"an update has no metric {name!r}; it has {', '.join(values)}") from None


@dataclass(frozen=True)
class Result:
    """What a training came to."""

    episodes: int
    """Episodes learned."""
    steps: int
    """Environment steps learned."""
    updates: int
    mean_return: float
    """Mean return of the last update's episodes."""
    lost: int
    """Attempts at episodes that were lost with a worker or environment."""
    elapsed_s: float
    weights: np.ndarray[Any, np.dtype[np.float32]]
    """The policy's parameters, as policy.PolicyShape lays them out."""

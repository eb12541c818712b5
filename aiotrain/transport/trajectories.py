"""Trajectories as the learner gets them: whole arrays, out of the ring or out of another process's answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Trajectories", "ragged_rows"]


@dataclass(frozen=True)
class Trajectories:
    """Trajectories copied out of the ring; the steps of all lie one after the other. M trajectories, N steps."""

    headers: npt.NDArray[np.void]
    """``[M]`` of `header_dtype`."""
    observations: npt.NDArray[Any]
    """``[N, *shape]``, as the environment gave them."""
    final_observations: npt.NDArray[Any]
    """``[M, *shape]``: what was seen after the last step of each."""
    actions: npt.NDArray[Any]
    """``[N, *shape]``"""
    log_probs: npt.NDArray[np.float32]
    """``[N]``: log-probability of the action at the time it was drawn."""
    rewards: npt.NDArray[np.float32]
    """``[N]``: what the environment gave."""
    bonuses: npt.NDArray[np.float32]
    """``[N]``: ``info["bonus"]``, which the learner gets on top of the reward; 0 where there is none."""
    masks: npt.NDArray[np.int8]
    """``[N, actions]``: 1 where the action could be drawn, else 0; ``[N, 0]`` where all always can."""

    @property
    def steps(self) -> int:
        """Steps in all trajectories together."""
        return len(self.rewards)

    def select(self, chosen: npt.NDArray[Any]) -> Trajectories:
        """Return the trajectories that ``chosen`` (indices or a mask) picks, in its order."""
        lengths = self.headers["length"]
        rows = ragged_rows((np.cumsum(lengths) - lengths)[chosen], lengths[chosen])
        by_step: Sequence[npt.NDArray[Any]] = (self.actions, self.log_probs, self.rewards, self.bonuses, self.masks)
        return Trajectories(
            self.headers[chosen],
            self.observations.take(rows, 0),
            self.final_observations[chosen],
            *(each.take(rows, 0) for each in by_step),
        )

    @classmethod
    def join(cls, parts: Sequence[Trajectories]) -> Trajectories:
        """Return all trajectories of ``parts``, ordered by episode and fragment, whichever part held them."""
        whole = cls(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(cls)))
        return whole.select(np.lexsort((whole.headers["fragment"], whole.headers["episode"])))


def ragged_rows(starts: npt.NDArray[Any], lengths: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the indices ``start, start + 1, …`` of each run, one run after the other."""
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    rows: npt.NDArray[np.int64] = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
    return rows

"""Turns what a simulator shows into what blue sees, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aiotrain.cage2.blue_view import NUM_INPUTS, Actions, Observation, actions_of, inputs_of

__all__ = ["BlueObserver"]


class BlueObserver:
    """Computes blue's observations and action masks in ``num_envs`` environments, and remembers what they need.

    Raises ValueError for an unknown observation or set of actions.
    """

    def __init__(self, observation: Observation, actions: Actions, num_envs: int = 1) -> None:
        self.num_inputs = inputs_of(observation)
        """Bits of an observation, without those of an order."""
        self.menu = actions_of(actions)
        """int64 [actions]: the index of each action among the 145."""
        self.is_plain = (observation, actions) == ("table", "full")
        """Whether blue sees and does just what the simulator shows and offers, so that nothing is remembered."""
        if self.is_plain:
            return
        from aiotrain.cage2 import blue_memory  # imports Numba, which csle-cyborg does not need

        self._memories = np.zeros(num_envs, blue_memory.MEMORY)
        self._observations = np.zeros((num_envs, NUM_INPUTS if observation == "memory" else 0), np.int8)
        self._masks = np.zeros((num_envs, len(self.menu) if actions == "compact" else 0), np.int8)

    def observe(self, tables: NDArray[np.int8], actions: ArrayLike) -> tuple[NDArray[np.int8], dict[str, Any]]:
        """Take in one step of every environment.

        Args:
            tables: int8 [num_envs, 52], C-contiguous: csle-cyborg's tables after the step.
            actions: int64 [num_envs]: blue's actions among the 145, or BEGUN.

        Returns:
            Blue's observations, int8 [num_envs, inputs], and a dict that with compact actions holds ``action_mask``,
            int8 [num_envs, 42]: 1 where the action makes sense.

        """
        if self.is_plain:
            return tables, {}
        from aiotrain.cage2 import blue_memory

        blue_memory.update_all(self._memories, tables, np.asarray(actions, np.int64), self._observations, self._masks)
        seen = self._observations.copy() if self._observations.size else tables
        return seen, {"action_mask": self._masks.copy()} if self._masks.size else {}

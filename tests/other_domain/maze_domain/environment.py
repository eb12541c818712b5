"""The corridor. Workers import this module, and nothing else of the package."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np


class Corridor(gymnasium.Env[Any, Any]):
    """Walk to cell 0 from the cell that the reset option ``start`` says, by default the last one.

    The reward is -1 a step; the bonus is for each cell that is nearer to the end. ``info["success"]`` tells at the end
    of an episode whether cell 0 was reached, ``info["bumps"]`` how often the walker ran against the last cell's wall.
    """

    def __init__(self, length: int = 8, bonus: float = 0.5, max_steps: int = 20) -> None:
        self.observation_space = gymnasium.spaces.Discrete(length)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.length, self.bonus, self.max_steps = length, bonus, max_steps

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.cell = (options or {}).get("start", self.length - 1)
        self.steps = self.bumps = 0
        return np.int64(self.cell), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        before = self.cell
        self.cell = min(self.cell + (1 if action else -1), self.length - 1)
        self.bumps += self.cell == before
        self.steps += 1
        info: dict[str, Any] = {"bonus": self.bonus * (before - self.cell)}
        arrived, late = self.cell == 0, self.steps >= self.max_steps
        if arrived or late:
            info |= {"success": arrived, "bumps": self.bumps}
        return np.int64(self.cell), -1.0, arrived, late and not arrived, info

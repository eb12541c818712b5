"""The environment. Workers import this module; keep it light."""

from typing import Any

import gymnasium
import numpy as np


class WaterTank(gymnasium.Env[np.ndarray, int]):
    """Keep the level of a leaking tank at one half with a valve that is shut, half open or open."""

    def __init__(self, leak: float = 0.01, max_steps: int = 50) -> None:
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(3)
        self.leak, self.max_steps = leak, max_steps

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin with a random level."""
        super().reset(seed=seed)
        self.level = self.np_random.uniform()
        self.steps = 0
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Let water in by the valve and out by the leak."""
        before = abs(self.level - 0.5)
        self.level = float(np.clip(self.level + 0.02 * action - self.leak * self.np_random.uniform(0, 2), 0, 1))
        self.steps += 1
        distance = abs(self.level - 0.5)
        info: dict[str, Any] = {"bonus": before - distance}  # shapes what is learned, and is no part of the return
        if over := self.steps == self.max_steps:
            info["steady"] = distance < 0.05  # a metric: told at the end of an episode
        return self._observation(), -distance, False, over, info

    def _observation(self) -> np.ndarray:
        return np.array([self.level], np.float32)

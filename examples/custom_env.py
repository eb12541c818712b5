"""An environment of your own: any class with Gymnasium's interface, made by any callable.

    python examples/custom_env.py
    aiotrain --env examples.custom_env:Thermostat --workers 2 --total-episodes 2000 --episodes-per-update 40
"""

import asyncio
from typing import Any

import gymnasium
import numpy as np

from aiotrain import Config, PPOConfig, Trainer


class Thermostat(gymnasium.Env[np.ndarray, int]):
    """Keep a room near 20 degrees with a heater that can be off, low or high, while it is cold outside.

    The observation is (degrees inside, degrees outside); the reward is minus the distance to 20 degrees and a price for
    heating.
    """

    def __init__(self, max_steps: int = 96) -> None:
        self.observation_space = gymnasium.spaces.Box(-50.0, 50.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(3)
        self.max_steps = max_steps  # tells the trainer how long an episode can get

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a day; all chance comes from ``self.np_random``, so that a seed repeats the episode."""
        super().reset(seed=seed)
        self.inside, self.outside = self.np_random.uniform(10, 30), self.np_random.uniform(-10, 10)
        self.steps = 0
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Heat for a quarter of an hour."""
        self.inside += 0.05 * (self.outside - self.inside) + 1.0 * action + self.np_random.normal(0, 0.1)
        self.steps += 1
        reward = -abs(self.inside - 20.0) - 0.1 * action
        return self._observation(), reward, False, self.steps == self.max_steps, {}

    def _observation(self) -> np.ndarray:
        return np.array([self.inside, self.outside], np.float32)


async def main() -> None:
    """Train; the environment travels to the workers by itself, also from a script or a notebook."""
    config = Config(
        env=Thermostat, workers=2, total_episodes=2_000, episodes_per_update=40, ppo=PPOConfig(entropy_coef=0.001)
    )
    async with Trainer(config) as trainer:
        async for update in trainer:
            if update.update % 10 == 0:
                print(f"{update.episodes:5.0f} episodes, mean return {update.mean_return:7.1f}")


if __name__ == "__main__":
    asyncio.run(main())

"""Environments that only the benchmarks need."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from aiotrain.cage2.env import red_agent_class
from aiotrain.cage2.scenario import scenario2


class StockCage2(gymnasium.Env[Any, Any]):
    """csle-cyborg as its own ChallengeWrapper drives it."""

    max_steps = 100

    def __init__(self) -> None:
        from csle_cyborg.agents.wrappers.challenge_wrapper import ChallengeWrapper
        from csle_cyborg.main import Main

        cyborg = Main(scenario2(), "sim", agents={"Red": red_agent_class("B_lineAgent")})
        self._wrapper = ChallengeWrapper(agent_name="Blue", env=cyborg)
        self.observation_space = gymnasium.spaces.MultiBinary(52)
        self.action_space = gymnasium.spaces.Discrete(145)
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._steps = 0
        return np.asarray(self._wrapper.reset()[0], np.int8), {}

    def step(self, action: Any) -> Any:
        observation, reward, *_ = self._wrapper.step(action)
        self._steps += 1
        return np.asarray(observation, np.int8), float(reward), False, self._steps == self.max_steps, {}


def stock_cage2() -> StockCage2:
    """For ``--env bench.envs:stock_cage2``."""
    return StockCage2()

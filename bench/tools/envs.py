"""Environments that only the benchmarks need."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from aiotrain.cage2.scenario import scenario2
from aiotrain.cage2.simulators.cyborg_env import red_agent_class


def challenge_wrapper(red_agent: str = "B_lineAgent") -> Any:
    """CAGE 2 as csle-cyborg's own ChallengeWrapper drives it, drawing from Python's global generator."""
    from csle_cyborg.agents.wrappers.challenge_wrapper import ChallengeWrapper
    from csle_cyborg.main import Main

    cyborg = Main(scenario2(), "sim", agents={"Red": red_agent_class(red_agent)})
    return ChallengeWrapper(agent_name="Blue", env=cyborg)


class StockCage2(gymnasium.Env[Any, Any]):
    """The ChallengeWrapper as an environment of Gymnasium's."""

    max_steps = 100

    def __init__(self) -> None:
        self._wrapper = challenge_wrapper()
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

    def true_state(self) -> Any:
        """The whole true state of the simulator."""
        return self._wrapper.get_agent_state("True")


def stock_cage2() -> StockCage2:
    """For ``--env bench.tools.envs:stock_cage2``."""
    return StockCage2()

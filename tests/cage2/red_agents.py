"""Red agents that are not csle-cyborg's, for the tests."""

from __future__ import annotations

import random
import statistics
from typing import Any

from aiotrain.cage2.simulators.cyborg_import import RedMeanderAgent, SleepAgent


class DistractedMeander(RedMeanderAgent):
    """Draws from Python's global generator, here and in a library, and notes all that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []
        random.random()

    def get_action(self, observation: Any, action_space: Any) -> Any:
        known = {key: dict(value) for key, value in action_space.items()}
        self.told.append((str(observation), str(known), random.random()))
        if statistics.NormalDist().samples(1)[0] > 1.5:
            return SleepAgent().get_action(observation, action_space)
        return super().get_action(observation, action_space)

    def train(self, results: Any) -> None:
        self.told.append((str(results.next_observation), results.reward, results.done, str(results.action)))

    def end_episode(self) -> None:
        super().end_episode()
        random.getrandbits(5)


class NoAgent:
    """Lacks an agent's methods."""

"""csle-cyborg's own ChallengeWrapper on Python's global generator: what the environment must equal."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np

from aiotrain.cage2.scenario import scenario2
from aiotrain.cage2.simulators.cyborg_env import Cage2Env, red_agent_class
from aiotrain.cage2.simulators.cyborg_randomness import redirect


class UnmodifiedChallenge:
    """A ChallengeWrapper as the challenge builds it, with what a comparison needs."""

    def __init__(self, red_agent: str | type, scenario: dict[str, Any] | None = None) -> None:
        from csle_cyborg.agents.wrappers.challenge_wrapper import ChallengeWrapper
        from csle_cyborg.main import Main

        redirect("csle_cyborg")
        description = scenario2() if scenario is None else copy.deepcopy(scenario)
        self.cyborg = Main(description, "sim", agents={"Red": red_agent_class(red_agent)})
        self.wrapper = ChallengeWrapper(agent_name="Blue", env=self.cyborg)
        self.hosts = list(description["Hosts"])

    def reset(self, seed: int | None = None) -> np.ndarray:
        if seed is not None:
            random.seed(seed)
        return self.wrapper.reset()[0]

    def step(self, action: int) -> tuple[np.ndarray, float]:
        vector, reward, *_ = self.wrapper.step(action)
        return vector, reward

    def red_hosts(self) -> int:
        """The hosts with a session of red, from the true state that csle-cyborg describes."""
        state = self.cyborg.get_agent_state("True")
        return sum(
            1 << index
            for index, host in enumerate(self.hosts)
            if any(session["Agent"] == "Red" for session in state[host].get("Sessions", []))
        )


def first_difference(
    stock: UnmodifiedChallenge, env: Cage2Env, act: Any, seed: int | None, steps: int, check_red_hosts: bool = False
) -> str | None:
    """Play an episode on both and describe the first difference; None if there is none."""
    expected = stock.reset(seed)
    bits, info = env.reset(seed=seed)
    for step in range(steps + 1):
        where = f"seed {seed}, after {step} steps"
        if step:
            action = act(step - 1, bits)
            where += f", the last {env.action_names[action]!r}"
            expected, expected_reward = stock.step(action)
            bits, reward, _, _, info = env.step(action)
            if reward != expected_reward:
                return f"{where}: reward is {reward}, csle-cyborg's {expected_reward}"
        if not np.array_equal(bits, expected):
            return f"{where}: bits {np.flatnonzero(bits != expected)} differ from csle-cyborg's"
        if env.generator.getstate() != random.getstate():
            return f"{where}: the generator's state differs: other draws than csle-cyborg's"
        if check_red_hosts and info["red_hosts"] != stock.red_hosts():
            return f"{where}: red_hosts is {info['red_hosts']:b}, by the true state {stock.red_hosts():b}"
    return None

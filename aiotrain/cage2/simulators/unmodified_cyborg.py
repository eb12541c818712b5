"""CybORG driven by its own ChallengeWrapper: right for any scenario, and some 15 times slower."""

from __future__ import annotations

from random import Random
from typing import Any

from aiotrain.cage2.simulators.cyborg_randomness import redirect


class StockSimulator:
    """The interface of `aiotrain.cage2.simulators.fast_cyborg.LeanSimulator` on csle-cyborg's ChallengeWrapper."""

    def __init__(self, scenario: dict[str, Any], agents: dict[str, type]) -> None:
        # Here and not above: these import PrettyTable and paramiko, which the lean simulator does without.
        from csle_cyborg.agents.wrappers.challenge_wrapper import ChallengeWrapper
        from csle_cyborg.main import Main

        redirect("csle_cyborg")
        self.hosts = tuple(scenario["Hosts"])
        self._row = {host: index for index, host in enumerate(self.hosts)}
        self._cyborg = Main(scenario, "sim", agents=agents)
        self._wrapper = ChallengeWrapper(agent_name="Blue", env=self._cyborg)
        self.action_names = [str(action) for action in self._wrapper.possible_actions]

    def reset(self, generator: Random) -> tuple[bytearray, int]:
        """Start an episode; ``generator`` is what csle-cyborg's modules draw from already."""
        vector, _ = self._wrapper.reset()
        return bytearray(vector.tolist()), self._red_hosts()

    def step(self, index: int) -> tuple[bytearray, float, int]:
        """Play blue's action and everybody else's; see `LeanSimulator.step`."""
        vector, reward, *_ = self._wrapper.step(index)
        return bytearray(vector.tolist()), float(reward), self._red_hosts()

    def _red_hosts(self) -> int:
        held = 0
        for session in self._cyborg.environment_controller.state.sessions["Red"].values():
            held |= 1 << self._row[session.host]
        return held

"""csle-cyborg behind its own ChallengeWrapper: correct for any scenario, and some 15 times slower."""

from __future__ import annotations

from random import Random
from typing import Any

from aiotrain.cage2.simulators.cyborg_randomness import redirect


class UnmodifiedCyborg:
    """Implements the interface of ``FastCyborg`` by csle-cyborg's ChallengeWrapper."""

    def __init__(self, scenario: dict[str, Any], agents: dict[str, type]) -> None:
        # Not at the top of the file: these import PrettyTable and paramiko, which FastCyborg does not need.
        from csle_cyborg.agents.wrappers.challenge_wrapper import ChallengeWrapper
        from csle_cyborg.main import Main

        redirect("csle_cyborg")
        self.hosts = tuple(scenario["Hosts"])
        self._row = {host: index for index, host in enumerate(self.hosts)}
        self._cyborg = Main(scenario, "sim", agents=agents)
        self._wrapper = ChallengeWrapper(agent_name="Blue", env=self._cyborg)
        self.action_names = [str(action) for action in self._wrapper.possible_actions]

    def reset(self, generator: Random) -> tuple[bytearray, int]:
        """Start an episode. csle-cyborg's modules draw from ``generator`` already."""
        vector, _ = self._wrapper.reset()
        return bytearray(vector.tolist()), self._red_hosts()

    def step(self, index: int) -> tuple[bytearray, float, int]:
        """Play a step; see ``FastCyborg.step``."""
        vector, reward, *_ = self._wrapper.step(index)
        return bytearray(vector.tolist()), float(reward), self._red_hosts()

    def _red_hosts(self) -> int:
        held = 0
        for session in self._cyborg.environment_controller.state.sessions["Red"].values():
            held |= 1 << self._row[session.host]
        return held

"""CybORG's draws, recorded as the 64-bit words from which the compiled engine would draw the same.

Only draws that can reach an observation or a reward are recorded. Each recorded draw is still made by the
function that would have made it, so a recorded episode is the episode that would have been played anyway.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any
from unittest.mock import patch

import numpy as np
from unmodified_challenge import UnmodifiedChallenge

from aiotrain.cage2.scenario import HOST_INDEX, NUM_BITS
from aiotrain.cage2.simulators.cyborg_env import Cage2Env  # before csle-cyborg, which does not import by itself
from aiotrain.cage2.workflows import Order

b_line = import_module("csle_cyborg.agents.simple_agents.b_line")
meander = import_module("csle_cyborg.agents.simple_agents.meander")
exploit_remote_service = import_module("csle_cyborg.shared.actions.abstract_actions.exploit_remote_service")
privilege_escalate = import_module("csle_cyborg.shared.actions.abstract_actions.privilege_escalate")
exploit_action = import_module("csle_cyborg.shared.actions.concrete_actions.exploit_action")

FIRST_USER_TARGET = HOST_INDEX["User1"]


def word_of_index(index: int, n: int) -> int:
    """The smallest word from which a draw among ``n`` gives ``index``."""
    return -(-index * 2**32 // n) << 32


def word_of_uniform(u: float) -> int:
    """The smallest word whose upper 53 bits are those of ``u``."""
    return int(u * 2**53) << 11


class Recorder:
    """The words of one controller's episode; ``words`` grows while the controller steps."""

    def __init__(self, controller: Any) -> None:
        self.controller = controller
        self.words: list[int] = []
        self._addresses: list[Any] = []

    @contextmanager
    def recording(self) -> Iterator[list[int]]:
        """Record for the length of the block; the words start anew."""
        self.words.clear()
        self._addresses = []
        with ExitStack() as stack:
            for target, name, replacement in (
                (exploit_action, "random", self._wrap_uniform(exploit_action.random)),
                (exploit_remote_service, "random", _Choices(self, exploit_remote_service.random)),
                (privilege_escalate, "choice", self._wrap_session(privilege_escalate.choice)),
                (b_line, "random", _Target(self, b_line.random)),
                (meander, "random", _Shuffle(self, meander.random)),
            ):
                stack.enter_context(patch.object(target, name, replacement))
            yield self.words

    def _wrap_uniform(self, original: Any) -> Any:
        def draw() -> float:
            u: float = original()
            self.words.append(word_of_uniform(u))
            return u

        return draw

    def _wrap_session(self, original: Any) -> Any:
        def draw(sessions: Sequence[Any]) -> Any:
            chosen = original(sessions)
            suspicious = self.controller.state.sessions["Blue"][0].sus_pids.get(chosen.host, [])
            # The engine counts the sessions that a Remove would end first, then the others.
            ranked = sorted(sessions, key=lambda session: session.pid not in suspicious)
            self.words.append(word_of_index(ranked.index(chosen), len(ranked)))
            return chosen

        return draw

    def host_of(self, address: Any) -> int:
        return HOST_INDEX[self.controller.state.ip_addresses[address]]

    def shuffled(self, items: list[Any]) -> None:
        """Turn a shuffle of Meander's into the draw among candidates that it amounts to, if it decides."""
        interface = self.controller.agent_interfaces["Red"]
        agent, space = interface.agent, interface.action_space
        if not isinstance(items[0], str):
            self._addresses = list(items)
            order = [self.host_of(a) for a in items if space.ip_address[a] and a not in agent.scanned_ips]
        else:
            order = [
                HOST_INDEX[name]
                for name in items
                if space.hostname[name]
                and name not in agent.escalated_hosts
                and (name not in agent.host_ip_map or agent.host_ip_map[name] in agent.exploited_ips)
            ]
            if not order:
                order = [
                    self.host_of(a) for a in self._addresses if space.ip_address[a] and a not in agent.exploited_ips
                ]
        if order:
            self.words.append(word_of_index(sorted(order).index(order[0]), len(order)))


class _Forward:
    """Stands for the module ``random`` in one of csle-cyborg's modules."""

    def __init__(self, recorder: Recorder, original: Any) -> None:
        self.recorder = recorder
        self.original = original

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)


class _Choices(_Forward):
    def choices(self, options: Sequence[Any]) -> list[Any]:
        chosen: list[Any] = self.original.choices(options)
        self.recorder.words.append(word_of_index(list(options).index(chosen[0]), len(options)))
        return chosen

    def random(self) -> float:
        u: float = self.original.random()
        self.recorder.words.append(word_of_uniform(u))
        return u


class _Target(_Forward):
    def choice(self, addresses: Sequence[Any]) -> Any:
        chosen = self.original.choice(addresses)
        rank = self.recorder.host_of(chosen) - FIRST_USER_TARGET
        self.recorder.words.append(word_of_index(rank, len(addresses)))
        return chosen


class _Shuffle(_Forward):
    def shuffle(self, items: list[Any]) -> None:
        self.original.shuffle(items)
        self.recorder.shuffled(items)


def red_mask(controller: Any) -> int:
    """The set of hosts on which red has a session."""
    return sum(1 << HOST_INDEX[h] for h in {s.host for s in controller.state.sessions["Red"].values()})


class UnmodifiedReference:
    """csle-cyborg's own ChallengeWrapper, drawing from Python's global generator."""

    def __init__(self, red_agent: str) -> None:
        self.stock = UnmodifiedChallenge(red_agent)
        self.controller = self.stock.cyborg.environment_controller

    def reset(self, seed: int) -> bytes:
        return self.stock.reset(seed).astype(np.int8).tobytes()

    def step(self, action: int) -> tuple[bytes, float, int]:
        bits, reward = self.stock.step(action)
        return bits.astype(np.int8).tobytes(), reward, red_mask(self.controller)


class LeanReference:
    """The lean environment on csle-cyborg, which is proved equal to the ChallengeWrapper on its own."""

    def __init__(self, red_agent: str, workflow: Order | None = None) -> None:
        self.env = Cage2Env(red_agent, workflow=workflow)
        self.controller = self.env.simulator._controller

    def reset(self, seed: int) -> bytes:
        return self.env.reset(seed=seed)[0][:NUM_BITS].tobytes()

    def step(self, action: int) -> tuple[bytes, float, int]:
        bits, reward, _, _, self.info = self.env.step(action)
        return bits[:NUM_BITS].tobytes(), reward, self.info["red_hosts"]

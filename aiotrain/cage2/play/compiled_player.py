"""Playing episodes of the compiled CAGE 2 engine into slots, without Python in between."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from aiotrain.cage2.play.rollout import NO_BONUSES, NO_MASKS, Rollout
from aiotrain.cage2.scenario import HOST_TYPES, NUM_ACTIONS, NUM_BITS, RED_AGENTS
from aiotrain.cage2.workflows import parse_order
from aiotrain.play.factory import EnvFactory
from aiotrain.play.player import Assignment, PlayResult, episode_streams
from aiotrain.transport.ring import PLAYING, SEALED, Ring, header_dtype

__all__ = ["CompiledPlayer"]


class _Scratch(NamedTuple):
    """Arrays for an episode of one step."""

    observations: npt.NDArray[np.int8]
    actions: npt.NDArray[np.int16]
    log_probs: npt.NDArray[np.float32]
    rewards: npt.NDArray[np.float32]


class CompiledPlayer:
    """Plays the episodes of a task side by side, each from its own seed and random numbers.

    These are the ones that ``Player`` gives the episode, so that both play the same one with the same weights.
    """

    unfinished = 0
    """Episodes that outgrew the slots of their task: none, for every slot holds a whole one."""

    def __init__(self, assignment: Assignment, ring: Ring, factory: EnvFactory) -> None:
        self._assignment, self._ring = assignment, ring
        self.parameters = np.zeros(assignment.policy.size, np.float32)
        """To be overwritten in place; `refresh` must follow."""
        self._version = -1
        assert assignment.spec.max_episode_steps is not None, "every episode of CAGE 2 is truncated"
        self._steps = assignment.spec.max_episode_steps
        settings = dict(factory.kwargs)
        for name in ("simulator", "max_steps"):
            settings.pop(name, None)
        own_order = settings.pop("workflow", None)
        self._is_judged = own_order is not None
        self._own_order = own_order or HOST_TYPES
        self._alignment_lambda = settings.pop("alignment_lambda", 0.0)
        self._rollout = Rollout(assignment.policy.layers, **settings)

    @staticmethod
    def compile() -> None:
        """Compile what a CompiledPlayer needs, or load it from the cache of an earlier process."""
        rollout = Rollout([(NUM_BITS, NUM_ACTIONS)], red_agent=RED_AGENTS[0])
        once = np.zeros((1, 1), np.float32)
        scratch = _Scratch(np.zeros((1, 2, NUM_BITS), np.int8), np.zeros((1, 1), np.int16), once.copy(), once.copy())
        rollout.play([0], once, [range(len(HOST_TYPES))], [0], scratch)

    def refresh(self, version: int) -> None:
        """Act with what was written to ``parameters``, which is this version of the policy."""
        if version != self._version:
            self._rollout.refresh(self.parameters)
            self._version = version

    def play(
        self, slots: Sequence[int], episodes: Sequence[int], options: Sequence[Mapping[str, Any]] = ()
    ) -> PlayResult:
        """Play ``episodes``, each whole into one of ``slots``, by the order of host types in its ``options`` if any."""
        cpu_began = time.process_time()
        streams = [episode_streams(self._assignment.run_seed, episode) for episode in episodes]
        headers = np.zeros(len(episodes), header_dtype(self._assignment.spec.metrics))
        headers["worker"] = self._assignment.worker
        headers["episode"] = episodes
        headers["seed"] = seeds = [seed for seed, _ in streams]
        headers["began_s"] = time.monotonic()
        headers["state"] = PLAYING
        self._ring.headers[slots] = headers
        played = self._rollout.play(
            seeds,
            np.array([generator.random(self._steps, np.float32) for _, generator in streams]),
            np.array([_kinds(each.get("workflow", self._own_order)) for each in options or [{}] * len(episodes)]),
            slots,
            self._ring,
            self._ring.bonuses if self._is_judged else NO_BONUSES,
            self._alignment_lambda,
            self._ring.masks if self._assignment.spec.has_action_mask else NO_MASKS,
        )
        headers["ended"] = True
        headers["length"] = headers["episode_steps"] = self._steps
        headers["version"] = self._version
        headers["episode_return"] = played["return_tenths"] / 10.0
        if self._is_judged:
            fixes, compliance = played["fixes"], np.full(len(episodes), np.nan)
            np.divide(played["compliant_fixes"], fixes, out=compliance, where=fixes > 0)
            headers["compliance"] = compliance
            headers["episode_bonus"] = self._alignment_lambda * np.nan_to_num(compliance)
        headers["state"] = SEALED
        self._ring.headers[slots] = headers
        return PlayResult((), (), time.process_time() - cpu_began)


@functools.cache
def _kinds(order: str | Sequence[str]) -> npt.NDArray[np.uint8]:
    """The types of an order as their numbers, uint8 [5]."""
    return np.array([HOST_TYPES.index(kind) for kind in parse_order(order)], np.uint8)

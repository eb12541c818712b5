"""Player of the compiled CAGE 2 engine: it plays episodes into slots, without Python in between."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from aiotrain.cage2.play.rollout import NO_BONUSES, NO_MASKS, Rollout
from aiotrain.cage2.scenario import EPISODE_STEPS, HOST_TYPES, NUM_ACTIONS, NUM_BITS, RED_AGENTS
from aiotrain.cage2.workflows import parse_order
from aiotrain.play.env_factory import EnvFactory
from aiotrain.play.player import Assignment, PlayResult, episode_streams
from aiotrain.transport.slot_ring import PLAYING, SEALED, Ring, header_dtype

__all__ = ["CompiledPlayer"]


class _OneStep(NamedTuple):
    """Arrays for one episode of one step."""

    observations: npt.NDArray[np.int8]
    actions: npt.NDArray[np.int16]
    log_probs: npt.NDArray[np.float32]
    rewards: npt.NDArray[np.float32]


class CompiledPlayer:
    """Plays the episodes of a task side by side.

    An episode has the seed and the random numbers that ``Player`` gives it. With the same weights, both therefore play
    the same episode.
    """

    unfinished = 0
    """Episodes that outgrew the slots of their task. There are none, because each slot holds a whole episode."""

    def __init__(self, assignment: Assignment, ring: Ring, factory: EnvFactory) -> None:
        self._assignment, self._ring = assignment, ring
        self.parameters = np.zeros(assignment.policy.size, np.float32)
        """Overwrite these in place, then call `refresh`."""
        self._version = -1
        settings = dict(factory.kwargs)
        settings.pop("simulator", None)
        self._steps: int = settings.pop("max_steps", EPISODE_STEPS)
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
        arrays = _OneStep(np.zeros((1, 2, NUM_BITS), np.int8), np.zeros((1, 1), np.int16), once.copy(), once.copy())
        rollout.play([0], once, [range(len(HOST_TYPES))], [0], arrays)

    def refresh(self, version: int) -> None:
        """Act with what was written to ``parameters``, which is this version of the policy."""
        if version != self._version:
            self._rollout.refresh(self.parameters)
            self._version = version

    def play(
        self, slots: Sequence[int], episodes: Sequence[int], options: Sequence[Mapping[str, Any]] = ()
    ) -> PlayResult:
        """Play each of ``episodes`` whole into one of ``slots``, with the ``workflow`` in its ``options`` if any."""
        cpu_began = time.process_time()
        workflows = [each.get("workflow", self._own_order) for each in options or [{}] * len(episodes)]
        streams = [episode_streams(self._assignment.run_seed, episode) for episode in episodes]
        headers = np.zeros(len(episodes), header_dtype(self._assignment.spec.metrics))
        for name in self._assignment.spec.metrics:
            headers[name] = np.nan  # until it is told
        headers["worker"] = self._assignment.worker
        headers["episode"] = episodes
        headers["seed"] = seeds = [seed for seed, _ in streams]
        headers["began_s"] = time.monotonic()
        headers["state"] = PLAYING
        self._ring.headers[slots] = headers
        played = self._rollout.play(
            seeds,
            np.array([generator.random(self._steps, np.float32) for _, generator in streams]),
            np.array([_type_numbers(each if isinstance(each, str) else tuple(each)) for each in workflows]),
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
def _type_numbers(workflow: str | Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return a workflow's order as numbers of host types, uint8 [5]."""
    return np.array([HOST_TYPES.index(kind) for kind in parse_order(workflow)], np.uint8)

"""Playing the episodes of an evaluation, by the players of the workers but in this process and thread."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import gymnasium
import numpy as np
import numpy.typing as npt

from aiotrain.cage2.official.baselines import greedy_actions
from aiotrain.cage2.registration import CAGE2_ID
from aiotrain.cage2.scenario import action_index
from aiotrain.cage2.workflows import Order
from aiotrain.errors import EnvError, InvalidStepError
from aiotrain.play.factory import EnvFactory
from aiotrain.play.inspection import BREAKDOWNS, inspect_env
from aiotrain.play.local_player import LocalPlayer, make_player
from aiotrain.play.player import Assignment
from aiotrain.play.policy import NumpyPolicy, PolicyShape
from aiotrain.play.spaces import EnvSpec

__all__ = ["Evaluation", "PolicyFor", "Progress", "fresh_seed", "play", "play_greedily", "sleeping", "uniform"]

_LANES: Final = 8
"""Environments that act in one batch."""
_FRAGMENT_STEPS: Final = 128
"""Steps of theirs that are kept at a time."""
_COMPILED_STEPS: Final = 50_000
"""Steps of the compiled engine that are kept at a time, in whole episodes."""

Progress = Callable[[int, int], None]
"""Is told, now and then, how many episodes have been played, and of how many."""
PolicyFor = Callable[[EnvSpec], NumpyPolicy]
"""Gives the policy for an environment."""
Episodes = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""Returns, lengths and compliance, as an Evaluation holds them."""


@dataclass(frozen=True)
class Evaluation:
    """What came of E episodes, in their order."""

    settings: Mapping[str, Any]
    """What was evaluated and how, as plain values."""
    returns: npt.NDArray[np.float64]
    """``[E]``: undiscounted, as the environment gave them."""
    lengths: npt.NDArray[np.int64]
    """``[E]``: steps."""
    compliance: npt.NDArray[np.float64]
    """``[E]``: with CAGE 2's workflow; NaN where there was none, or nothing was fixed."""

    @property
    def mean_return(self) -> float:
        """Mean of the returns."""
        return float(self.returns.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean return."""
        return float(self.returns.std(ddof=1)) / math.sqrt(len(self.returns))

    def summary(self) -> dict[str, float]:
        """The numbers that tell it all in short; compliance only where there is one."""
        known = self.compliance[~np.isnan(self.compliance)]
        return {
            "mean_return": self.mean_return,
            "standard_error": self.standard_error,
            "median_return": float(np.median(self.returns)),
            "min_return": float(self.returns.min()),
            "max_return": float(self.returns.max()),
            "mean_length": float(self.lengths.mean()),
        } | ({"compliance": float(known.mean())} if len(known) else {})


def fresh_seed(seed: int, use: int) -> int:
    """A run seed for each ``use`` of ``seed``, none of which a run with this seed has trained by."""
    return int(np.random.SeedSequence(seed, spawn_key=(use,)).generate_state(1, np.uint64)[0])


def play(factory: EnvFactory, policy_for: PolicyFor, episodes: int, run_seed: int, progress: Progress) -> Episodes:
    """Play ``episodes`` by the policy that ``policy_for`` gives for the environment."""
    returns, lengths, compliance = np.zeros(episodes), np.zeros(episodes, np.int64), np.full(episodes, np.nan)
    waiting, ended = deque(range(episodes)), 0
    with _player(factory, policy_for, episodes, run_seed) as (player, parameters, slots):
        while ended < episodes:
            count = min(slots, episodes - ended)
            played = player.play(parameters, 0, count, [waiting.popleft() for _ in range(min(count, len(waiting)))])
            for failure in played.failures:
                raise (InvalidStepError if failure.invalid else EnvError)(failure.reason, **failure.where)
            assert played.trajectories is not None
            waiting.extendleft(reversed(played.unused))
            headers = played.trajectories.headers
            headers = headers[headers["ended"]]
            returns[headers["episode"]] = headers["episode_return"]
            lengths[headers["episode"]] = headers["episode_steps"]
            if "compliance" in headers.dtype.names:
                compliance[headers["episode"]] = headers["compliance"]
            ended += len(headers)
            progress(ended, episodes)
    return returns, lengths, compliance


@contextmanager
def _player(
    factory: EnvFactory, policy_for: PolicyFor, episodes: int, run_seed: int
) -> Iterator[tuple[LocalPlayer, npt.NDArray[np.float32], int]]:
    """A worker's player in this process, the parameters to play with, and how many trajectories it plays at a time."""
    envs: list[gymnasium.Env[Any, Any]] = []
    try:
        env, spec = inspect_env(factory)
        envs.append(env)
        policy = policy_for(spec)
        limit = spec.max_episode_steps
        if factory.compiled_player is not None:
            assert limit is not None, "every episode of CAGE 2 is truncated"
            lanes, slots, steps = 1, max(_COMPILED_STEPS // limit, 1), limit
        else:
            lanes, slots, steps = min(_LANES, episodes), 4 * _LANES, min(limit or _FRAGMENT_STEPS, _FRAGMENT_STEPS)
        layout = spec.ring_layout(min(slots, episodes), steps)
        assignment = Assignment(0, lanes, run_seed, spec, policy.shape, layout)
        player = LocalPlayer(assignment, lambda ring: make_player(assignment, factory, ring, envs))
        yield player, policy.parameters, layout.slots
    finally:
        for env in envs:
            with suppress(*BREAKDOWNS):
                env.close()


def play_greedily(
    factory: EnvFactory, order: Order, steps: int, episodes: int, run_seed: int, progress: Progress
) -> Episodes:
    """Play CAGE 2 by the greedy heuristic of ``order``, which sees the true state."""
    actions = greedy_actions(order)
    count = min(episodes, _COMPILED_STEPS // steps if factory.compiled_player is not None else _LANES)
    seeds = np.random.default_rng(run_seed).integers(2**31, size=(-(-episodes // count), count))
    mode = None if factory.compiled_player is not None else "sync"
    envs = gymnasium.make_vec(CAGE2_ID, count, vectorization_mode=mode, **dict(factory.kwargs))
    returns = np.zeros(seeds.shape)
    for row, batch in enumerate(seeds.tolist()):
        _, info = envs.reset(seed=batch)
        for _ in range(steps):
            _, rewards, _, _, info = envs.step(actions[info["red_hosts"]])
            returns[row] += rewards
        progress(min((row + 1) * count, episodes), episodes)
    envs.close()
    return returns.ravel()[:episodes], np.full(episodes, steps), np.full(episodes, np.nan)


def sleeping(spec: EnvSpec) -> NumpyPolicy:
    """A policy of CAGE 2 that always sleeps."""
    policy = uniform(spec)
    *_, bias = policy.shape.split(policy.parameters)
    bias[action_index("Sleep")] = 1
    return policy.greedy()


def uniform(spec: EnvSpec) -> NumpyPolicy:
    """A policy that draws each action with the same probability, whatever it sees."""
    policy = NumpyPolicy(PolicyShape.of(spec, ()))
    _, scale, *_ = policy.shape.split(policy.parameters)
    scale[...] = 1
    policy.refresh()
    return policy

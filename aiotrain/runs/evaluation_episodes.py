"""Playing the episodes of an evaluation, by the players of the workers but in this process and thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import gymnasium
import numpy as np
import numpy.typing as npt

from aiotrain.errors import EnvError, InvalidStepError
from aiotrain.play.env_factory import EnvFactory
from aiotrain.play.inspection import close_envs, inspect_env
from aiotrain.play.player import Assignment
from aiotrain.play.policy import NumpyPolicy
from aiotrain.play.private_ring_player import LocalPlayer, make_player
from aiotrain.play.spaces import EnvSpec

__all__ = ["Episodes", "PolicyFor", "Progress", "fresh_seed", "play"]

_LANES: Final = 8
"""Environments that act in one batch."""
_FRAGMENT_STEPS: Final = 128
"""Steps of theirs that are kept at a time."""
_COMPILED_STEPS: Final = 50_000
"""Steps of a compiled player that are kept at a time, in whole episodes."""

Progress = Callable[[int, int], None]
"""Is told, now and then, how many episodes have been played, and of how many."""
PolicyFor = Callable[[EnvSpec], NumpyPolicy]
"""Gives the policy for an environment."""
Episodes = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], Mapping[str, npt.NDArray[np.float64]]]
"""Returns, lengths and metrics, as an Evaluation holds them."""


def fresh_seed(seed: int, use: int) -> int:
    """Return a run seed for each ``use`` of ``seed``, none of which a run with this seed has trained by."""
    return int(np.random.SeedSequence(seed, spawn_key=(use,)).generate_state(1, np.uint64)[0])


def play(factory: EnvFactory, policy_for: PolicyFor, episodes: int, run_seed: int, progress: Progress) -> Episodes:
    """Play ``episodes`` by the policy that ``policy_for`` gives for the environment.

    Raises ConfigError, EnvError or InvalidStepError.
    """
    returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    metrics = {name: np.full(episodes, np.nan) for name in factory.metrics}
    waiting, ended = deque(range(episodes)), 0
    with _player(factory, policy_for, episodes, run_seed) as (player, parameters, slots):
        while ended < episodes:
            count = min(slots, episodes - ended)
            played = player.play(parameters, 0, count, [waiting.popleft() for _ in range(min(count, len(waiting)))])
            for failure in played.failures:
                raise (InvalidStepError if failure.invalid else EnvError)(failure.reason, **failure.where)
            waiting.extendleft(reversed(played.unused))
            if played.trajectories is not None:
                headers = played.trajectories.headers
                headers = headers[headers["ended"]]
                returns[headers["episode"]] = headers["episode_return"]
                lengths[headers["episode"]] = headers["episode_steps"]
                for name, told in metrics.items():
                    told[headers["episode"]] = headers[name]
                ended += len(headers)
            progress(ended, episodes)
    return returns, lengths, metrics


@contextmanager
def _player(
    factory: EnvFactory, policy_for: PolicyFor, episodes: int, run_seed: int
) -> Iterator[tuple[LocalPlayer, npt.NDArray[np.float32], int]]:
    """Make a worker's player in this process; give the parameters to play with too, and the trajectories at a time."""
    envs: list[gymnasium.Env[Any, Any]] = []
    try:
        env, spec = inspect_env(factory)
        envs.append(env)
        policy = policy_for(spec)
        limit = spec.max_episode_steps
        if factory.compiled_player is not None and limit is not None:
            lanes, slots, steps = 1, max(_COMPILED_STEPS // limit, 1), limit
        else:
            lanes, slots, steps = min(_LANES, episodes), 4 * _LANES, min(limit or _FRAGMENT_STEPS, _FRAGMENT_STEPS)
        layout = spec.ring_layout(min(slots, episodes), steps)
        assignment = Assignment(0, lanes, run_seed, spec, policy.shape, layout)
        player = LocalPlayer(assignment, lambda ring: make_player(assignment, factory, ring, envs))
        yield player, policy.parameters, layout.slots
    finally:
        close_envs(envs)

"""What runs in a worker process: make environments, take slots, play episodes into them.

Each public function here is a task that the event loop submits to the worker's executor. A worker keeps its
environments, its copy of the weights and any episode that outgrew its slots between tasks. All randomness of episode i
comes from (run seed, i), so that it does not matter which worker plays it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import traceback
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import threadpoolctl

from aiotrain.errors import AiotrainError, EnvError, InvalidStepError
from aiotrain.factory import EnvFactory
from aiotrain.spaces import EnvSpec
from aiotrain.worker.player import (
    BREAKDOWNS,
    EpisodeFailure,
    Player,
    PlayResult,
    Posting,
    episode_streams,
    make_env,
    observation_fault,
)

if TYPE_CHECKING:
    from aiotrain.worker.compiled import CompiledPlayer

__all__ = [
    "EpisodeFailure",
    "PlayResult",
    "Player",
    "Posting",
    "episode_streams",
    "initialize",
    "inspect",
    "join",
    "play",
]

_NICENESS = 10  # below the main process: loop, learner and console stay prompt with more workers than cores


def initialize() -> None:
    """Set the process up: priority, signals, one BLAS thread, and a watch on the parent."""
    os.nice(_NICENESS)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the main process alone decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threadpoolctl.threadpool_limits(1)
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker is a child process"
    multiprocessing.util.Finalize(None, _close_envs, exitpriority=10)
    threading.Thread(target=_leave_with_parent, args=(parent.sentinel,), name="parent watch", daemon=True).start()


def _close_envs() -> None:
    """Let the environments end what they own, when the process ends of itself."""
    for env in _state.envs:
        with contextlib.suppress(Exception):
            env.close()


def _leave_with_parent(sentinel: int) -> None:
    """End this process when the parent's end of the pipe closes, however the parent died."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def inspect(factory: EnvFactory) -> EnvSpec:
    """Make an environment, reset it once, and tell what it is like.

    The worker keeps it. Raises EnvError with the traceback, UnsupportedSpaceError or InvalidStepError.
    """
    env = make_env(factory)
    _state.envs.append(env)
    try:
        spec = EnvSpec.of(env, factory.name, factory.max_episode_steps)
        observation, info = env.reset(seed=0)
        has_compliance = factory.is_cage2 and "alignment" in info
    except AiotrainError:
        raise
    except BREAKDOWNS as error:
        raise EnvError(f"environment {factory.name} raised in its first reset:\n{traceback.format_exc()}") from error
    if fault := observation_fault(observation, spec):
        raise InvalidStepError(f"environment {factory.name}, first reset(seed=0): {fault}")
    if factory.is_compiled:
        from aiotrain.worker.compiled import compile_rollouts  # imports Numba, which other environments do without

        compile_rollouts()  # once, before there are other workers; precompiled may have done so
    return dataclasses.replace(spec, has_compliance=has_compliance)


def join(posting: Posting, factory: EnvFactory) -> None:
    """Attach to ring and weights and make the environments. Raises EnvError."""
    whole = posting.ring_layout.steps >= (posting.spec.max_episode_steps or math.inf)
    if factory.is_compiled and whole:
        from aiotrain.worker.compiled import CompiledPlayer

        _state.player = CompiledPlayer(posting, factory)
        return
    while len(_state.envs) < posting.envs:
        _state.envs.append(make_env(factory))
    _state.player = Player(posting, factory, _state.envs)


def play(slots: Sequence[int], episodes: Sequence[int], options: Sequence[Mapping[str, Any]]) -> PlayResult:
    """Fill ``slots``, first going on with unfinished episodes, then beginning ``episodes`` in their order.

    ``options`` are what the environment's reset is given, for each of ``episodes``, or none at all.
    """
    assert _state.player is not None, "play before join, or after a task that broke the worker"
    player, _state.player = _state.player, None  # if this raises, no queued task goes on with what is left
    result = player.play(slots, episodes, options)
    _state.player = player
    return result


class _State:
    """What the process keeps between tasks."""

    def __init__(self) -> None:
        self.envs: list[gymnasium.Env[Any, Any]] = []
        self.player: Player | CompiledPlayer | None = None


_state = _State()

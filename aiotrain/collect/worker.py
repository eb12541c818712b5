"""What runs in a worker process: make environments, take slots, play episodes into them.

Each public function here is a task that the event loop submits to the worker's executor. A worker keeps its
environments, its copy of the weights and any episode that outgrew its slots between tasks. All randomness of episode i
comes from (run seed, i), so that it does not matter which worker plays it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import fcntl
import multiprocessing
import multiprocessing.connection
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import threadpoolctl

from aiotrain.errors import EnvError
from aiotrain.play.factory import EnvFactory
from aiotrain.play.inspection import inspect_env
from aiotrain.play.local_player import EpisodePlayer, LocalPlayer, Played, make_player
from aiotrain.play.player import Assignment, PlayResult
from aiotrain.play.spaces import EnvSpec
from aiotrain.transport.ring import Ring
from aiotrain.transport.weights import Weights

__all__ = ["NICENESS", "initialize", "inspect", "join", "play", "play_in_pool", "play_whole"]

NICENESS = 10
"""Below the main process: loop, learner and console stay prompt with more workers than cores."""


def initialize(begun: Connection | None = None) -> None:
    """Set the process up: priority, signals, one BLAS thread, and a watch on the parent.

    ``begun`` is told which tasks are begun; see ``play_in_pool``.
    """
    _state.begun = begun
    os.nice(NICENESS)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the main process alone decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threadpoolctl.threadpool_limits(1)
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker is a child process"
    multiprocessing.util.Finalize(None, _close_envs, exitpriority=10)
    _leave_with_parent(parent.sentinel)


def _close_envs() -> None:
    """Let the environments end what they own, when the process ends of itself."""
    for env in _state.envs:
        with contextlib.suppress(Exception):
            env.close()


def _leave_with_parent(sentinel: int) -> None:
    """Have the system kill this process when the parent's end of the pipe closes, however the parent died.

    A thread that watches the pipe would not come to its turn while compiled code hangs with the interpreter's lock.
    """
    fcntl.fcntl(sentinel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(sentinel, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)
    if multiprocessing.connection.wait([sentinel], 0):  # it has died already
        os._exit(1)


def inspect(factory: EnvFactory) -> EnvSpec:
    """Make an environment, which the worker keeps, and tell what it is like; see ``inspect_env``."""
    env, spec = inspect_env(factory)
    _state.envs.append(env)
    return spec


def join(assignment: Assignment, factory: EnvFactory, ring_name: str, weights_name: str) -> None:
    """Attach to ring and weights and make the environments. Raises EnvError."""
    ring = Ring.attach(ring_name, assignment.ring_layout)
    _state.weights = Weights.attach(weights_name, assignment.policy.size)
    _state.player = make_player(assignment, factory, ring, _state.envs)


def play(slots: Sequence[int], episodes: Sequence[int], options: Sequence[Mapping[str, Any]]) -> PlayResult:
    """Fill ``slots``, first going on with unfinished episodes, then beginning ``episodes`` in their order.

    ``options`` are what the environment's reset is given, for each of ``episodes``, or none at all.
    """
    assert _state.player is not None, "play before join, or after a task that broke the worker"
    assert _state.weights is not None
    player, _state.player = _state.player, None  # if this raises, no queued task goes on with what is left
    _state.version = _state.weights.pull(player.parameters, _state.version)
    player.refresh(_state.version)
    result = player.play(slots, episodes, options)
    _state.player = player
    return result


def play_whole(
    assignment: Assignment,
    factory: EnvFactory,
    parameters: npt.NDArray[np.float32],
    version: int,
    episodes: Sequence[int],
    options: Sequence[Mapping[str, Any]],
    rebuild_env: bool = False,
) -> Played:
    """Play each of ``episodes`` to its end with these weights.

    The process keeps its environments for the next task, unless it is to rebuild them. Raises EnvError.
    """
    keeps = False
    try:
        _state.local = _state.local or LocalPlayer(
            assignment, lambda ring: make_player(assignment, factory, ring, _state.envs)
        )
        played = _state.local.play_whole(parameters, version, episodes, options)
        keeps = not rebuild_env
        return played
    except EnvError as error:
        raise EnvError(f"worker {assignment.worker}: {error}", worker=assignment.worker) from None
    finally:
        if not keeps:
            _close_envs()
            _state.envs.clear()
            _state.local = None


def play_in_pool(number: int, play: Callable[..., Any], assignment: Assignment, *args: Any) -> Any:
    """What ``play`` (such as ``play_whole``) returns, in one process of a pool, which first tells that it begins task
    ``number``."""
    worker = int(multiprocessing.current_process().name)
    assert _state.begun is not None
    _state.begun.send((worker, number))
    return play(dataclasses.replace(assignment, worker=worker), *args)


class _State:
    """What the process keeps between tasks."""

    def __init__(self) -> None:
        self.envs: list[gymnasium.Env[Any, Any]] = []
        self.player: EpisodePlayer | None = None
        self.weights: Weights | None = None
        self.version = -1
        self.local: LocalPlayer | None = None
        self.begun: Connection | None = None


_state = _State()

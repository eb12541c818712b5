"""Tasks of a worker process: make environments, attach to shared memory, play episodes.

The event loop submits these functions to the executor of a worker. Between tasks a worker keeps its environments, its
copy of the weights and any episode that outgrew its slots. All randomness of episode i comes from (run seed, i), so
that it does not matter which worker plays it.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import fcntl
import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import numpy.typing as npt
import threadpoolctl

from aiotrain.collect.cpython_internals import at_end_of_child
from aiotrain.collect.task_clock import TaskClock, not_counted
from aiotrain.errors import EnvError, WorkerError
from aiotrain.play.env_factory import EnvFactory
from aiotrain.play.inspection import close_envs, inspect_env, make_env
from aiotrain.play.player import Assignment, PlayResult
from aiotrain.play.private_ring_player import EpisodePlayer, LocalPlayer, Played, make_player
from aiotrain.play.spaces import EnvSpec
from aiotrain.transport.slot_ring import BROKEN_OFF, PLAYING, Ring
from aiotrain.transport.weights import Weights

__all__ = ["NICENESS", "initialize", "inspect", "join", "play", "play_in_pool", "play_whole"]

NICENESS = 10
"""Below the main process: loop, learner and console stay prompt with more workers than cores."""


def initialize() -> None:
    """Set the process up: priority, signals, one BLAS thread, and a watch on the parent."""
    os.nice(NICENESS)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the main process alone decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threadpoolctl.threadpool_limits(1)
    at_end_of_child(functools.partial(close_envs, _kept.envs))
    parent = multiprocessing.parent_process()
    if parent is None:
        raise WorkerError("this is no child process: workers are started by multiprocessing")
    _leave_with_parent(parent.sentinel)


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
    """Make an environment, which the worker keeps, and return its spec; see ``inspect_env``."""
    env, spec = inspect_env(factory)
    _kept.envs.append(env)
    return spec


def join(
    assignment: Assignment, factory: EnvFactory, ring_name: str, weights_name: str, start_timeout_s: float
) -> None:
    """Attach to ring and weights and make the environments. Raises EnvError."""
    ring = Ring.attach(ring_name, assignment.ring_layout)

    def make() -> gymnasium.Env[Any, Any]:
        is_begun = np.isin(ring.headers["state"], (PLAYING, BROKEN_OFF))
        own = np.flatnonzero(is_begun & (ring.headers["worker"] == assignment.worker))
        with not_counted(ring.headers["began_s"], own, start_timeout_s):
            return make_env(factory)

    weights = Weights.attach(weights_name, assignment.policy.size)
    _kept.joined = _Joined(make_player(assignment, factory, ring, _kept.envs, make), weights, -1)


def play(slots: Sequence[int], episodes: Sequence[int], options: Sequence[Mapping[str, Any]]) -> PlayResult:
    """Play a task by the newest weights; see `EpisodePlayer.play`."""
    joined, _kept.joined = _kept.joined, None  # if playing raises, no queued task goes on with what is left
    if joined is None:
        raise WorkerError("the worker has no player: the task before broke it")
    player, weights, held = joined
    version = weights.pull(player.parameters, held)
    player.refresh(version)
    result = player.play(slots, episodes, options)
    _kept.joined = _Joined(player, weights, version)
    return result


def play_whole(
    clock: TaskClock,
    task: int,
    assignment: Assignment,
    factory: EnvFactory,
    parameters: npt.NDArray[np.float32],
    version: int,
    episodes: Sequence[int],
    options: Sequence[Mapping[str, Any]],
    rebuild_env: bool = False,
) -> Played:
    """Play each of ``episodes`` to its end with these weights, as ``task`` on the clock.

    The process keeps its environments for the next task, unless it is to rebuild them. Raises EnvError.
    """
    clock.take(assignment.worker, task)
    keeps = False
    try:
        _kept.local = _kept.local or make_local_player(clock, assignment, factory, _kept.envs)
        played = _kept.local.play_whole(parameters, version, episodes, options)
        keeps = not rebuild_env
        return played
    except EnvError as error:
        raise EnvError(f"worker {assignment.worker}: {error}", worker=assignment.worker) from None
    finally:
        if not keeps:
            close_envs(_kept.envs)
            _kept.envs.clear()
            _kept.local = None


def play_in_pool(play: Callable[..., Any], clock: TaskClock, task: int, assignment: Assignment, *args: Any) -> Any:
    """Return what ``play`` (such as ``play_whole``) returns, in one process of a pool, whose number is the worker's."""
    worker = int(multiprocessing.current_process().name)
    return play(clock, task, dataclasses.replace(assignment, worker=worker), *args)


def make_local_player(
    clock: TaskClock, assignment: Assignment, factory: EnvFactory, envs: list[gymnasium.Env[Any, Any]]
) -> LocalPlayer:
    """Return a player in ``envs``, to which it adds, that tells the clock when episodes begin. Raises EnvError."""
    worker = assignment.worker

    def make() -> gymnasium.Env[Any, Any]:
        with clock.not_counted(worker):
            return make_env(factory)

    return LocalPlayer(
        assignment, lambda ring: make_player(assignment, factory, ring, envs, make), lambda: clock.begin(worker)
    )


class _Joined(NamedTuple):
    """A worker that shares memory: its player, and the weights that this acts by."""

    player: EpisodePlayer
    weights: Weights
    version: int
    """Of the weights that the player holds; -1 before the first."""


class _Kept:
    """What the process keeps between tasks."""

    def __init__(self) -> None:
        self.envs: list[gymnasium.Env[Any, Any]] = []
        self.joined: _Joined | None = None
        self.local: LocalPlayer | None = None


_kept = _Kept()

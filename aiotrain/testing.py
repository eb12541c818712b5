"""An environment that fails on purpose, for testing what a training does then: yours, or this package's.

    config = Config(env=faulty("CartPole-v1", "kill", at="step", episodes=[3]), workers=2, total_episodes=200)

plays CartPole, and the worker that comes to episode 3 is killed by SIGKILL in its second step, each time it is tried.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import gymnasium
import numpy as np

from aiotrain.config import Config
from aiotrain.play.env_factory import EnvFactory
from aiotrain.play.player import episode_streams

__all__ = ["Fault", "FaultyEnv", "Moment", "cause", "faulty"]

Fault = Literal[
    "raise",
    "sys.exit",
    "os._exit",
    "segfault",
    "kill",
    "memory",
    "hang",
    "ignore sigterm",
    "unpicklable",
    "nan",
    "shape",
]
"""What happens: an exception; the end of the process by ``sys.exit``, ``os._exit(3)``, SIGSEGV or SIGKILL; MemoryError;
a call that never returns, also one that ignores SIGTERM; an info that cannot be pickled; a reward that is NaN and, of a
Box of floats, such an observation; an observation of another shape."""

Moment = Literal["make", "reset", "step", "write", "close"]
"""When: as the environment is made, in ``reset``, in ``step``, as the trainer writes down a reward, in ``close``."""

_RETURNED = ("unpicklable", "nan", "shape")  # by reset and step


def faulty(
    env: str | Callable[..., Any],
    fault: Fault,
    *,
    at: Moment = "step",
    episodes: Sequence[int] | None = None,
    run_seed: int = Config.seed,
    step: int = 2,
    marks: str | os.PathLike[str] | None = None,
) -> Callable[[], FaultyEnv]:
    """A factory for ``env`` (as in Config) with a fault, to be given to Config.

    The fault comes in ``episodes`` of a run with ``run_seed``, in all by default; at "step" and "write", in step number
    ``step`` from 1. With a folder ``marks`` to remember it in, it comes once for each episode, and not when the episode
    is tried again. Faults at "make" and "close" have no episode: they come always, or with ``marks`` once. Raises
    ValueError for a fault that cannot come at that moment, ConfigError for an unknown ``env``.
    """
    if fault not in get_args(Fault) or at not in get_args(Moment):
        raise ValueError(f"fault {fault!r} at {at!r}: choose from {get_args(Fault)} and {get_args(Moment)}")
    if fault in _RETURNED and at not in ("reset", "step"):
        raise ValueError(f"fault {fault!r} is something that reset or step returns, and cannot come at {at!r}")
    inner = EnvFactory.of(env)
    seeds = None if episodes is None else frozenset(episode_streams(run_seed, episode)[0] for episode in episodes)
    folder = None if marks is None else str(marks)

    def make() -> FaultyEnv:
        if at == "make":
            _trouble(fault, folder, "make")
        return FaultyEnv(inner(), fault, at, seeds, step, folder)

    make.__name__ = f"faulty {inner.name}"
    return make


class FaultyEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """What ``faulty`` makes."""

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        fault: Fault,
        at: Moment,
        seeds: frozenset[int] | None,
        step: int,
        marks: str | None,
    ) -> None:
        super().__init__(env)
        self._fault, self._at, self._seeds, self._step, self._marks = fault, at, seeds, step, marks
        self._seed: int | None = None
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's, with the fault."""
        self._seed, self._steps = seed, 0
        observation, info = self.env.reset(seed=seed, options=options)
        if self._at == "reset" and self._is_due():
            observation, _, info = self._spoil(observation, 0.0, info)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's, with the fault."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._steps += 1
        due = self._steps == self._step and self._at in ("step", "write") and self._is_due()
        if due and self._at == "write":
            reward = _Trap(self._fault)
        elif due:
            observation, reward, info = self._spoil(observation, reward, info)
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """As the environment's, with the fault."""
        if self._at == "close":
            _trouble(self._fault, self._marks, "close")
        super().close()

    def _is_due(self) -> bool:
        if self._seeds is not None and self._seed not in self._seeds:
            return False
        return self._marks is None or _is_first(self._marks, str(self._seed))

    def _spoil(self, observation: Any, reward: Any, info: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        match self._fault:
            case "unpicklable":
                return observation, reward, info | {"lock": threading.Lock()}
            case "nan":
                if np.asarray(observation).dtype.kind == "f":
                    observation = np.asarray(observation) * np.float32("nan")
                return observation, float("nan"), info
            case "shape":
                return np.zeros((*np.shape(observation), 7), np.asarray(observation).dtype), reward, info
        cause(self._fault)
        return observation, reward, info


class _Trap:
    """A number that springs a fault when it is read."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def __float__(self) -> float:
        cause(self._fault)
        return 0.0


def _trouble(fault: Fault, marks: str | None, name: str) -> None:
    if marks is None or _is_first(marks, name):
        cause(fault)


def _is_first(folder: str, name: str) -> bool:
    try:
        (Path(folder) / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def cause(fault: Fault) -> None:
    """Do what ``fault`` says, in the process that comes here."""
    match fault:
        case "raise":
            raise RuntimeError("a fault that was injected")
        case "sys.exit":
            sys.exit("a fault that was injected")
        case "memory":
            raise MemoryError("a fault that was injected")
        case "os._exit":
            os._exit(3)
        case "segfault":
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "ignore sigterm":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            cause("hang")
        case "hang":
            while True:
                time.sleep(60)

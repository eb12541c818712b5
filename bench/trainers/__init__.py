"""One program for each trainer that bench.peers compares, each in the idiom of its library.

All train a policy of two tanh layers of 64 units, and a critic of the same size beside it, on a CPU, until they are
interrupted, and print a JSON line after each update. They run in virtual environments of their own, in which of
aiotrain's dependencies only those of its environments are installed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import time
from typing import Any

import gymnasium
import numpy as np

from aiotrain.cage2 import Cage2
from aiotrain.play.env_factory import EnvFactory
from aiotrain.play.spaces import EnvSpec

PPO = dataclasses.replace(Cage2.ppo, epochs=4, minibatch_size=1000)
"""The settings of every trainer, where it has them."""


def parse() -> argparse.Namespace:
    """Return the arguments of a program, which ends in order at SIGINT."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--env", required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--envs-per-worker", type=int, default=1)
    parser.add_argument("--steps-per-update", type=int, required=True)
    # What a shell starts in the background ignores SIGINT, and so does what that starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return parser.parse_args()


class Floats(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Observations as vectors of float32: some libraries' networks take nothing else."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        low, high = (0.0, 1.0) if isinstance(env.observation_space, gymnasium.spaces.MultiBinary) else (-np.inf, np.inf)
        size = gymnasium.spaces.flatdim(env.observation_space)
        self.observation_space = gymnasium.spaces.Box(low, high, (size,), np.float32)

    def observation(self, observation: Any) -> Any:
        return gymnasium.spaces.flatten(self.env.observation_space, observation).astype(np.float32)


def make_env(factory: EnvFactory) -> Floats:
    """Return the environment with observations as vectors of float32."""
    return Floats(factory())


def sizes(factory: EnvFactory) -> tuple[int, int]:
    """Return how many numbers the policy takes, and how many actions it chooses from."""
    spec = EnvSpec.of(factory(), factory.name)
    return spec.inputs, spec.outputs


def report(steps: int) -> None:
    """Tell bench.peers how many environment steps have been learned from."""
    line = json.dumps({"steps": steps, "time": time.perf_counter()})
    os.write(1, f"{line}\n".encode())  # at once, and whole, whatever a library does to sys.stdout

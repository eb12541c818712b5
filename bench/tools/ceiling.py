"""The ceiling of playing: bare processes, one per core, that play with a NumPy policy and communicate nothing."""

from __future__ import annotations

import multiprocessing
import os
import time
from typing import Any

import numpy as np

from aiotrain.collect.worker import initialize
from aiotrain.collect.worker_executor import preload
from aiotrain.config import Config
from aiotrain.play.env_factory import EnvFactory
from aiotrain.play.policy import NumpyPolicy, PolicyShape
from aiotrain.play.spaces import EnvSpec

__all__ = ["Ceiling", "initial_policy"]

_WARM_UP_S = 0.5


class Ceiling:
    """Bare processes, one per core, that wait between measurements. Leaving the block ends them.

    They play the environment that ``factory`` makes, ``envs`` at a time each, with hidden layers of these sizes, at the
    workers' scheduling priority.
    """

    def __init__(self, factory: EnvFactory, envs: int, hidden: tuple[int, ...]) -> None:
        preload(factory.preload)
        processes = len(os.sched_getaffinity(0))
        context = multiprocessing.get_context("forkserver")
        self._start = context.Barrier(processes + 1, timeout=300)
        self._stop = context.Value("i", 0, lock=False)
        self._counts = context.Array("q", processes, lock=False)
        self._processes = [
            context.Process(
                target=_play,
                args=(factory, envs, hidden, self._start, self._stop, self._counts, index),
                daemon=True,
            )
            for index in range(processes)
        ]
        for process in self._processes:
            process.start()

    @classmethod
    def of(cls, config: Config) -> Ceiling:
        """Return the ceiling of what ``config`` is to play."""
        return cls(config.env_factory(), config.envs_per_worker, config.ppo.hidden_sizes)

    def __enter__(self) -> Ceiling:
        self.measure(_WARM_UP_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.value = -1
        self._start.wait()
        for process in self._processes:
            process.join(10)

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [process.pid for process in self._processes if process.pid is not None]

    def measure(self, seconds: float) -> float:
        """Return the steps per second of all processes together."""
        self._stop.value = 0
        self._start.wait()
        began = time.perf_counter()
        time.sleep(seconds)
        self._stop.value = 1
        elapsed = time.perf_counter() - began
        self._start.wait()
        return float(sum(self._counts)) / elapsed


def initial_policy(spec: EnvSpec, hidden: tuple[int, ...]) -> NumpyPolicy:
    """Return a policy with the weights of a learner that has not learned yet."""
    import torch

    from aiotrain import PPOConfig
    from aiotrain.learn.ppo import Learner

    shape = PolicyShape.of(spec, hidden)
    learner = Learner(spec, shape, PPOConfig(hidden_sizes=hidden), seed=0, device=torch.device("cpu"))
    policy = NumpyPolicy(shape)
    policy.parameters[:] = learner.parameters()
    policy.refresh()
    return policy


def _play(
    factory: EnvFactory, envs: int, hidden: tuple[int, ...], start: Any, stop: Any, counts: Any, index: int
) -> None:
    """Play in this process until told to stop; count steps while the measurement runs."""
    initialize()
    try:
        _play_on(factory, envs, hidden, start, stop, counts, index)
    except BaseException:
        start.abort()  # whoever waits for this process is told at once
        raise


def _play_on(
    factory: EnvFactory, envs: int, hidden: tuple[int, ...], start: Any, stop: Any, counts: Any, index: int
) -> None:
    players = [factory() for _ in range(envs)]
    spec = EnvSpec.of(players[0], factory.name, factory.max_episode_steps)
    policy = initial_policy(spec, hidden)
    generator = np.random.default_rng(index)
    low, high = np.array(spec.action_low, spec.action_dtype), np.array(spec.action_high, spec.action_dtype)
    seeds = iter(range(index * 10**6, 10**9))
    observations = [env.reset(seed=next(seeds))[0] for env in players]
    while True:
        start.wait()
        if stop.value < 0:
            return
        steps = 0
        while not stop.value:
            noise = policy.noise(generator, len(players))
            actions, _ = policy.act(spec.encode(np.array(observations)), noise)
            given = list(np.clip(actions, low, high)) if spec.action_kind == "gaussian" else actions.tolist()
            for lane, env in enumerate(players):
                observations[lane], _, terminated, truncated, _ = env.step(given[lane])
                if terminated or truncated:
                    observations[lane] = env.reset(seed=next(seeds))[0]
            steps += len(players)
        counts[index] = steps
        start.wait()

"""A harness that has a collector play, and the collectors there are."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import psutil

from aiotrain.collect.choose_collector import make_collector
from aiotrain.collect.protocol import Launch, Outcome
from aiotrain.config import Config
from aiotrain.domains import Domain
from aiotrain.play.player import episode_streams
from aiotrain.play.policy import PolicyShape
from aiotrain.transport.trajectories import Trajectories
from sample_data import weights_for

SEED = 3
WITHIN_S = 60
COLLECTORS = ("shared_memory", "sequential", "synchronous", "process_per_episode", "executor", "ray")
LIMITED = ("process_per_episode", "executor", "ray")  # play whole episodes, which must therefore end


def seed_of(episode: int) -> int:
    """The seed that the harness's run resets an episode with."""
    return episode_streams(SEED, episode)[0]


def worker_processes() -> list[psutil.Process]:
    """Return the workers of this process, its only descendants that are nice, in the order of their start."""
    descendants = psutil.Process().children(recursive=True)
    return sorted((each for each in descendants if each.nice() > os.nice(0)), key=lambda each: each.pid)


class Play:
    """A collector that is told to play, with what it says along the way."""

    def __init__(
        self,
        env: Callable[..., Any] | str | Domain,
        collector: str = "shared_memory",
        *,
        workers: int = 1,
        envs: int = 1,
        **settings: Any,
    ) -> None:
        self.warnings: list[str] = []
        self.outcomes: list[Outcome] = []
        self.launched: Counter[int] = Counter()
        defaults = {"episode_timeout_s": 60.0, "start_timeout_s": 60.0}
        self.config = Config(
            env=env,
            collector=collector,  # type: ignore[arg-type]
            seed=SEED,
            workers=workers,
            envs_per_worker=envs,
            **(defaults | settings),
        )
        self.collector: Any = make_collector(self.config, SEED, self.config.env_factory(), self.warnings.append)

    async def __aenter__(self) -> Play:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.collector.close()
        await self.collector.close()

    async def open(self, slot_steps: int = 20) -> None:
        spec = await self.collector.start()
        self.shape = PolicyShape.of(spec, (8,))
        await self.collector.open(self.shape, slot_steps)
        self.collector.publish(weights_for(self.shape), 0)

    async def play(
        self, episodes: int, options: Sequence[dict[str, Any]] = (), *, after: Callable[[], None] = lambda: None
    ) -> Trajectories:
        """Play episodes 0, 1, …, each again if it is lost, until all have ended. ``after`` is called before waiting."""
        async with asyncio.timeout(WITHIN_S):
            todo, ended = list(range(episodes)), 0
            parts = []
            while ended < episodes:
                self.collector.submit_unfinished()
                while room := self.collector.room(len(todo)):
                    chosen = tuple(todo[:room])
                    self.launched.update(chosen)
                    self.collector.submit(Launch(0, chosen, tuple(options[each] for each in chosen) if options else ()))
                    del todo[:room]
                after()
                for outcome in await self.collector.outcomes():
                    self.outcomes.append(outcome)
                    todo = sorted([*todo, *outcome.unused, *(lost.episode for lost in outcome.lost)])
                    if outcome.trajectories is not None:
                        parts.append(outcome.trajectories)
                        ended += int(outcome.trajectories.headers["ended"].sum())
        return Trajectories.join(parts)

    @property
    def lost(self) -> list[int]:
        return [lost.episode for outcome in self.outcomes for lost in outcome.lost]

    def assert_one_fate_each(self) -> None:
        """Where every episode ends in the launch that it began in."""
        for outcome in self.outcomes:
            headers = None if outcome.trajectories is None else outcome.trajectories.headers
            ended = [] if headers is None else headers["episode"][headers["ended"]].tolist()
            fates = [*ended, *outcome.unused, *(lost.episode for lost in outcome.lost)]
            assert sorted(fates) == sorted(outcome.launch.episodes), "a launched episode has no fate, or two"
        assert Counter(episode for each in self.outcomes for episode in each.launch.episodes) == self.launched

    async def until(self, holds: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + WITHIN_S
        while not holds():
            assert time.monotonic() < deadline, f"waited in vain until {what}"
            await asyncio.sleep(0.005)


def assert_same_play(a: Trajectories, b: Trajectories, log_prob_within: float = 0.0) -> None:
    """Compare what was played, bit for bit but for log-probabilities."""
    for name in Trajectories.__dataclass_fields__:
        left, right = getattr(a, name), getattr(b, name)
        if name == "headers":
            fields = [field for field in left.dtype.names if field not in ("worker", "began_s")]
            left, right = left[fields], right[fields]
            for field in fields:
                np.testing.assert_array_equal(left[field], right[field], err_msg=field)
        elif name == "log_probs" and log_prob_within:
            np.testing.assert_allclose(left, right, rtol=0, atol=log_prob_within, err_msg=name)
        else:
            np.testing.assert_array_equal(left, right, err_msg=name)

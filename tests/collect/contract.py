"""What the tests of the contract of all collectors share: which collectors, which troubles, and what is expected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from aiotrain.config import Config
from aiotrain.domains import Domain
from aiotrain.testing import Fault
from aiotrain.transport.trajectories import Trajectories
from collector_harness import COLLECTORS, Play

SEPARATE = [name for name in COLLECTORS if name != "sequential"]  # whose environments are in other processes
LIMIT = 1_000  # steps, for the collectors that cannot do without

every = pytest.mark.parametrize("collector", COLLECTORS)
every_separate = pytest.mark.parametrize("collector", SEPARATE)


def player(env: Callable[..., Any] | Domain, collector: str, **settings: Any) -> Play:
    return Play(env, collector, **({"max_episode_steps": LIMIT} | settings))


async def expected(
    env: Callable[..., Any] | Domain, episodes: int, options: Sequence[dict[str, Any]] = (), **settings: Any
) -> Trajectories:
    """The episodes as they are played in this process, one after the other."""
    async with player(env, "sequential", **settings) as one:
        await one.open()
        return await one.play(episodes, options)


def training(env: Callable[..., Any], collector: str, **settings: Any) -> Config:
    defaults = {"episodes_per_update": 6, "max_policy_lag": 0, "workers": 2, "max_episode_steps": LIMIT}
    return Config(env=env, collector=collector, seed=4, device="cpu", **(defaults | settings))  # type: ignore[arg-type]


TROUBLES: dict[Fault, str] = {
    "raise": "RuntimeError: a fault that was injected",
    "sys.exit": "SystemExit: a fault that was injected",
    "os._exit": "exit code 3",
    "kill": "SIGKILL",
    "hang": "hung for",
}
RAYS_WORDS = "the actor's process was lost"  # it does not tell how


def words_for(collector: str, trouble: Fault) -> str:
    return RAYS_WORDS if collector == "ray" and trouble in ("os._exit", "kill") else TROUBLES[trouble]


def each_in(*troubles: Fault) -> Any:
    """Every collector in each of these troubles; what ends or hangs its process, only where that is not this one."""
    survived = dict.fromkeys(SEPARATE, troubles)
    survived["sequential"] = tuple(each for each in troubles if each in ("raise", "sys.exit"))
    return pytest.mark.parametrize(("collector", "trouble"), [(c, t) for c in COLLECTORS for t in survived[c]])

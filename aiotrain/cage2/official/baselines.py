"""Agents that have learned nothing, to compare trained ones with."""

from __future__ import annotations

from typing import Final, Literal, get_args

import gymnasium
import numpy as np
from numpy.typing import NDArray

from aiotrain.cage2.registration import CAGE2_ID
from aiotrain.cage2.scenario import HOST_INDEX, HOST_TYPE, HOSTS, action_index
from aiotrain.cage2.search.best_order import order_of
from aiotrain.cage2.workflows import Order
from aiotrain.errors import ConfigError
from aiotrain.play.env_factory import EnvFactory
from aiotrain.play.policy import NumpyPolicy, PolicyShape
from aiotrain.play.spaces import EnvSpec
from aiotrain.runs.evaluation_episodes import Episodes, Progress

__all__ = ["BASELINES", "Baseline", "baseline_order", "greedy_actions", "play_greedily", "sleeping", "uniform"]

Baseline = Literal["sleep", "random", "greedy-heuristic"]
BASELINES: Final[tuple[Baseline, ...]] = get_args(Baseline)
"""Agents that have learned nothing."""
_GREEDY_ORDER: Final = "critical_first"
"""That the greedy heuristic follows where nobody names another."""
_STEPS: Final = 50_000
"""Steps of the compiled engine that are played at a time, in whole episodes."""
_ENVS: Final = 8
"""Environments on csle-cyborg that are stepped together."""


def baseline_order(agent: str, greedy: bool, workflow: str | None) -> Order | None:
    """Return the order that the agent of this name follows; None if it follows none.

    Raises ConfigError for an agent that there is not, and for what means nothing to it.
    """
    if agent not in BASELINES:
        raise ConfigError(f"there is no agent {agent}; choose from {', '.join(BASELINES)}")
    if greedy:
        raise ConfigError(f"greedy is for the policy of a run; the agent {agent} has none")
    if agent == "greedy-heuristic":
        return order_of(workflow or _GREEDY_ORDER)
    if workflow is not None:
        raise ConfigError(f"workflow means nothing to the agent {agent}")
    return None


def greedy_actions(order: Order) -> NDArray[np.int64]:
    """Return what the greedy heuristic of an order does: restore a host of the first type that red holds, else sleep.

    It looks at the true state, ``info["red_hosts"]``, by which compliance is judged: every fix complies, so that its
    return is what following the order can earn by itself, without decoys and without having to find red first. Among
    the hosts of the type it takes the first. It restores and never removes, because a Remove does not free a host where
    red is privileged. User0, which blue can never free, it leaves alone.

    Returns an int64 array [8192], the action for every set of hosts in Scenario2; for one environment and for a batch
    alike, ``greedy_actions(order)[info["red_hosts"]]`` are the actions.
    """
    red_hosts = np.arange(1 << len(HOSTS))
    actions = np.full(len(red_hosts), action_index("Sleep"))
    freeable = [host for host in HOSTS if host != "User0"]
    for host in sorted(freeable, key=lambda host: order.index(HOST_TYPE[host]), reverse=True):
        actions[red_hosts >> HOST_INDEX[host] & 1 == 1] = action_index("Restore", host)
    return actions


def play_greedily(
    factory: EnvFactory, order: Order, steps: int, episodes: int, run_seed: int, progress: Progress
) -> Episodes:
    """Play episodes of so many ``steps`` by the greedy heuristic of ``order``, which sees the true state."""
    actions = greedy_actions(order)
    count = min(episodes, _STEPS // steps if factory.compiled_player is not None else _ENVS)
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
    return returns.ravel()[:episodes], np.full(episodes, steps), {}


def sleeping(spec: EnvSpec) -> NumpyPolicy:
    """Return a policy that always sleeps."""
    policy = uniform(spec)
    *_, bias = policy.shape.split(policy.parameters)
    bias[action_index("Sleep")] = 1
    return policy.greedy()


def uniform(spec: EnvSpec) -> NumpyPolicy:
    """Return a policy that draws each action with the same probability, whatever it sees."""
    policy = NumpyPolicy(PolicyShape.of(spec, ()))
    _, scale, *_ = policy.shape.split(policy.parameters)
    scale[...] = 1
    policy.refresh()
    return policy

"""What the parts of a training cost one after the other, in one process without rings, loops or other processes."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from aiotrain.cage2 import Cage2
from aiotrain.cage2.workflows import ORDERS
from aiotrain.config import Config
from aiotrain.learn.ppo import Learner
from aiotrain.play.inspection import inspect_env
from aiotrain.play.player import Assignment
from aiotrain.play.policy import PolicyShape
from aiotrain.play.private_ring_player import LocalPlayer, make_player
from aiotrain.transport.trajectories import Trajectories

__all__ = ["parts"]


def parts(config: Config, episodes: int, seconds: float = math.inf) -> dict[str, float]:
    """Play and learn in turn, by a policy that learns from so many episodes or CPU seconds.

    Returns:
        ``play_ms`` and ``learn_ms``, CPU ms per episode; ``steps`` of an episode; ``step_bytes`` of a step in
        the ring.
    """
    torch.set_num_threads(1)
    factory = config.env_factory()
    env, spec = inspect_env(factory)
    shape = PolicyShape.of(spec, config.ppo.hidden_sizes)
    learner = Learner(spec, shape, config.ppo, seed=config.seed, device=torch.device("cpu"))
    chunk = config.episodes_per_update
    options = reset_options(config, chunk)
    layout = spec.ring_layout(max(chunk, config.envs_per_worker), config.slot_steps or spec.slot_steps)
    assignment = Assignment(0, config.envs_per_worker, config.seed, spec, shape, layout)
    player = LocalPlayer(assignment, lambda ring: make_player(assignment, factory, ring, [env]))
    played = learned = 0.0
    first = steps = version = 0
    player.play_whole(learner.parameters(), version, range(1))  # compiles, or loads what is compiled
    while first < episodes and played + learned < seconds:
        began = time.process_time()
        batch: list[Trajectories] = []
        while not batch or sum(part.steps for part in batch) < (config.steps_per_update or 0):
            trajectories = player.play_whole(
                learner.parameters(), version, range(first, first + chunk), options
            ).trajectories
            if trajectories is None:
                raise SystemExit("the environment breaks off every episode")
            batch.append(trajectories)
            first += chunk
        between = time.process_time()
        whole = Trajectories.join(batch) if len(batch) > 1 else batch[0]
        learner.update(whole, min(first / episodes, 1.0))
        played += between - began
        learned += time.process_time() - between
        steps += whole.steps
        version += 1
    return {
        "play_ms": 1e3 * played / first,
        "learn_ms": 1e3 * learned / first,
        "steps": steps / first,
        "step_bytes": layout.nbytes / layout.slots / layout.steps,
    }


def reset_options(config: Config, episodes: int) -> list[dict[str, Any]]:
    """Return the options of so many episodes: as many orders as a search trains together, a part of the batch each."""
    if not (isinstance(config.env, Cage2) and config.env.searches):
        return []
    together = config.env.search.parallel_workflows
    orders = ORDERS[:: len(ORDERS) // together][:together]
    return [{"workflow": orders[together * place // episodes]} for place in range(episodes)]

"""What the parts of a training cost one after the other, in one process without rings, loops or other processes."""

from __future__ import annotations

import math
import time

import torch

from aiotrain.cage2.workflows import ORDERS
from aiotrain.config import Config
from aiotrain.learn.ppo import Learner
from aiotrain.play.factory import make_factory
from aiotrain.play.inspection import inspect_env
from aiotrain.play.local_player import LocalPlayer, make_player
from aiotrain.play.player import Assignment
from aiotrain.play.policy import PolicyShape
from aiotrain.transport.ring import Trajectories


def parts(config: Config, episodes: int, seconds: float = math.inf) -> dict[str, float]:
    """CPU ms per episode of playing and of learning, by a policy that learns from so many episodes or CPU seconds.

    Also the steps of an episode, and the bytes of a step in the ring.
    """
    torch.set_num_threads(1)
    factory = make_factory(config)
    env, spec = inspect_env(factory)
    shape = PolicyShape.of(spec, config.ppo.hidden_sizes)
    learner = Learner(spec, shape, config.ppo, seed=config.seed, device=torch.device("cpu"))
    chunk = config.episodes_per_update
    together = config.workflow_search.parallel_workflows if config.searches else 1
    orders = ORDERS[:: len(ORDERS) // together][:together] if config.searches else []
    options = [{"workflow": orders[len(orders) * place // chunk]} for place in range(chunk)] if orders else []
    layout = spec.ring_layout(max(chunk, config.envs_per_worker), config.slot_steps or spec.slot_steps)
    assignment = Assignment(
        0, config.envs_per_worker, config.seed, spec, shape, layout, config.workflow_search.alignment_lambda
    )
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
            assert trajectories is not None, "the environment breaks off every episode"
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

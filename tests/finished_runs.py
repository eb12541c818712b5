"""What a finished run leaves: a folder with settings and a policy that looks at nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from aiotrain import Config, PPOConfig
from aiotrain.play.inspection import inspect_env
from aiotrain.play.policy import PolicyShape
from aiotrain.runs.journals import Journals
from aiotrain.runs.policy_files import save_weights
from aiotrain.training.reports import columns_of

ROOT = Path(__file__).parents[1]


class Counting(gymnasium.Env[Any, Any]):
    """An episode of some hundred steps, as its seed says. The reward is the action, 0 to 2."""

    observation_space = spaces.MultiBinary(2)
    action_space = spaces.Discrete(3)
    seeds: list[int | None] = []  # noqa: RUF012 (of all instances)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.left = self.length = int(self.np_random.integers(1, 400))
        return np.zeros(2, np.int8), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.left -= 1
        return np.zeros(2, np.int8), float(action), self.left == 0, False, {}


def write_run(
    folder: Path, env: Any = Counting, bias: Callable[[int], float] = lambda output: 0.0, **settings: Any
) -> Path:
    """Write what a run leaves behind; ``bias`` gives the logit of each action, whatever is seen."""
    config = Config(env=env, ppo=PPOConfig(hidden_sizes=()), **settings)
    made, spec = inspect_env(config.env_factory())
    made.close()
    shape = PolicyShape.of(spec, ())
    tensors = {
        "input_mean": np.zeros(shape.inputs, np.float32),
        "input_scale": np.ones(shape.inputs, np.float32),
        "actor.0.weight": np.zeros((shape.outputs, shape.inputs), np.float32),
        "actor.0.bias": np.array([bias(output) for output in range(shape.outputs)], np.float32),
    }
    if shape.kind == "gaussian":
        tensors["log_std"] = np.zeros(shape.outputs, np.float32)
    Journals(folder, config.resolved(), columns_of(spec.metrics)).close()
    save_weights(folder / "weights.safetensors", tensors, shape, spec)
    return folder

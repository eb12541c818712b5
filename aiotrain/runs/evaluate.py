"""Playing episodes with a finished policy, to see what it is worth.

    evaluation = aiotrain.evaluate("runs/NAME", episodes=1_000)
    print(evaluation.mean_return, evaluation.standard_error)

It takes the caller's process and thread: in an event loop, leave it to ``asyncio.to_thread``. Its episodes are none
that the run trained on, whatever the seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aiotrain.domains import Domain
from aiotrain.errors import ConfigError
from aiotrain.runs.evaluation_episodes import Progress, fresh_seed, play
from aiotrain.runs.load_run import Trained, load_run

__all__ = ["Evaluation", "evaluate", "evaluate_policy", "refuse_numbers"]


@dataclass(frozen=True)
class Evaluation:
    """What came of E episodes, in their order."""

    settings: Mapping[str, Any]
    """What was evaluated and how, as plain values."""
    returns: npt.NDArray[np.float64]
    """``[E]``: undiscounted, as the environment gave them."""
    lengths: npt.NDArray[np.int64]
    """``[E]``: steps."""
    metrics: Mapping[str, npt.NDArray[np.float64]]
    """The environment's metrics by name, ``[E]`` each; NaN for episodes that did not tell it."""

    @property
    def mean_return(self) -> float:
        """Mean of the returns."""
        return float(self.returns.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean return."""
        return float(self.returns.std(ddof=1)) / math.sqrt(len(self.returns))

    def summary(self) -> dict[str, float | int]:
        """Return the numbers that tell it all in short; of metrics those that were told, with how many told them."""
        told = {name: values[~np.isnan(values)] for name, values in self.metrics.items()}
        summary: dict[str, float | int] = {
            "mean_return": self.mean_return,
            "standard_error": self.standard_error,
            "median_return": float(np.median(self.returns)),
            "min_return": float(self.returns.min()),
            "max_return": float(self.returns.max()),
            "mean_length": float(self.lengths.mean()),
        }
        for name, values in told.items():
            if len(values):
                summary |= {name: float(values.mean()), f"{name}_count": len(values)}
        return summary


def evaluate(
    run: str | Path,
    *,
    episodes: int = 100,
    greedy: bool = False,
    seed: int = 0,
    env: str | Callable[..., Any] | Domain | None = None,
    max_episode_steps: int | None = None,
    progress: Progress = lambda count, of: None,
) -> Evaluation:
    """Play ``episodes``, at least 2, with the policy of the finished run in the folder ``run``, or of a checkpoint.

    Args:
        run: The folder of a run, or a file in its folder ``checkpoints``. The environment is made as its config.json
            says; where that names a module, it is imported, so let nobody else's run name it.
        episodes: How many to play.
        greedy: Take the most probable action, or the Gaussian's mean, instead of drawing one.
        seed: Seed of all randomness.
        env: Another environment, as of Config.
        max_episode_steps: Truncate episodes after so many steps. Default: as in training.
        progress: Is told now and then how many episodes have been played, and of how many.

    Raises ConfigError, CheckpointError, EnvError or InvalidStepError.
    """
    refuse_numbers(episodes, seed)
    trained = load_run(Path(run), env).limited_to(max_episode_steps)
    return evaluate_policy(trained.greedy() if greedy else trained, episodes=episodes, seed=seed, progress=progress)


def evaluate_policy(
    trained: Trained, *, episodes: int, seed: int, progress: Progress, about: Mapping[str, Any] | None = None
) -> Evaluation:
    """Play ``episodes`` with a policy by its settings. ``about``: what the evaluation's settings tell besides."""
    factory = trained.config.env_factory()
    settings: dict[str, Any] = {"run": str(trained.run), "environment": factory.name, **(about or {})}
    settings |= {"actions": trained.actions, "episodes": episodes, "seed": seed}
    return Evaluation(settings, *play(factory, trained.policy_for, episodes, fresh_seed(seed, 0), progress))


def refuse_numbers(episodes: int, seed: int) -> None:
    """Raise ConfigError for numbers of episodes and seeds that cannot be."""
    if episodes < 2:
        raise ConfigError(f"episodes must be at least 2, not {episodes}: one alone has no standard error")
    if seed < 0:
        raise ConfigError(f"seed cannot be negative ({seed})")

"""aiotrain: an asyncio-native reinforcement-learning trainer.

import asyncio
import aiotrain

result = asyncio.run(aiotrain.train(aiotrain.Config(env="CartPole-v1", workers=2)))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import aiotrain.cage2  # noqa: F401  (registers aiotrain/Cage2-v0 with Gymnasium)

if TYPE_CHECKING:
    from aiotrain.config import Config, PPOConfig, SearchConfig
    from aiotrain.errors import (
        AiotrainError,
        CheckpointError,
        ConfigError,
        DivergenceError,
        EnvError,
        InvalidStepError,
        SharedMemoryError,
        TrainerStateError,
        UnsupportedSpaceError,
        WorkerError,
    )
    from aiotrain.runs.checkpoints import load_policy
    from aiotrain.runs.evaluate import ChallengeEvaluation, Evaluation, evaluate, evaluate_cage2
    from aiotrain.runs.export.export import export
    from aiotrain.training.trainer import Result, Trainer, Update, train

__all__ = [
    "AiotrainError",
    "ChallengeEvaluation",
    "CheckpointError",
    "Config",
    "ConfigError",
    "DivergenceError",
    "EnvError",
    "Evaluation",
    "InvalidStepError",
    "PPOConfig",
    "Result",
    "SearchConfig",
    "SharedMemoryError",
    "Trainer",
    "TrainerStateError",
    "UnsupportedSpaceError",
    "Update",
    "WorkerError",
    "evaluate",
    "evaluate_cage2",
    "export",
    "load_policy",
    "train",
]

# Imported when first asked for: a worker imports this package too, and has no use for the trainer and asyncio.
_HOMES = {
    "aiotrain.runs.checkpoints": ("load_policy",),
    "aiotrain.config": ("Config", "PPOConfig", "SearchConfig"),
    "aiotrain.runs.evaluate": ("ChallengeEvaluation", "Evaluation", "evaluate", "evaluate_cage2"),
    "aiotrain.runs.export.export": ("export",),
    "aiotrain.training.trainer": ("Result", "Trainer", "Update", "train"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((module for module, names in _HOMES.items() if name in names), "aiotrain.errors")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

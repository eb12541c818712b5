"""aiotrain: an asyncio-native reinforcement-learning trainer.

import asyncio
import aiotrain

result = asyncio.run(aiotrain.train(aiotrain.Config(env="CartPole-v1", workers=2)))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiotrain.config import Config
    from aiotrain.domains import Domain, Panel
    from aiotrain.errors import (
        AiotrainError,
        CheckpointError,
        ConfigError,
        CurriculumError,
        DivergenceError,
        EnvError,
        Faults,
        InvalidStepError,
        SharedMemoryError,
        TrainerStateError,
        UnsupportedSpaceError,
        WorkerError,
    )
    from aiotrain.learn.settings import PPOConfig
    from aiotrain.play.env_factory import EnvFactory
    from aiotrain.runs.evaluate import Evaluation, evaluate
    from aiotrain.runs.export.export import export
    from aiotrain.runs.policy_files import load_policy
    from aiotrain.training.curriculum import Curriculum, RunServices
    from aiotrain.training.reports import MetricSummary, Result, Update
    from aiotrain.training.status import Status
    from aiotrain.training.trainer import Trainer, train

__version__ = "0.2.0"

# Where each public name is defined. It is imported when it is first asked for: a worker imports this package too, and
# has no use for the trainer and asyncio.
_HOMES = {
    "aiotrain.config": ("Config",),
    "aiotrain.domains": ("Domain", "Panel"),
    "aiotrain.errors": (
        *("AiotrainError", "CheckpointError", "ConfigError", "CurriculumError", "DivergenceError", "EnvError"),
        "Faults",
        *("InvalidStepError", "SharedMemoryError", "TrainerStateError", "UnsupportedSpaceError", "WorkerError"),
    ),
    "aiotrain.learn.settings": ("PPOConfig",),
    "aiotrain.play.env_factory": ("EnvFactory",),
    "aiotrain.runs.policy_files": ("load_policy",),
    "aiotrain.runs.evaluate": ("Evaluation", "evaluate"),
    "aiotrain.runs.export.export": ("export",),
    "aiotrain.training.curriculum": ("Curriculum", "RunServices"),
    "aiotrain.training.reports": ("MetricSummary", "Result", "Update"),
    "aiotrain.training.status": ("Status",),
    "aiotrain.training.trainer": ("Trainer", "train"),
}

__all__ = [
    "AiotrainError",
    "CheckpointError",
    "Config",
    "ConfigError",
    "Curriculum",
    "CurriculumError",
    "DivergenceError",
    "Domain",
    "EnvError",
    "EnvFactory",
    "Evaluation",
    "Faults",
    "InvalidStepError",
    "MetricSummary",
    "PPOConfig",
    "Panel",
    "Result",
    "RunServices",
    "SharedMemoryError",
    "Status",
    "Trainer",
    "TrainerStateError",
    "UnsupportedSpaceError",
    "Update",
    "WorkerError",
    "__version__",
    "evaluate",
    "export",
    "load_policy",
    "train",
]

# The built-in domain's Gymnasium ids. aiotrain.domains would take longer to import than all the rest.
import_module("aiotrain.cage2.registration").register()


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

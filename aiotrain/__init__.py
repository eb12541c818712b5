"""aiotrain: an asyncio-native reinforcement-learning trainer.

import asyncio
import aiotrain

result = asyncio.run(aiotrain.train(aiotrain.Config(env="CartPole-v1", workers=2)))
"""

from aiotrain.config import Config, PPOConfig
from aiotrain.errors import (
    AiotrainError,
    ConfigError,
    EnvError,
    InvalidStepError,
    SharedMemoryError,
    TrainerStateError,
    UnsupportedSpaceError,
    WorkerError,
)
from aiotrain.trainer import Result, Trainer, Update, train

__all__ = [
    "AiotrainError",
    "Config",
    "ConfigError",
    "EnvError",
    "InvalidStepError",
    "PPOConfig",
    "Result",
    "SharedMemoryError",
    "Trainer",
    "TrainerStateError",
    "UnsupportedSpaceError",
    "Update",
    "WorkerError",
    "train",
]

"""Every error that aiotrain raises, on one page.

AiotrainError
├── ConfigError             a configuration that cannot work: all its faults at once
├── EnvError                the environment cannot be made, used or trusted
│   ├── UnsupportedSpaceError   its spaces are none that a policy is built for
│   └── InvalidStepError        it returned NaN, a wrong shape or a wrong type
├── CheckpointError         a checkpoint cannot be resumed from, or what was learned cannot be saved
├── SharedMemoryError       the ring does not fit, or cannot be created
├── WorkerError             workers die faster than they can be replaced
├── DivergenceError         the policy's parameters are no longer finite
└── TrainerStateError       a trainer is used before it is open, after it is closed, or by two tasks at once

All carry one message and nothing else, so that they survive the way from a worker to the main process.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AiotrainError",
    "CheckpointError",
    "ConfigError",
    "DivergenceError",
    "EnvError",
    "InvalidStepError",
    "SharedMemoryError",
    "TrainerStateError",
    "UnsupportedSpaceError",
    "WorkerError",
]


class AiotrainError(Exception):
    """The base of every error that aiotrain raises on purpose."""


class ConfigError(AiotrainError, ValueError):
    """A configuration that cannot work; the message lists every fault found."""

    @classmethod
    def of(cls, faults: Sequence[str]) -> ConfigError:
        """One error for all ``faults``, a line each."""
        if len(faults) == 1:
            return cls(faults[0])
        return cls("\n".join([f"{len(faults)} settings cannot work:", *(f"  - {fault}" for fault in faults)]))


class EnvError(AiotrainError):
    """The environment cannot be made, used or trusted; the message holds the worker's traceback."""


class UnsupportedSpaceError(EnvError, ConfigError):
    """An observation or action space that no policy here is built for."""


class InvalidStepError(EnvError):
    """The environment returned NaN, a wrong shape or a wrong type; says worker, episode, seed and step."""


class CheckpointError(AiotrainError):
    """A checkpoint cannot be resumed from, or what was learned cannot be saved; says which file and why."""


class SharedMemoryError(AiotrainError):
    """Shared memory is too small or out of reach; says the bytes needed and free, and what to change."""


class WorkerError(AiotrainError):
    """No worker can be kept alive; says how the last ones died."""


class DivergenceError(AiotrainError):
    """The policy's parameters are no longer finite; says after which update, and what to change."""


class TrainerStateError(AiotrainError):
    """A trainer used before it is open, after it is closed, or by two tasks at once."""

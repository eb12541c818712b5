"""A search over workflows at one moment, as the console shows it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["OrderEstimate", "TrainingStatus", "WorkflowStatus"]


@dataclass(frozen=True, slots=True)
class OrderEstimate:
    """What a search believes of an order that it has trained."""

    workflow: str
    """The order: five host types with commas between, most urgent first."""
    mean: float
    """Posterior mean of its environment return."""
    std: float
    """Posterior standard deviation of the same."""
    complied: bool
    """Whether its last training reached the compliance threshold."""


@dataclass(frozen=True, slots=True)
class TrainingStatus:
    """The training of an order at one moment."""

    workflow: str
    """The order: five host types with commas between."""
    iteration: int
    """Number of this training, from 1."""
    episodes: int
    """Episodes learned in this training."""
    compliance: float
    """Mean compliance when it was judged last, 0 to 1; NaN if there is none yet or most episodes fixed nothing."""


@dataclass(frozen=True, slots=True)
class WorkflowStatus:
    """A search over workflows at one moment."""

    running: tuple[TrainingStatus, ...]
    """The orders in training now, or, while the next are chosen, those trained last; at least one."""
    threshold: float
    """Compliance at which a training ends, 0 to 1."""
    trainings: int
    """Trainings that have ended, and were not cut off."""
    complied: int
    """How many of these reached the threshold."""
    best: tuple[OrderEstimate, ...]
    """The best orders trained so far, at most 5, the best first: those that complied, then by posterior mean."""

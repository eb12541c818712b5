"""Status of the search over workflows, for the console."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["OrderEstimate", "TrainingStatus", "WorkflowStatus"]


@dataclass(frozen=True, slots=True)
class OrderEstimate:
    """The search's estimate of an order that was trained."""

    workflow: str
    """The order: five host types separated by commas, most urgent first."""
    mean: float
    """Posterior mean of its environment return."""
    std: float
    """Posterior standard deviation of its environment return."""
    complied: bool
    """Whether its last training reached the compliance threshold."""


@dataclass(frozen=True, slots=True)
class TrainingStatus:
    """The training of an order at one moment."""

    workflow: str
    """The order: five host types separated by commas."""
    iteration: int
    """Number of this training, from 1."""
    episodes: int
    """Episodes learned in this training."""
    compliance: float
    """Mean compliance at the last judgement, 0 to 1; NaN before the first, or if most episodes fixed nothing."""


@dataclass(frozen=True, slots=True)
class WorkflowStatus:
    """The search over workflows at one moment."""

    running: tuple[TrainingStatus, ...]
    """The orders in training, or, while the next ones are chosen, the last ones; at least one."""
    threshold: float
    """Compliance at which a training ends, 0 to 1."""
    trainings: int
    """Finished trainings, without those that were cut off."""
    complied: int
    """How many of these reached the threshold."""
    best: tuple[OrderEstimate, ...]
    """The best trained orders, at most 5: those that complied first, then by posterior mean."""

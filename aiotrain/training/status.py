"""What a run looks like at one moment: the snapshot that the trainer fills and the console draws.

Plain frozen values, so that a snapshot can be drawn in another thread, kept in a test or sent elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiotrain.collect.protocol import WorkerStatus


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


@dataclass(frozen=True, slots=True)
class Status:
    """A run at one moment. Rates are per second of wall time; a quantity without a value yet is NaN."""

    run_name: str
    """Name of the run and of its folder."""
    environment: str
    """What is being played."""
    collector: str
    """Which collector gathers the episodes."""
    device: str
    """Where the learner computes, as torch names it."""
    phase: str
    """One of starting, compiling (the compiled engine is compiled, or loaded if that was done before), training,
    stopping; at the end finished, stopped (left early), interrupted or failed."""

    elapsed_s: float
    """Wall time since the start, in seconds."""
    remaining_s: float | None
    """Expected wall time to the end of the budget, in seconds; None while unknown."""

    episodes_total: int
    """The budget, in episodes."""
    steps_total: int | None
    """The budget in environment steps, if there is one besides."""
    episodes_finished: int
    """Episodes played to their end and kept: learned + waiting."""
    steps_finished: int
    """Environment steps in all trajectories that came back, of unfinished episodes too."""

    episodes_played: int
    """Attempts at episodes that came to an end: learned + waiting + discarded + lost, each counted for itself, those
    before a resume included."""
    episodes_learned: int
    """Episodes that went into an update."""
    episodes_waiting: int
    """Finished episodes in batches that are not learned yet."""
    episodes_discarded: int
    """Episodes that waited when the run ended, before it was resumed: they are played again."""
    episodes_lost: int
    """Attempts at episodes that were lost with a worker or environment; most are tried again."""
    episodes_given_up: int
    """Episodes that were lost and are not tried again."""
    episodes_in_flight: int
    """Trajectories handed to workers and not back yet."""

    episodes_per_s: float
    """Episodes finished per second, over the last few seconds."""
    steps_per_s: float
    """Environment steps per second, over the last few seconds."""
    mean_episodes_per_s: float
    """Episodes finished per second, since the first episode."""
    mean_steps_per_s: float
    """Environment steps per second, since the first episode."""
    episodes_per_s_history: tuple[float, ...]
    """Episodes per second between moments a second or more apart, oldest first, at most 120."""

    workers: tuple[WorkerStatus, ...]
    """All workers, by number."""

    slots: int
    """Slots in the ring."""
    slots_in_use: int
    """Slots lent to tasks: being written, or waiting in a worker's queue."""
    ring_bytes: int
    """Size of the ring, in bytes."""

    policy_version: int
    """Version of the weights published last."""
    policy_lag: float
    """Mean policy lag of the last batch, in publishes."""

    collect_share: float
    """Share of the main process's wall time spent waiting for episodes, 0 to 1."""
    learn_share: float
    """Share of the main process's wall time with the learner at work, 0 to 1."""
    idle_share: float
    """Share of the main process's wall time with neither, 0 to 1."""
    worker_busy_share: float
    """Share of time that workers play, 0 to 1, averaged over workers."""

    returns: tuple[tuple[int, float], ...]
    """For each update: (episodes learned so far, mean return of the batch)."""
    compliance: float
    """Mean compliance of the last update's episodes that have one, 0 to 1; NaN without a workflow."""
    losses: Mapping[str, float]
    """Metrics of the last update: policy_loss, value_loss, entropy, approx_kl, clip_fraction,
    explained_variance, learning_rate."""
    updates: int
    """Learner updates done."""

    warnings: tuple[str, ...]
    """What went wrong without ending the run, newest last, at most 100."""
    warnings_count: int
    """How many there were in all."""
    first_error: str | None
    """The first error of the run, if there was one."""

    workflow: WorkflowStatus | None = None
    """The search over workflows; None in a run without one, and before its first order is chosen."""

    @property
    def progress(self) -> float:
        """Share of the budget that is played, 0 to 1."""
        shares = [self.episodes_finished / self.episodes_total]
        if self.steps_total is not None:
            shares.append(self.steps_finished / self.steps_total)
        return min(max(shares), 1.0)

    @property
    def adds_up(self) -> bool:
        """Whether the account is exact, as it must be at every moment: its terms are counted apart."""
        kept = self.episodes_learned + self.episodes_waiting
        thrown_away = self.episodes_discarded + self.episodes_lost
        return self.episodes_finished == kept and self.episodes_played == kept + thrown_away

    @property
    def over(self) -> bool:
        """Whether the run has ended, in whatever way."""
        return self.phase in ("finished", "stopped", "interrupted", "failed")

"""What a run looks like at one moment: the snapshot that the trainer fills and the console draws.

Plain frozen values, so that a snapshot can be drawn in another thread, kept in a test or sent elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiotrain.collect.protocol import CollectorStatus, WorkerStatus
from aiotrain.config import Config
from aiotrain.domains import part_of
from aiotrain.errors import documented
from aiotrain.play.env_factory import EnvFactory
from aiotrain.training.batcher import Counts
from aiotrain.training.events import RunEvents
from aiotrain.training.reports import GROUPS, Ledger, MetricSummary
from aiotrain.training.throughput import Throughput

if TYPE_CHECKING:
    from aiotrain.training.training_run import TrainingRun

__all__ = ["Status", "status_of"]


@documented
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
    """One of starting, compiling (the environment's compiled player is compiled, or loaded if that was done before),
    training, stopping; at the end finished, stopped (left early), interrupted or failed."""

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
    batch_episodes: int
    """Episodes that ended in the batch of the last update."""
    metrics: Mapping[str, MetricSummary]
    """The environment's metrics in the last update, those that some episode told."""
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

    curriculum: Any = None
    """What the curriculum tells of itself, for the domain's panel; None for nothing."""

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
        gone = self.episodes_discarded + self.episodes_lost
        return self.episodes_finished == kept and self.episodes_played == kept + gone

    @property
    def over(self) -> bool:
        """Whether the run has ended, in whatever way."""
        return self.phase in ("finished", "stopped", "interrupted", "failed")


def status_of(
    config: Config,
    factory: EnvFactory,
    collector: CollectorStatus,
    events: RunEvents,
    ledger: Ledger,
    run: TrainingRun | None,
) -> Status:
    """Return the status of a run; ``run`` is None before its environment is known."""
    counts, throughput = (Counts(), Throughput()) if run is None else (run.batcher.counts, run.feeder.throughput)
    last = ledger.last
    trained_s = max(ledger.trained_s(), 1e-9)
    workers_s = max(ledger.trained_now_s(), 1e-9) * len(collector.workers)
    episodes_per_s, steps_per_s = throughput.rates()
    mean_episodes_per_s, mean_steps_per_s = throughput.mean_rates()
    return Status(
        run_name=Path(config.run_dir or "").name or "aiotrain",
        environment=_environment(config, factory),
        collector=config.collector,
        device=config.device if run is None else str(run.learner.device),
        phase=events.phase,
        elapsed_s=ledger.elapsed_s(),
        remaining_s=ledger.remaining_s(config),
        episodes_total=config.total_episodes,
        steps_total=config.total_steps,
        episodes_finished=counts.finished,
        steps_finished=counts.steps,
        episodes_played=counts.played,
        episodes_learned=ledger.episodes,
        episodes_waiting=counts.waiting,
        episodes_discarded=counts.discarded,
        episodes_lost=counts.lost,
        episodes_given_up=counts.given_up,
        episodes_in_flight=counts.in_flight,
        episodes_per_s=episodes_per_s,
        steps_per_s=steps_per_s,
        mean_episodes_per_s=mean_episodes_per_s,
        mean_steps_per_s=mean_steps_per_s,
        episodes_per_s_history=throughput.history(),
        workers=collector.workers,
        slots=collector.slots,
        slots_in_use=collector.slots_in_use,
        ring_bytes=collector.ring_bytes,
        policy_version=0 if run is None else run.version,
        policy_lag=last.policy_lag if last else 0.0,
        collect_share=ledger.collect_s / trained_s,
        learn_share=ledger.learn_s / trained_s,
        idle_share=max(0.0, 1 - (ledger.collect_s + ledger.learn_s) / trained_s),
        worker_busy_share=min(1.0, collector.busy_s / workers_s),
        returns=tuple(ledger.returns),
        batch_episodes=0 if last is None else last.batch_episodes,
        metrics={} if last is None else last.metrics,
        losses={} if last is None else {name: getattr(last, name) for name, group in GROUPS.items() if group == "loss"},
        updates=len(ledger.returns),
        warnings=tuple(events.warnings),
        warnings_count=events.warnings_count,
        first_error=events.first_error,
        curriculum=None if run is None else run.curriculum.status(),
    )


def _environment(config: Config, factory: EnvFactory) -> str:
    """Return what is being played, in a few words."""
    if (domain := config.domain) is None:
        return factory.name
    return part_of(domain, "title", str, lambda: domain.title)

"""What a training reports: each update, and the sum of it all at the end."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aiotrain.config import Config
from aiotrain.errors import ConfigError, documented
from aiotrain.runs.checkpoints import natural
from aiotrain.runs.journals import LABEL
from aiotrain.transport.trajectories import Trajectories

__all__ = ["GROUPS", "Ledger", "MetricSummary", "Result", "Update", "columns_of"]

_RECENT = 10  # updates


@documented
@dataclass(frozen=True)
class MetricSummary:
    """A metric of the environment over the episodes that told it."""

    mean: float
    """Mean over these episodes."""
    count: int
    """Episodes that told it, at least 1."""


def _in(group: str) -> Any:
    """A field of Update that is a column of updates.csv; ``group``: where it stands in TensorBoard."""
    return dataclasses.field(metadata={"group": group})


@documented
@dataclass(frozen=True, kw_only=True)
class Update:
    """One update of the learner. A mean over no episode is NaN."""

    update: int = _in("progress")
    """Number of the update, from 1."""
    elapsed_s: float = _in("progress")
    """Wall time since the start of the run, seconds."""
    episodes: int = _in("progress")
    """Episodes learned so far."""
    steps: int = _in("progress")
    """Environment steps learned so far."""
    mean_return: float = _in("return")
    """Mean undiscounted return of the episodes that ended in the batch."""
    min_return: float = _in("return")
    """Lowest return in the batch."""
    max_return: float = _in("return")
    """Highest return in the batch."""
    mean_bonus: float = _in("return")
    """Mean bonus of an episode, which the learner gets on top of the return."""
    mean_length: float = _in("return")
    """Mean length of the episodes that ended in the batch, steps."""
    batch_episodes: int = _in("batch")
    """Episodes that ended in the batch."""
    batch_steps: int = _in("batch")
    """Steps in the batch."""
    played: int = _in("account")
    """Attempts at episodes that came to an end so far: episodes + waiting + discarded + lost."""
    waiting: int = _in("account")
    """Finished episodes in batches that are not learned yet."""
    discarded: int = _in("account")
    """Episodes that waited when the run ended, before it was resumed."""
    lost: int = _in("account")
    """Attempts that were lost with a worker or environment so far."""
    given_up: int = _in("account")
    """Lost episodes that are not tried again."""
    policy_lag: float = _in("batch")
    """Mean over steps of the learner's version minus the acting version, publishes."""
    max_policy_lag: int = _in("batch")
    """Largest such lag in the batch, publishes."""
    policy_loss: float = _in("loss")
    """Clipped surrogate."""
    value_loss: float = _in("loss")
    """Half the mean squared error of the value, in units of the scaled reward."""
    entropy: float = _in("loss")
    """Mean entropy of the policy, nats."""
    approx_kl: float = _in("loss")
    """Divergence of the updated policy from what it was before, nats."""
    clip_fraction: float = _in("loss")
    """Share of steps whose ratio was clipped, 0 to 1."""
    explained_variance: float = _in("loss")
    """1 - variance of the value's error / variance of the returns, before learning."""
    learning_rate: float = _in("loss")
    """Step size of this update."""
    collect_s: float = _in("time")
    """Seconds that the learner waited for the batch."""
    learn_s: float = _in("time")
    """Seconds that the update took, with what the curriculum did after it."""
    episodes_per_s: float = _in("time")
    """Episodes learned per second of wall time since the update before."""
    metrics: Mapping[str, MetricSummary]
    """The environment's metrics, those that some episode of the batch told."""
    returns: tuple[float, ...]
    """Return of each episode that ended in the batch, in the order in which they were launched."""

    def row(self, metrics: Sequence[str]) -> dict[str, float | int | None]:
        """Return the numbers by column of updates.csv, see `columns_of`; None for a metric that no episode told."""
        row: dict[str, float | int | None] = {name: getattr(self, name) for name in GROUPS}
        for name in metrics:
            told = self.metrics.get(name)
            row |= {name: None if told is None else told.mean, f"{name}_count": 0 if told is None else told.count}
        return row


GROUPS: Final[Mapping[str, str]] = {
    each.name: each.metadata["group"] for each in dataclasses.fields(Update) if "group" in each.metadata
}
"""The group of each number that every update reports, in the order of the columns."""

_TAKEN_ELSEWHERE: Final = frozenset(
    {
        *("learned", "return", "best", "eps", "sps", "lag"),  # in a line of the log
        *("standard_error", "median_return"),  # in the summary of an evaluation
        *("run", "environment", "actions", "seed"),  # in its settings
    }
)
"""Names that no metric may have beside those in `GROUPS`, as both would stand in one line or one file."""


def columns_of(metrics: Sequence[str]) -> dict[str, str]:
    """Return the group of each column of updates.csv in a run with these metrics.

    Raises ConfigError for a metric that would have the name of another column, or of another number in the log or in
    evaluation.json.
    """
    columns = dict(GROUPS)
    for name in metrics:
        for column in (name, f"{name}_count"):
            if column in columns or column == LABEL:
                raise ConfigError(f"metrics: {name} needs a column {column}, which updates.csv has already; rename it")
            if column in _TAKEN_ELSEWHERE:
                raise ConfigError(
                    f"metrics: {name} needs the name {column}, which the log or an evaluation gives to another number; "
                    "rename it"
                )
            columns[column] = "metrics"
    return columns


class Ledger:
    """Counts what was learned, and reports each update. ``metrics``: names of the environment's metrics."""

    def __init__(self, metrics: Sequence[str]) -> None:
        self._metrics = tuple(metrics)
        self._started_s = self._updated_s = time.monotonic()  # where it was resumed, as if it had not been away
        self._training_since_s: float | None = None
        self._trained_before_s = 0.0
        self._stopped_s: float | None = None
        self.episodes = 0
        self.steps = 0
        self.collect_s = 0.0
        """Seconds that the learner waited for batches, all together."""
        self.learn_s = 0.0
        """Seconds that it learned."""
        self.last: Update | None = None
        self.returns: list[tuple[int, float]] = []
        """Episodes learned, and the mean return, at each update."""

    def add(
        self,
        batch: Trajectories,
        version: int,
        *,
        losses: Mapping[str, float],
        account: Mapping[str, int],
        collect_s: float,
        learn_s: float,
    ) -> Update:
        """Return the report of the update that made policy ``version`` - 1 into ``version`` from ``batch``.

        ``losses``: the numbers of the group loss by name. ``account``: those of the group account.
        """
        headers = batch.headers
        ended = headers[headers["ended"]]
        returns = tuple(ended["episode_return"].tolist())
        lags = version - 1 - headers["version"]
        now = time.monotonic()
        self.episodes += len(ended)
        self.steps += batch.steps
        self.collect_s += collect_s
        self.learn_s += learn_s
        report: dict[str, Any] = {
            "update": len(self.returns) + 1,
            "elapsed_s": now - self._started_s,
            "episodes": self.episodes,
            "steps": self.steps,
            "mean_return": statistics.fmean(returns) if returns else math.nan,
            "min_return": min(returns, default=math.nan),
            "max_return": max(returns, default=math.nan),
            "mean_bonus": float(ended["episode_bonus"].mean()) if returns else math.nan,
            "mean_length": float(ended["episode_steps"].mean()) if returns else math.nan,
            "batch_episodes": len(ended),
            "batch_steps": batch.steps,
            "policy_lag": float(np.average(lags, weights=headers["length"])),
            "max_policy_lag": int(lags.max()),
            "collect_s": collect_s,
            "learn_s": learn_s,
            "episodes_per_s": len(ended) / max(now - self._updated_s, 1e-9),
            "metrics": {name: told for name in self._metrics if (told := _summary(ended[name])) is not None},
            "returns": returns,
            **losses,
            **account,
        }
        self.last = Update(**report)
        self._updated_s = now
        self.returns.append((self.episodes, self.last.mean_return))
        return self.last

    def start_training(self) -> None:
        """Note that the training begins."""
        self._training_since_s = time.monotonic()

    def stop(self) -> None:
        """Stop the clock."""
        self._stopped_s = time.monotonic()

    def elapsed_s(self) -> float:
        """Return the seconds that the run has taken, those before it was resumed included."""
        return (self._stopped_s or time.monotonic()) - self._started_s

    def trained_s(self) -> float:
        """Return how many of these it has been training."""
        return self._trained_before_s + self.trained_now_s()

    def trained_now_s(self) -> float:
        """Return the seconds that it has been training since it was begun or resumed."""
        return 0.0 if self._training_since_s is None else (self._stopped_s or time.monotonic()) - self._training_since_s

    def remaining_s(self, config: Config) -> float | None:
        """Return how long the rest of the budget takes if it goes on as before, seconds; None while unknown."""
        share = self.share_of(config)
        return self.trained_s() * (1 - share) / share if share > 0 else None

    def share_of(self, config: Config) -> float:
        """Return the share of the budget that is learned, 0 to 1."""
        shares = [self.episodes / config.total_episodes]
        if config.total_steps is not None:
            shares.append(self.steps / config.total_steps)
        return min(max(shares), 1.0)

    def recent_return(self) -> float:
        """Return the mean over the last ten updates of their mean returns; NaN if no episode ended in them."""
        known = [mean for _, mean in self.returns[-_RECENT:] if not math.isnan(mean)]
        return statistics.fmean(known) if known else math.nan

    def state_dict(self) -> dict[str, Any]:
        """Return all counts and reports, for `load_state_dict`."""
        return {
            "elapsed_s": self.elapsed_s(),
            "trained_s": self.trained_s(),
            "episodes": self.episodes,
            "steps": self.steps,
            "collect_s": self.collect_s,
            "learn_s": self.learn_s,
            "returns": np.array(self.returns, np.float64).reshape(-1, 2),
            "last": None if self.last is None else self.last.row(self._metrics),
            "last_returns": np.array(() if self.last is None else self.last.returns, np.float64),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned. Raises KeyError, TypeError or ValueError."""
        returns = np.asarray(state["returns"], np.float64).reshape(-1, 2)
        if not np.isfinite(returns[:, 0]).all():
            raise ValueError("it does not tell how many episodes each update had learned")
        self.episodes, self.steps = natural(state["episodes"]), natural(state["steps"])
        seconds = [float(state[name]) for name in ("elapsed_s", "trained_s", "collect_s", "learn_s")]
        if not all(0 <= each < math.inf for each in seconds):
            raise ValueError(f"{seconds} is no time that a run takes")
        elapsed_s, self._trained_before_s, self.collect_s, self.learn_s = seconds
        self.returns = [(int(count), mean) for count, mean in returns.tolist()]
        if state["last"] is not None:
            last_returns = np.asarray(state["last_returns"], np.float64).ravel()
            self.last = self._read(dict(state["last"]), tuple(last_returns.tolist()))
        self._started_s -= elapsed_s
        self._updated_s = time.monotonic()

    def _read(self, row: Mapping[str, Any], returns: tuple[float, ...]) -> Update:
        """Return the update that `Update.row` told."""
        if row.keys() != columns_of(self._metrics).keys():
            raise ValueError("its last update has other metrics than there are now")
        numbers: dict[str, Any] = {name: row[name] if type(row[name]) is int else float(row[name]) for name in GROUPS}
        metrics = {
            name: MetricSummary(float(row[name]), natural(row[f"{name}_count"]))
            for name in self._metrics
            if row[name] is not None
        }
        return Update(**numbers, metrics=metrics, returns=returns)


def _summary(told: npt.NDArray[np.float64]) -> MetricSummary | None:
    """Return mean and count of the values that are there; None if all are NaN."""
    known = told[~np.isnan(told)]
    return MetricSummary(float(known.mean()), len(known)) if len(known) else None


@documented
@dataclass(frozen=True)
class Result:
    """What a training came to."""

    episodes: int
    """Episodes learned."""
    steps: int
    """Environment steps learned."""
    updates: int
    """Updates of the learner."""
    mean_return: float
    """Mean return of the last update's episodes."""
    lost: int
    """Attempts at episodes that were lost with a worker or environment."""
    elapsed_s: float
    """Wall time of the run, seconds."""
    weights: np.ndarray[Any, np.dtype[np.float32]]
    """The policy's parameters, as play.policy.PolicyShape lays them out."""

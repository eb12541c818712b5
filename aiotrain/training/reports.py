"""What a training gives its caller: a report of each update, and the sum of it all at the end."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from aiotrain.config import Config
from aiotrain.runs.checkpoints import natural
from aiotrain.transport.ring import Trajectories

__all__ = ["Ledger", "Result", "Update"]


@dataclass(frozen=True)
class Update:
    """One learner update. Every metric of records.METRICS is an attribute: ``update.mean_return``."""

    values: Mapping[str, float]
    """All metrics by name."""
    returns: tuple[float, ...]
    """Return of each episode that ended in the batch, in the order in which they were launched."""

    def __getattr__(self, name: str) -> float:
        values: Mapping[str, float] = self.__dict__.get("values", {})  # not there yet while copied or unpickled
        try:
            return values[name]
        except KeyError:
            raise AttributeError(f"an update has no metric {name!r}; it has {', '.join(values)}") from None


class Ledger:
    """Counts what was learned, and reports each update."""

    def __init__(self) -> None:
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
        self, batch: Trajectories, version: int, metrics: Mapping[str, float], *, collect_s: float, learn_s: float
    ) -> Update:
        """The report of the update that made policy ``version`` - 1 into ``version`` by learning from ``batch``."""
        headers = batch.headers
        ended = headers[headers["ended"]]
        returns = tuple(ended["episode_return"].tolist())
        compliance = ended["compliance"][~np.isnan(ended["compliance"])]
        lags = version - 1 - headers["version"]
        now = time.monotonic()
        self.episodes += len(ended)
        self.steps += batch.steps
        self.collect_s += collect_s
        self.learn_s += learn_s
        self.last = Update(
            {
                "update": len(self.returns) + 1,
                "elapsed_s": now - self._started_s,
                "episodes": self.episodes,
                "steps": self.steps,
                "mean_return": statistics.fmean(returns) if returns else math.nan,
                "min_return": min(returns, default=math.nan),
                "max_return": max(returns, default=math.nan),
                "mean_bonus": float(ended["episode_bonus"].mean()) if returns else math.nan,
                "compliance": float(compliance.mean()) if len(compliance) else math.nan,
                "compliance_share": len(compliance) / len(ended) if returns else math.nan,
                "mean_length": float(ended["episode_steps"].mean()) if returns else math.nan,
                "batch_episodes": len(ended),
                "batch_steps": batch.steps,
                "policy_lag": float(np.average(lags, weights=headers["length"])),
                "max_policy_lag": int(lags.max()),
                **metrics,
                "collect_s": collect_s,
                "learn_s": learn_s,
                "episodes_per_s": len(ended) / max(now - self._updated_s, 1e-9),
            },
            returns,
        )
        self._updated_s = now
        self.returns.append((self.episodes, self.last.mean_return))
        return self.last

    def start_training(self) -> None:
        """From now on, it is training."""
        self._training_since_s = time.monotonic()

    def stop(self) -> None:
        """The time stands still."""
        self._stopped_s = time.monotonic()

    def elapsed_s(self) -> float:
        """Seconds that the run has taken, those before it was resumed included."""
        return (self._stopped_s or time.monotonic()) - self._started_s

    def trained_s(self) -> float:
        """Seconds of these that it has been training."""
        return self._trained_before_s + self.trained_now_s()

    def trained_now_s(self) -> float:
        """Seconds that it has been training since it was begun or resumed."""
        return 0.0 if self._training_since_s is None else (self._stopped_s or time.monotonic()) - self._training_since_s

    def share_of(self, config: Config) -> float:
        """Share of the budget that is learned, 0 to 1."""
        shares = [self.episodes / config.total_episodes]
        if config.total_steps is not None:
            shares.append(self.steps / config.total_steps)
        return min(max(shares), 1.0)

    def recent_return(self, updates: int = 10) -> float:
        """Mean over the last ``updates`` of their mean returns; NaN if no episode ended in them."""
        known = [mean for _, mean in self.returns[-updates:] if not math.isnan(mean)]
        return statistics.fmean(known) if known else math.nan

    def state_dict(self) -> dict[str, Any]:
        """All counts and reports, for `load_state_dict`."""
        return {
            "elapsed_s": self.elapsed_s(),
            "trained_s": self.trained_s(),
            "episodes": self.episodes,
            "steps": self.steps,
            "collect_s": self.collect_s,
            "learn_s": self.learn_s,
            "returns": np.array(self.returns, np.float64).reshape(-1, 2),
            "last": None if self.last is None else dict(self.last.values),
            "last_returns": np.array(() if self.last is None else self.last.returns, np.float64),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave. Raises KeyError, TypeError or ValueError."""
        episodes, means = state["returns"].T.tolist()
        self.episodes, self.steps = natural(state["episodes"]), natural(state["steps"])
        seconds = [float(state[name]) for name in ("elapsed_s", "trained_s", "collect_s", "learn_s")]
        if not all(0 <= each < math.inf for each in seconds):
            raise ValueError(f"{seconds} is no time that a run takes")
        elapsed_s, self._trained_before_s, self.collect_s, self.learn_s = seconds
        self.returns = [(int(count), mean) for count, mean in zip(episodes, means, strict=True)]
        if state["last"] is not None:
            values = {str(name): value if type(value) is int else float(value) for name, value in state["last"].items()}
            self.last = Update(values, tuple(state["last_returns"].tolist()))
        self._started_s -= elapsed_s
        self._updated_s = time.monotonic()


@dataclass(frozen=True)
class Result:
    """What a training came to."""

    episodes: int
    """Episodes learned."""
    steps: int
    """Environment steps learned."""
    updates: int
    mean_return: float
    """Mean return of the last update's episodes."""
    lost: int
    """Attempts at episodes that were lost with a worker or environment."""
    elapsed_s: float
    weights: np.ndarray[Any, np.dtype[np.float32]]
    """The policy's parameters, as policy.PolicyShape lays them out."""

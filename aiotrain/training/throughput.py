"""Throughput: rates over time, from counts that only grow."""

from __future__ import annotations

import itertools
import time
from collections import deque

__all__ = ["Throughput"]

_WINDOW_S = 5
_HISTORY_S = 120


class Throughput:
    """Rates of finished episodes and steps, from their counts at each tick."""

    def __init__(self) -> None:
        self._ticks: deque[tuple[float, int, int]] = deque(maxlen=_HISTORY_S)  # (monotonic time, episodes, steps)
        self._first: tuple[float, int, int] | None = None
        self._last = (0.0, 0, 0)

    def tick(self, episodes: int, steps: int) -> None:
        """Note the counts now; until there is a first step, nothing is noted."""
        if not steps:
            return
        self._last = (time.monotonic(), episodes, steps)
        self._first = self._first or self._last
        if not self._ticks or self._last[0] - self._ticks[-1][0] >= 1.0:
            self._ticks.append(self._last)

    def rates(self) -> tuple[float, float]:
        """(episodes/s, steps/s) over the last few seconds."""
        now = time.monotonic()
        since = next((tick for tick in self._ticks if now - tick[0] <= _WINDOW_S), self._last)
        return _between(since, (now, *self._last[1:]))

    def mean_rates(self) -> tuple[float, float]:
        """(episodes/s, steps/s) since the first episode."""
        return _between(self._first or self._last, self._last)

    def history(self) -> tuple[float, ...]:
        """Episodes/s between ticks that are a second or more apart, oldest first."""
        return tuple(_between(a, b)[0] for a, b in itertools.pairwise(self._ticks))


def _between(a: tuple[float, int, int], b: tuple[float, int, int]) -> tuple[float, float]:
    seconds = b[0] - a[0]
    return ((b[1] - a[1]) / seconds, (b[2] - a[2]) / seconds) if seconds > 0 else (0.0, 0.0)

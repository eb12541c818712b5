"""The time of an episode whose environment is stepped from here, call by call."""

from __future__ import annotations

from aiotrain.collect.protocol import CollectorSettings

__all__ = ["EpisodeTimer"]


class EpisodeTimer:
    """Adds up what an environment takes for an episode, or for as much of it as fits a slot."""

    def __init__(self, settings: CollectorSettings, slot_steps: int) -> None:
        self._limit_s, self._slot_steps = settings.episode_timeout_s, slot_steps
        self.begin()

    def begin(self) -> None:
        """Note that a reset follows."""
        self._spent_s, self._steps = 0.0, 0

    def begin_step(self) -> None:
        """Note that a step follows, perhaps the first in a further slot."""
        if self._steps == self._slot_steps:
            self.begin()
        self._steps += 1

    def spend(self, seconds: float) -> None:
        """Count what a call took."""
        self._spent_s += seconds

    @property
    def left_s(self) -> float:
        """Seconds that the next call may take; negative if the time is over."""
        return self._limit_s - self._spent_s

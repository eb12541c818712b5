"""The curriculum: walks begin further and further away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from aiotrain import Curriculum, RunServices
from maze_domain.domain import PASSED


class LessonStatus(NamedTuple):
    """What the panel shows."""

    start: int
    length: int


class Further(Curriculum):
    """Begins at cell 1, and one cell further away after each batch that went well."""

    def __init__(self, run: RunServices, length: int, enough: float) -> None:
        super().__init__(run)
        self._length, self._enough = length, enough
        self.start = 1

    def plan(self, batch: int) -> Sequence[Mapping[str, Any]]:
        return [{"start": self.start}]

    def label(self, batch: int) -> str:
        return f"from {self.start}"

    def learned(self, batch: int, episodes: npt.NDArray[np.void], parts: npt.NDArray[np.int64]) -> None:
        if len(episodes) and episodes["success"].mean() >= self._enough and self.start < self._length - 1:
            self.start += 1
            self.run.event("lesson", start=self.start)
            self.run.save_policy(PASSED)

    def status(self) -> LessonStatus:
        return LessonStatus(self.start, self._length)

    def state_dict(self) -> dict[str, Any]:
        return {"start": self.start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.start = int(state["start"])

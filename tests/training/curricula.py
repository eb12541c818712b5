"""Small curricula, to be named as curricula:Class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from aiotrain import Config, Curriculum, Domain, EnvFactory, RunServices
from envs import Toy


class Raising(Curriculum):
    """Pays two kinds of episodes in every batch: the second kind pays one more after each batch that was learned."""

    def __init__(self, run: RunServices) -> None:
        super().__init__(run)
        self.worth = 1.0

    def plan(self, batch: int) -> Sequence[Mapping[str, Any]] | None:
        return [{"worth": 0.0}, {"worth": self.worth}]

    def label(self, batch: int) -> str:
        return f"batch {batch}"

    def learned(self, batch: int, episodes: npt.NDArray[np.void], parts: npt.NDArray[np.int64]) -> None:
        paid = episodes["episode_return"] / episodes["episode_steps"]
        assert (paid[parts == 0] == 0).all(), "an episode of the second part is told as one of the first"
        self.worth += float(paid[parts == 1].max() > 0)

    def status(self) -> float:
        return self.worth

    def state_dict(self) -> dict[str, Any]:
        return {"worth": self.worth}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.worth = float(state["worth"])


class Recording(Curriculum):
    """Notes what it is asked and told, in ``calls`` of the class, and what it is given in ``run``."""

    calls: list[Any]

    def __init__(self, run: RunServices) -> None:
        super().__init__(run)
        type(self).calls = []

    def plan(self, batch: int) -> Sequence[Mapping[str, Any]] | None:
        self.calls.append(("plan", batch))
        return [{}]

    def learned(self, batch: int, episodes: npt.NDArray[np.void], parts: npt.NDArray[np.int64]) -> None:
        self.calls.append(("learned", batch, len(episodes)))

    def advance(self, *, has_more: bool) -> None:
        self.calls.append(("advance", has_more))

    def published(self) -> None:
        self.calls.append("published")

    def end(self, reason: str) -> None:
        self.calls.append(("end", reason))


class Noting(Curriculum):
    """Writes an event, a row and the policy for each batch that is learned."""

    def learned(self, batch: int, episodes: npt.NDArray[np.void], parts: npt.NDArray[np.int64]) -> None:
        self.run.event("level", batch=batch)
        self.run.row("levels.csv", {"batch": batch, "episodes": len(episodes)})
        self.run.save_policy(f"weights-{batch}.safetensors")


class Pausing(Curriculum):
    """Plans a batch only after everything before it is learned."""

    done = 0

    def plan(self, batch: int) -> Sequence[Mapping[str, Any]] | None:
        return [{}] if batch == self.done else None

    def learned(self, batch: int, episodes: npt.NDArray[np.void], parts: npt.NDArray[np.int64]) -> None:
        self.done += 1


class Planning(Curriculum):
    """Plans ``planned``, whatever that is."""

    planned: Any = None

    def plan(self, batch: int) -> Any:
        return self.planned


class Reusing(Curriculum):
    """Plans all batches with one dict, which it changes: batch 0 is worth nothing, later ones are."""

    def __init__(self, run: RunServices) -> None:
        super().__init__(run)
        self.options = {"worth": 0.0}

    def plan(self, batch: int) -> Sequence[Mapping[str, Any]] | None:
        self.options["worth"] = float(batch)
        return [self.options]


class Empty(Curriculum):
    """Is false where its truth is asked."""

    def __len__(self) -> int:
        return 0

    def status(self) -> str:
        return "empty"


@dataclass(frozen=True, kw_only=True)
class Schooling(Domain):
    """The toy environment with a curriculum of ``curriculum_class``, or what that gives instead."""

    curriculum_class: Any = Curriculum

    env_id: ClassVar[str] = "tests/Schooling-v0"

    def factory(self, config: Config) -> EnvFactory:
        return EnvFactory.of(Toy, config.max_episode_steps)

    def curriculum(self, config: Config, run: RunServices) -> Any:
        return self.curriculum_class() if self.curriculum_class is Toy else self.curriculum_class(run)


class Broken(Curriculum):
    """Raises in the method ``where``."""

    where = "learned"

    def __getattribute__(self, name: str) -> Any:
        if name == type(self).where:
            raise ZeroDivisionError(f"in {name}")
        return super().__getattribute__(name)


not_callable = 5


def not_a_curriculum(run: RunServices) -> str:
    return "level 1"

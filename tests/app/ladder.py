"""A domain of its own distribution, as tests of the program install it: an agent climbs a ladder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import gymnasium
import numpy as np
import numpy.typing as npt

from aiotrain.config import Config, PPOConfig
from aiotrain.domains import Domain, Line, Panel
from aiotrain.play.factory import EnvFactory
from aiotrain.training.curriculum import Curriculum, RunServices


class Climb(gymnasium.Env[Any, Any]):
    """Action 1 climbs a rung, action 0 slips to the ground. The episode ends at the top, or after 8 steps."""

    observation_space: Any = gymnasium.spaces.Discrete(9)
    action_space: Any = gymnasium.spaces.Discrete(2)

    def __init__(self, rungs: int = 2) -> None:
        self.rungs = rungs

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.top = self.rungs if options is None else options.get("rungs", self.rungs)
        self.rung = self.steps = 0
        return self.rung, {}

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self.rung = self.rung + 1 if action else 0
        self.steps += 1
        success = self.rung == self.top
        return self.rung, float(success), success, self.steps == 8, {"success": success, "height": self.rung}


class Higher(Curriculum):
    """Adds a rung after each batch in which half of the episodes reached the top."""

    rungs = 1

    def plan(self, batch: int) -> Sequence[Mapping[str, Any]]:
        return [{"rungs": self.rungs}]

    def label(self, batch: int) -> str:
        return f"rungs-{self.rungs}"

    def learned(self, batch: int, episodes: npt.NDArray[np.void], parts: npt.NDArray[np.int64]) -> None:
        if len(episodes) and episodes["success"].mean() >= 0.5:
            self.rungs += 1

    def status(self) -> int:
        return self.rungs


class RungsPanel(Panel):
    """Shows how high the ladder is."""

    title = "ladder"

    def headline(self, status: int) -> Line:
        return []

    def lines(self, status: int, width: int, height: int) -> list[Line]:
        return [[(f"{status} rungs", "value")]]

    def log(self, status: int) -> Mapping[str, str]:
        return {"rungs": str(status)}

    def summary(self, status: int) -> Mapping[str, str]:
        return {"ladder": f"{status} rungs at last"}


@dataclass(frozen=True)
class Grip:
    """How the agent holds on."""

    wet_hands: bool = False
    """Whether the agent's hands are wet."""


@dataclass(frozen=True, kw_only=True)
class Ladder(Domain):
    """Climb a ladder without slipping."""

    rungs: int = 3
    """Rungs from the ground to the top."""
    colour: str = "grey"
    """Colour of the ladder."""
    grip: Grip = field(default_factory=Grip)
    """The agent's grip."""

    env_id: ClassVar[str] = "tests/Ladder-v0"
    ppo: ClassVar[PPOConfig] = PPOConfig(learning_rate=0.0125, hidden_sizes=(8,))
    panel: ClassVar[str] = "ladder:RungsPanel"
    verbs: ClassVar[Mapping[str, str]] = {"evaluate": "ladder:evaluate", "paint": "ladder:paint"}

    def faults(self, config: Config) -> list[str]:
        return [] if 1 <= self.rungs <= 8 else [f"rungs must lie between 1 and 8, not at {self.rungs}"]

    def factory(self, config: Config) -> EnvFactory:
        return EnvFactory(self.env_id, "ladder:Climb", (("rungs", self.rungs),), metrics=("success",))

    def curriculum(self, config: Config, run: RunServices) -> Curriculum:
        return Higher(run)

    @property
    def details(self) -> Mapping[str, str]:
        return {"colour": self.colour}


def evaluate(arguments: Sequence[str]) -> int:
    print("the ladder is evaluated:", *arguments)
    return 41


def paint(arguments: Sequence[str]) -> int:
    print("the ladder is painted:", *arguments)
    return 42

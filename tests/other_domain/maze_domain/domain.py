"""Settings of the maze, and what it brings along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from aiotrain import Config, Domain, EnvFactory, Faults, PPOConfig

if TYPE_CHECKING:
    from aiotrain import Curriculum, RunServices

PASSED = "weights-passed.safetensors"
"""The policy that passed the last lesson."""


@dataclass(frozen=True)
class Lessons:
    """Settings of the curriculum."""

    enough: float = 0.7
    """Share of successes in a batch after which walks begin one cell further away."""


@dataclass(frozen=True, kw_only=True)
class Maze(Domain):
    """A corridor to walk along."""

    length: int = 8
    """Cells of the corridor."""
    lamp: Literal["on", "off"] = "on"
    """Whether the walker is given a bonus for each cell that is nearer to the end."""
    lessons: Lessons = field(default_factory=Lessons)
    """Where walks begin."""

    env_id: ClassVar[str] = "maze/Corridor-v0"
    ppo: ClassVar[PPOConfig] = PPOConfig(learning_rate=1e-2, hidden_sizes=(8,), minibatch_size=64, epochs=2)
    panel: ClassVar[str] = "maze_domain.panel:LessonPanel"
    plots: ClassVar[str] = "maze_domain.plots:plots"
    agent: ClassVar[str] = "maze_domain.agent:parts"
    libraries: ClassVar[tuple[str, ...]] = ("maze_domain",)
    verbs: ClassVar[Mapping[str, str]] = {
        "corridor": "maze_domain.commands:corridor",
        "replay": "maze_domain.commands:replay",
    }

    def faults(self, config: Config) -> list[str]:
        faults = Faults(self)
        if faults.of_right_type():
            faults.at_least("length", 2)
            faults.check(
                (config.max_episode_steps or self.length) >= self.length - 1,
                f"max-episode-steps ({config.max_episode_steps}) is too few for a corridor of {self.length} cells",
            )
        lessons = Faults(self.lessons)
        if lessons.of_right_type():
            lessons.between("enough", 0, 1)
        return faults.found + lessons.found

    def factory(self, config: Config) -> EnvFactory:
        bonus, steps = 0.5 if self.lamp == "on" else 0.0, config.max_episode_steps or 20
        made = EnvFactory.of("maze_domain.environment:Corridor", length=self.length, bonus=bonus, max_steps=steps)
        return replace(made, name=self.env_id, metrics=("success",))

    def curriculum(self, config: Config, run: RunServices) -> Curriculum:
        from maze_domain.lessons import Further

        return Further(run, self.length, self.lessons.enough)

    def to_play(self, run: Path) -> tuple[Domain, str]:
        kept = run / PASSED
        return replace(self, lamp="off"), kept.name if kept.exists() else "weights.safetensors"

    @property
    def title(self) -> str:
        return f"corridor of {self.length} cells"

    @property
    def details(self) -> Mapping[str, str]:
        return {"lamp": f"is {self.lamp}"}

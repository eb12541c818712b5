"""An episode of CAGE Challenge 2 to be watched, with the truth, which the policy does not see."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from aiotrain.cage2.blue_view import actions_of
from aiotrain.cage2.domain import Cage2
from aiotrain.cage2.official.baselines import (
    BASELINES,
    Baseline,
    baseline_order,
    greedy_actions,
    sleeping,
    uniform,
)
from aiotrain.cage2.playback.ground_truth import GroundTruth, Scene
from aiotrain.cage2.scenario import Rules, Simulator, action_name
from aiotrain.cage2.trained_runs import load_run, played_by, settings_of
from aiotrain.cage2.workflows import Order, order_text
from aiotrain.config import Config
from aiotrain.errors import ConfigError
from aiotrain.play.spaces import EnvSpec
from aiotrain.runs.playback import Act, Playback, PlayedStep, Setting, acting_by, play_back

__all__ = ["Cage2Playback", "Cage2Setting", "Cage2Step"]


@dataclass(frozen=True)
class Cage2Setting(Setting):
    """What is played of CAGE 2."""

    simulator: str
    rules: str
    order: str
    """The workflow as its types with commas between; empty for none."""


@dataclass(frozen=True)
class Cage2Step(PlayedStep):
    """A step of CAGE 2. Actions are told by their names."""

    scene: Scene
    """The truth after the step."""

    @property
    def compliance(self) -> float:
        """With the workflow so far; NaN where there is none, or nothing was fixed."""
        return float(self.metrics.get("compliance", math.nan))


class Cage2Playback:
    """An episode of CAGE 2, step by step. To be closed."""

    def __init__(self, playback: Playback, settings: Cage2) -> None:
        self._playback = playback
        self._menu: list[int] = actions_of(settings.actions).tolist()
        self.setting = Cage2Setting(
            **vars(playback.setting),
            simulator=settings.simulator,
            rules=settings.rules,
            order="" if settings.workflow == "none" else settings.workflow,
        )

    @classmethod
    def open(
        cls,
        run: str | Path | None = None,
        *,
        agent: Baseline | None = None,
        greedy: bool = False,
        workflow: str | None = None,
        seed: int = 0,
        red_agent: str | None = None,
        max_episode_steps: int | None = None,
        simulator: Simulator | None = None,
        rules: Rules | None = None,
    ) -> Self:
        """Return the first episode that `aiotrain.cage2.evaluate` plays of a run, or one by an ``agent``.

        ``run`` is the folder of a run, or a file in its folder ``checkpoints``. ``red_agent``: another one than in
        training. Raises CheckpointError, ConfigError, EnvError or InvalidStepError.
        """
        if (run is None) == (agent is None):
            raise ConfigError(f"replay: name the folder of a run, or else an agent: {', '.join(BASELINES)}")
        asked: dict[str, Any] = {"red_agent": red_agent, "simulator": simulator, "rules": rules}
        if run is not None:
            trained = load_run(Path(run), workflow)
            config = played_by(trained.config, max_episode_steps, **asked)
            playback = play_back(dataclasses.replace(trained, config=config), greedy=greedy, seed=seed)
        else:
            order = baseline_order(str(agent), greedy, workflow)
            env = Cage2(workflow="none" if order is None else order_text(order))
            config = played_by(Config(env=env), max_episode_steps, **asked)

            def act_for(spec: EnvSpec) -> Act:
                if order is not None:
                    return _by_heuristic(order)
                policy = sleeping(spec) if agent == "sleep" else uniform(spec)
                return acting_by(policy, spec, greedy=False, odds=0)

            playback = Playback(config.env_factory(), act_for, player=str(agent), how="", seed=seed)
        return cls(playback, settings_of(config))

    def close(self) -> None:
        """Close the environment."""
        self._playback.close()

    def play(self) -> Iterator[Cage2Step]:
        """Play the episode, and tell each step once it was made. Raises EnvError or InvalidStepError."""
        truth: GroundTruth

        def begin() -> None:
            nonlocal truth
            truth = GroundTruth(self._playback.env)

        for step in self._playback.play(begin):
            scene = truth.after(self._menu[step.action], step.observation)
            odds = tuple((action_name(self._menu[each]), chance) for each, chance in step.odds)
            named = {"action": action_name(self._menu[step.action]), "odds": odds}
            yield Cage2Step(**{**vars(step), **named}, scene=scene)


def _by_heuristic(order: Order) -> Act:
    """Return how the greedy heuristic of ``order`` acts, which is told what red holds."""
    actions = greedy_actions(order).tolist()

    def act(observation: Any, info: Any, generator: np.random.Generator) -> tuple[int, list[Any]]:
        return actions[info["red_hosts"]], []

    return act

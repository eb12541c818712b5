"""An episode to be watched: played as an evaluation plays its first one, and told step by step.

Of CAGE 2 the truth is told too, which the policy did not see.
"""

from __future__ import annotations

import dataclasses
import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from aiotrain.cage2.blue_view import actions_of
from aiotrain.cage2.domain import Cage2
from aiotrain.cage2.official.baselines import GREEDY_ORDER, greedy_actions
from aiotrain.cage2.registration import CAGE2_ID
from aiotrain.cage2.scenario import action_name
from aiotrain.cage2.workflows import order_text
from aiotrain.config import Config
from aiotrain.errors import AiotrainError, ConfigError, EnvError, InvalidStepError
from aiotrain.play.inspection import BREAKDOWNS, inspect_env, mask_fault, observation_fault
from aiotrain.play.player import episode_streams
from aiotrain.play.policy import NumpyPolicy
from aiotrain.play.spaces import EnvSpec
from aiotrain.runs.evaluate import BASELINES, Baseline, Rules, Simulator
from aiotrain.runs.evaluation_episodes import fresh_seed, sleeping, uniform
from aiotrain.runs.load import load_run, order_of

if TYPE_CHECKING:
    from aiotrain.cage2.playback.ground_truth import Scene

__all__ = ["Moment", "Replay", "Setting"]

_ODDS: Final = 3
"""Actions whose probabilities are told."""

Act = Callable[[Any, Mapping[str, Any], np.random.Generator], tuple[Any, list[tuple[int, float]]]]
"""From observation, info and the episode's generator to an action and the most probable ones, as outputs of a policy
with their probabilities, highest first."""


@dataclass(frozen=True)
class Setting:
    """What is played."""

    environment: str
    player: str
    """The run, or one of ``BASELINES``."""
    how: str
    """How a policy's actions are chosen: greedy or sampled; empty for another player."""
    seed: int
    simulator: str
    """Of CAGE 2; else empty."""
    rules: str
    """Of CAGE 2; else empty."""
    order: str
    """Of CAGE 2, the workflow as its types with commas between; empty for none."""
    steps: int | None
    """Steps after which the episode is truncated, where that is known."""


@dataclass(frozen=True)
class Moment:
    """An episode after a step."""

    step: int
    """Its number, from 1."""
    action: str
    """Its name in CAGE 2, else as the environment was given it."""
    odds: tuple[tuple[str, float], ...]
    """The most probable actions of a discrete policy with their probabilities, highest first: those by which it drew
    the action, or of which it took the first. Empty for other players."""
    reward: float
    episode_return: float
    """Undiscounted, this reward included."""
    observation: npt.NDArray[Any]
    """What followed."""
    ending: Literal["", "terminated", "truncated"]
    compliance: float
    """With the workflow so far; NaN where there is none, or nothing was fixed."""
    scene: Scene | None
    """Of CAGE 2."""


class Replay:
    """An episode by the policy of a run, or of CAGE 2 by one of ``BASELINES``. To be closed.

    ``run`` is the folder of a run, or a file in its folder ``checkpoints``. The episode is the first that `evaluate`
    plays of a run. ``red_agent``: one of CAGE 2 other than in training.

    Raises ConfigError, EnvError or InvalidStepError.
    """

    def __init__(
        self,
        run: str | Path | None = None,
        *,
        agent: Baseline | None = None,
        greedy: bool = False,
        workflow: str | None = None,
        seed: int = 0,
        env: str | Callable[..., Any] | None = None,
        red_agent: str | None = None,
        max_episode_steps: int | None = None,
        simulator: Simulator | None = None,
        rules: Rules | None = None,
    ) -> None:
        if (run is None) == (agent is None):
            raise ConfigError(f"replay: name the folder of a run, or else an agent: {', '.join(BASELINES)}")
        if agent is not None and agent not in BASELINES:
            raise ConfigError(f"replay: there is no agent {agent}; choose from {', '.join(BASELINES)}")
        if seed < 0:
            raise ConfigError(f"seed cannot be negative ({seed})")
        trained = None
        if run is not None:
            trained = load_run(Path(run), workflow, env=env)
            config = trained.config
        else:
            config = _of_baseline(str(agent), greedy, workflow, env)
        own = {"red_agent": red_agent, "simulator": simulator, "rules": rules}
        if not isinstance(config.env, Cage2) and any(value is not None for value in own.values()):
            raise ConfigError(
                f"red-agent, simulator and rules are for {CAGE2_ID}; {run} was trained on another environment"
            )
        if isinstance(config.env, Cage2):
            asked: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
            if red_agent is not None:
                asked["red_shares"] = Cage2.red_shares
            config = dataclasses.replace(config, env=dataclasses.replace(config.env, **asked))
        if max_episode_steps is not None:
            config = dataclasses.replace(config, max_episode_steps=max_episode_steps)
        factory = config.env_factory()
        played = config.env if isinstance(config.env, Cage2) else None
        self._run_seed = fresh_seed(seed, 0)
        self._env, self._spec = inspect_env(factory)
        try:
            self._act: Act
            if agent == "greedy-heuristic":
                self._act = _by_heuristic(played.workflow if played else "")
            elif trained is None:
                baseline = sleeping if agent == "sleep" else uniform
                self._act = _by_policy(baseline(self._spec), self._spec, greedy=False, odds=0)
            else:
                self._act = _by_policy(trained.policy_for(self._spec), self._spec, greedy, _ODDS)
        except BaseException:
            self.close()
            raise
        self._menu = actions_of(played.actions).tolist() if played else None
        self.setting = Setting(
            environment=factory.name,
            player=str(agent) if trained is None else trained.name,
            how="" if trained is None else "greedy" if greedy else "sampled",
            seed=seed,
            simulator=played.simulator if played else "",
            rules=played.rules if played else "",
            order=played.workflow if played and played.workflow != "none" else "",
            steps=self._spec.max_episode_steps,
        )

    def close(self) -> None:
        """Close the environment."""
        with suppress(*BREAKDOWNS):
            self._env.close()

    def play(self) -> Iterator[Moment]:
        """Play the episode, and tell each step once it was made. Raises EnvError or InvalidStepError."""
        env, spec = self._env, self._spec
        seed, generator = episode_streams(self._run_seed, 0)
        step, episode_return = 0, 0.0
        ending: Literal["", "terminated", "truncated"] = ""
        witness = None
        if self._menu is not None:
            from aiotrain.cage2.playback.ground_truth import (
                Witness,  # imports Numba, which other environments do without
            )

            witness = Witness(env)
        try:
            observation, info = env.reset(seed=seed)
            self._refuse(observation, info)
            if witness is not None:
                witness.begin()
            while not ending:
                given, odds = self._act(observation, info, generator)
                observation, reward, terminated, truncated, info = env.step(given)
                step += 1
                ending = "terminated" if terminated else "truncated" if truncated else ""
                self._refuse(observation, info if not ending else None, reward)
                episode_return += float(reward)
                scene = None
                if witness is not None and self._menu is not None:
                    scene = witness.after(self._menu[given], observation)
                yield Moment(
                    step,
                    self._name(given),
                    tuple((self._name(each + spec.action_start), chance) for each, chance in odds),
                    float(reward),
                    episode_return,
                    np.array(observation),
                    ending,
                    info.get("compliance", math.nan),
                    scene,
                )
        except AiotrainError as error:
            where = f"{self.setting.environment}, seed {seed}, step {step}"
            raise type(error)(f"{where}: {error}", seed=seed, step=step) from None
        except BREAKDOWNS as error:
            where = f"{self.setting.environment}, seed {seed}, step {step}"
            text = f"{where}: the environment raised\n{traceback.format_exc()}".rstrip()
            raise EnvError(text, seed=seed, step=step) from error

    def _refuse(self, observation: Any, info: Mapping[str, Any] | None, reward: Any = 0.0) -> None:
        """Raise InvalidStepError for what no environment may return; without ``info``, no action follows."""
        fault = observation_fault(observation, self._spec)
        if not fault and info is not None:
            fault = mask_fault(info, self._spec)
        if not fault and not math.isfinite(reward):
            fault = f"a reward of {reward}"
        if fault:
            raise InvalidStepError(f"the environment returned {fault}")

    def _name(self, action: Any) -> str:
        return str(action) if self._menu is None else action_name(self._menu[action])


def _of_baseline(agent: str, greedy: bool, workflow: str | None, env: Any) -> Config:
    """What an agent plays that learned nothing. Raises ConfigError for what means nothing to it."""
    for name, is_given in (("greedy", greedy), ("env", env is not None)):
        if is_given:
            raise ConfigError(f"{name} is for the policy of a run; the agent {agent} plays {CAGE2_ID} as it does")
    order = "none"
    if agent == "greedy-heuristic":
        order = order_text(order_of(workflow or GREEDY_ORDER))
    elif workflow is not None:
        raise ConfigError(f"workflow means nothing to the agent {agent}")
    return Config(env=Cage2(workflow=order, observation="table", actions="full"))


def _by_heuristic(workflow: str) -> Act:
    """The greedy heuristic of an order, which is told what red holds."""
    actions = greedy_actions(order_of(workflow)).tolist()

    def act(observation: Any, info: Mapping[str, Any], generator: np.random.Generator) -> tuple[int, list[Any]]:
        return actions[info["red_hosts"]], []

    return act


def _by_policy(policy: NumpyPolicy, spec: EnvSpec, greedy: bool, odds: int) -> Act:
    """A policy, which acts as a worker's does; it tells so many ``odds``."""
    acting = policy.greedy() if greedy else policy
    low, high = (np.array(bound, spec.action_dtype) for bound in (spec.action_low, spec.action_high))

    def act(
        observation: Any, info: Mapping[str, Any], generator: np.random.Generator
    ) -> tuple[Any, list[tuple[int, float]]]:
        inputs = spec.encode(np.asarray(observation)[None])
        masks = np.asarray(info["action_mask"])[None] if spec.has_action_mask else None
        (drawn,), _ = acting.act(inputs, acting.noise(generator, 1), masks)
        if spec.action_kind == "gaussian":
            return np.clip(drawn, low, high).astype(spec.action_dtype, copy=False), []
        logits = policy.head(inputs)[0].astype(float)
        if masks is not None:
            logits[masks[0] == 0] = -np.inf
        chances = np.exp(logits - logits.max())
        chances /= chances.sum()
        likely = np.argsort(-chances, kind="stable")[:odds].tolist()
        return int(drawn) + spec.action_start, [(each, float(chances[each])) for each in likely]

    return act

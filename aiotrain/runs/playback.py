"""An episode to be watched: played as an evaluation plays its first one, and told step by step."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from aiotrain.errors import AiotrainError, ConfigError, EnvError, InvalidStepError
from aiotrain.play.env_factory import EnvFactory
from aiotrain.play.inspection import BREAKDOWNS, inspect_env, mask_fault, observation_fault
from aiotrain.play.player import episode_streams
from aiotrain.play.policy import NumpyPolicy
from aiotrain.play.spaces import EnvSpec
from aiotrain.runs.evaluation_episodes import fresh_seed
from aiotrain.runs.load_run import Trained

__all__ = ["Act", "Playback", "PlayedStep", "Setting", "acting_by", "play_back"]

_ODDS: Final = 3
"""Actions whose probabilities are told."""

Act = Callable[[Any, Mapping[str, Any], np.random.Generator], tuple[Any, list[tuple[Any, float]]]]
"""From observation, info and the episode's generator to an action, and to the most probable ones with their
probabilities, highest first. All actions are as the environment takes them."""


@dataclass(frozen=True)
class Setting:
    """What is played."""

    environment: str
    player: str
    """The run, or another agent."""
    how: str
    """How a policy's actions are chosen: greedy or sampled; empty for another agent."""
    seed: int
    steps: int | None
    """Steps after which the episode is truncated, where that is known."""


@dataclass(frozen=True)
class PlayedStep:
    """A step of an episode, and how the episode stands after it."""

    step: int
    """Its number, from 1."""
    action: Any
    """As the environment was given it."""
    odds: tuple[tuple[Any, float], ...]
    """The most probable actions of a discrete policy with their probabilities, highest first: those by which it drew
    the action, or of which it took the first. Empty for other agents."""
    reward: float
    episode_return: float
    """Undiscounted, this reward included."""
    observation: npt.NDArray[Any]
    """What followed."""
    ending: Literal["", "terminated", "truncated"]
    metrics: Mapping[str, Any]
    """The environment's metrics so far, those that it told in this step."""


class Playback:
    """An episode in an environment of its own. To be closed.

    ``act_for`` gives for the environment how to act there. The episode is the first that an evaluation with this
    ``seed`` plays. Raises ConfigError, EnvError or InvalidStepError.
    """

    def __init__(
        self, factory: EnvFactory, act_for: Callable[[EnvSpec], Act], *, player: str, how: str, seed: int
    ) -> None:
        if seed < 0:
            raise ConfigError(f"seed cannot be negative ({seed})")
        self._run_seed = fresh_seed(seed, 0)
        self.env, self._spec = inspect_env(factory)
        try:
            self._act = act_for(self._spec)
        except BaseException:
            self.close()
            raise
        self.setting = Setting(factory.name, player, how, seed, self._spec.max_episode_steps)

    def close(self) -> None:
        """Close the environment."""
        with suppress(*BREAKDOWNS):
            self.env.close()

    def play(self, when_reset: Callable[[], object] = lambda: None) -> Iterator[PlayedStep]:
        """Play the episode, and tell each step once it was made. Raises EnvError or InvalidStepError.

        ``when_reset`` is called after the reset.
        """
        seed, generator = episode_streams(self._run_seed, 0)
        step, episode_return = 0, 0.0
        ending: Literal["", "terminated", "truncated"] = ""
        try:
            observation, info = self.env.reset(seed=seed)
            self._refuse(observation, info)
            when_reset()
            while not ending:
                action, odds = self._act(observation, info, generator)
                observation, reward, terminated, truncated, info = self.env.step(action)
                step += 1
                ending = "terminated" if terminated else "truncated" if truncated else ""
                self._refuse(observation, info if not ending else None, reward)
                episode_return += float(reward)
                metrics = {name: info[name] for name in self._spec.metrics if name in info}
                seen = np.array(observation)
                yield PlayedStep(step, action, tuple(odds), float(reward), episode_return, seen, ending, metrics)
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


def play_back(trained: Trained, *, greedy: bool, seed: int) -> Playback:
    """Return an episode by the policy of a run. Raises ConfigError, EnvError or InvalidStepError."""
    return Playback(
        trained.config.env_factory(),
        lambda spec: acting_by(trained.policy_for(spec), spec, greedy=greedy, odds=_ODDS),
        player=trained.name,
        how="greedy" if greedy else "sampled",
        seed=seed,
    )


def acting_by(policy: NumpyPolicy, spec: EnvSpec, *, greedy: bool, odds: int) -> Act:
    """Return how a worker acts by ``policy``; ``odds``: of how many actions the probabilities are told."""
    acting = policy.greedy() if greedy else policy
    low, high = (np.array(bound, spec.action_dtype) for bound in (spec.action_low, spec.action_high))

    def act(
        observation: Any, info: Mapping[str, Any], generator: np.random.Generator
    ) -> tuple[Any, list[tuple[Any, float]]]:
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
        return int(drawn) + spec.action_start, [(each + spec.action_start, float(chances[each])) for each in likely]

    return act

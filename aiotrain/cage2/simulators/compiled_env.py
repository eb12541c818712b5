"""The compiled engine as a Gymnasium environment, one episode at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from aiotrain.cage2.blue_view import BEGUN, Actions, Observation
from aiotrain.cage2.engine import NO_TAPE, allocate, reset_one, restart_one, set_order, step_one
from aiotrain.cage2.red_agents import SHARES, compiled_red_agent, drawn_red_agent, shares_of
from aiotrain.cage2.scenario import B_LINE_AGENT, EPISODE_STEPS, Rules
from aiotrain.cage2.simulators.blue_observer import BlueObserver
from aiotrain.cage2.workflows import ONE_HOT, ORDER_INDEX, Order, parse_order, requested_order

__all__ = ["Cage2CompiledEnv"]


class Cage2CompiledEnv(gymnasium.Env[NDArray[np.int8], np.int64]):
    """``Cage2Env`` on the compiled engine: ``gymnasium.make("aiotrain/Cage2-v0", simulator="compiled")``.

    Spaces, rewards, ``info`` and the distribution of episodes are the same. The episode of a seed is another one,
    because the engine has its own random generator. It plays Scenario2 against the challenge's three red agents.

    Raises ValueError for a red agent that the engine does not play, for ``max_steps`` below 1 or above 65,535, for
    unknown rules, for a workflow that is no order, and for an unknown observation or set of actions.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (Gymnasium declares it so)

    def __init__(
        self,
        red_agent: str | type = B_LINE_AGENT,
        max_steps: int = EPISODE_STEPS,
        rules: Rules = "main",
        workflow: str | Sequence[str] | None = None,
        observation: Observation = "table",
        actions: Actions = "full",
        red_shares: Sequence[float] = SHARES,
        alignment_lambda: float = 0.0,
    ) -> None:
        if max_steps < 1:
            raise ValueError(f"max_steps is {max_steps}, but an episode has at least 1 step")
        self.max_steps = max_steps
        self._alignment_lambda = alignment_lambda
        self.workflow: Order | None = None if workflow is None else parse_order(workflow)
        self._observer = BlueObserver(observation, actions)
        inputs = self._observer.num_inputs
        self.observation_space = gymnasium.spaces.MultiBinary(
            inputs if self.workflow is None else inputs + ONE_HOT.shape[1]
        )
        self.action_space = gymnasium.spaces.Discrete(len(self._observer.menu))
        self._shares = shares_of(red_agent, red_shares)
        self.state = allocate(1, red_agent=compiled_red_agent(red_agent), rules=rules, max_steps=max_steps)
        self._has_begun = False
        self._compliance = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.int8], dict[str, Any]]:
        """Begin an episode. ``options={"workflow": order}`` changes the order from this episode on.

        Raises ValueError if ``order`` is none, or if the environment was made without a workflow.
        """
        asked = (options or {}).get("workflow")
        if asked is not None:
            self.workflow = requested_order(asked, shown=self.workflow is not None)
        if self.workflow is not None:
            set_order(self.state, self.workflow)
        super().reset(seed=seed)
        if self._shares is not None:
            drawn_by = int(self.np_random.integers(2**63)) if seed is None else seed
            self.state["red"] = drawn_red_agent(drawn_by, self._shares)
        if seed is not None:
            reset_one(self.state, 0, np.uint64(seed % 2**64))
        elif self._has_begun:
            restart_one(self.state, 0)
        else:
            reset_one(self.state, 0, self.np_random.integers(2**63, dtype=np.uint64))
        self._has_begun = True
        self._compliance = 0.0
        return self._seen(BEGUN)

    def step(self, action: np.int64 | int) -> tuple[NDArray[np.int8], float, bool, bool, dict[str, Any]]:
        """Play one step: blue's action, then red's.

        Raises ValueError for an unknown action, and ``gymnasium.error.ResetNeeded`` before the first reset.
        """
        if not self._has_begun:
            raise gymnasium.error.ResetNeeded("call reset() before the first step()")
        index = int(action)
        if not 0 <= index < len(self._observer.menu):
            raise ValueError(f"action {index} does not exist: there are {len(self._observer.menu)}, from 0")
        played = int(self._observer.menu[index])
        reward = int(step_one(self.state, 0, played, NO_TAPE)) / 10.0
        observation, info = self._seen(played)
        return observation, reward, False, bool(self.state["steps"][0] >= self.max_steps), info

    def _seen(self, action: int) -> tuple[NDArray[np.int8], dict[str, Any]]:
        """Return observation and info after blue's ``action``, which is BEGUN after a reset."""
        env = self.state[0]
        (observation,), masks = self._observer.observe(self.state["observation"].copy(), [action])
        info: dict[str, Any] = {"red_hosts": int(env["held"])} | {name: mask for name, (mask,) in masks.items()}
        if self.workflow is None:
            return observation, info
        before, fixes = self._compliance, int(env["fixes"])
        if fixes:
            info["compliance"] = self._compliance = int(env["compliant_fixes"]) / fixes
        info["alignment"] = self._compliance - before
        info["bonus"] = self._alignment_lambda * info["alignment"]
        return np.concatenate([observation, ONE_HOT[ORDER_INDEX[self.workflow]]]), info

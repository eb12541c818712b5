"""The compiled engine as a Gymnasium vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import ArrayLike, NDArray

from aiotrain.cage2.blue_view import BEGUN, Actions, Observation
from aiotrain.cage2.engine import NO_TAPE, allocate, compiled, reset_one, restart_one, set_order, step_one
from aiotrain.cage2.red_agents import SHARES, compiled_red_agent, drawn_red_agent, shares_of
from aiotrain.cage2.scenario import B_LINE_AGENT, EPISODE_STEPS, RED_AGENTS, Rules, Simulator
from aiotrain.cage2.simulators.blue_observer import BlueObserver
from aiotrain.cage2.workflows import ONE_HOT, ORDER_INDEX, Order, parse_order, requested_order

_INSTEAD: Final = "; for anything else, use make_vec(..., vectorization_mode='sync') or 'async'"


class Cage2VectorEnv(VectorEnv[NDArray[np.int8], NDArray[np.int64], NDArray[Any]]):
    """Steps many compiled environments of CAGE Challenge 2 in one call.

    ``gymnasium.make_vec("aiotrain/Cage2-v0", num_envs=1024)`` returns this class. Spaces, rules and the distribution of
    episodes are those of ``Cage2Env``. The episode of a seed is another one, because the engine has its own random
    generator.

    Observations, actions, rewards
        int8 [num_envs, 52], or as many bits as ``Cage2Env`` shows with the same arguments; int64 [num_envs]; float64
        [num_envs].
    End
        Never terminated; truncated at ``max_steps``. The next step (``AutoresetMode.NEXT_STEP``) ignores the
        environment's action, resets it and returns reward 0.
    Info
        ``info["red_hosts"]``, int64 [num_envs]: bit h is set if red has a session of any privilege on host h.
        With a workflow also ``info["compliance"]``, NaN where ``Cage2Env`` has no such entry, ``info["alignment"]``
        and ``info["bonus"]``, each float64 [num_envs]. With compact actions also ``info["action_mask"]``, int8
        [num_envs, 42].
        Each entry has a companion whose name begins with an underscore, bool [num_envs]: where ``Cage2Env`` has it.

    Args:
        num_envs: Number of environments.
        red_agent: A name of ``RED_AGENTS`` for all, one name for each environment, or "mixed".
        max_steps: Length of an episode in steps, 1 to 65,535.
        rules: "main" (csle-cyborg and CybORG's main branch) or "leaderboard".
        workflow: The workflow by which all are judged, or None; see ``Cage2Env``.
        scenario: Must stay None.
        simulator: Must stay "compiled".
        observation: "table" or "memory"; see ``Cage2Env``.
        actions: "full" or "compact"; see ``Cage2Env``.
        red_shares: See ``Cage2Env``.
        alignment_lambda: See ``Cage2Env``.

    Raises:
        ValueError: An argument is out of its range, or only ``Cage2Env`` supports it.

    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        red_agent: str | Sequence[str] = B_LINE_AGENT,
        max_steps: int = EPISODE_STEPS,
        rules: Rules = "main",
        scenario: None = None,
        workflow: str | Sequence[str] | None = None,
        simulator: Simulator = "compiled",
        observation: Observation = "table",
        actions: Actions = "full",
        red_shares: Sequence[float] = SHARES,
        alignment_lambda: float = 0.0,
    ) -> None:
        if simulator != "compiled":
            raise ValueError(f"simulator {simulator!r} has no vector environment of its own" + _INSTEAD)
        if scenario is not None:
            raise ValueError("the compiled engine plays Scenario2 only" + _INSTEAD)
        if isinstance(red_agent, type) or (isinstance(red_agent, str) and ":" in red_agent):
            raise ValueError(f"the compiled engine plays {', '.join(RED_AGENTS)} only" + _INSTEAD)
        if max_steps < 1:
            raise ValueError(f"max_steps is {max_steps}, but an episode has at least 1 step")
        self.workflow: Order | None = None if workflow is None else parse_order(workflow)
        self._shares = None
        if isinstance(red_agent, str):
            self._shares = shares_of(red_agent, red_shares)
            red_agent = compiled_red_agent(red_agent)
        self.state = allocate(num_envs, red_agent=red_agent, rules=rules, max_steps=max_steps)
        self.num_envs = num_envs
        self.max_steps = max_steps
        self._alignment_lambda = alignment_lambda
        self._observer = BlueObserver(observation, actions, num_envs)
        inputs = self._observer.num_inputs
        self.single_observation_space = gymnasium.spaces.MultiBinary(
            inputs if self.workflow is None else inputs + ONE_HOT.shape[1]
        )
        self.single_action_space = gymnasium.spaces.Discrete(len(self._observer.menu))
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self._has_begun = False
        self._compliance = np.full(num_envs, np.nan)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray[np.int8], dict[str, Any]]:
        """Begin an episode in every environment.

        Args:
            seed: Environment i is seeded with ``seed + i``, or with ``seed[i]`` of a sequence. With None, its random
                generator goes on; at the first reset, the operating system seeds it.
            options: ``{"workflow": order}`` changes the order of all environments from these episodes on.

        Raises:
            ValueError: The number of seeds is not ``num_envs``, a seed is negative, ``order`` is no order, or the
                environment was made without a workflow.

        """
        seeds: list[int | None]
        if seed is None or isinstance(seed, int | np.integer):
            seeds = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = [None if each is None else int(each) for each in seed]
        if len(seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds were given for {self.num_envs} environments")
        if any(s is not None and s < 0 for s in seeds):
            raise ValueError("seeds must not be negative")
        asked = (options or {}).get("workflow")
        if asked is not None:
            self.workflow = requested_order(asked, shown=self.workflow is not None)
        if self.workflow is not None:
            set_order(self.state, self.workflow)
        # np_random, which wrappers use, follows the first seed.
        super().reset(seed=seeds[0])
        for index, own in enumerate(seeds):
            self._draw_red_agent(index, own)
        fresh = np.random.SeedSequence().generate_state(self.num_envs, np.uint64) if not self._has_begun else None
        for index, own in enumerate(seeds):
            if own is not None:
                reset_one(self.state, index, np.uint64(own % 2**64))
            elif fresh is not None:
                reset_one(self.state, index, fresh[index])
            else:
                restart_one(self.state, index)
        self._has_begun = True
        self._compliance = np.full(self.num_envs, np.nan)
        return self._seen(np.full(self.num_envs, BEGUN))

    def step(
        self, actions: ArrayLike
    ) -> tuple[NDArray[np.int8], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Play one step in every environment, or reset it if the previous step truncated its episode.

        Raises:
            ValueError: The shape of ``actions`` is not [num_envs], or an action is unknown.
            gymnasium.error.ResetNeeded: There was no reset yet.

        """
        if not self._has_begun:
            raise gymnasium.error.ResetNeeded("call reset() before the first step()")
        chosen = np.asarray(actions)
        if chosen.shape != (self.num_envs,) or chosen.dtype.kind not in "iu":
            raise ValueError(
                f"actions must be integers of shape ({self.num_envs},), got {chosen.dtype} of shape {chosen.shape}"
            )
        chosen = np.ascontiguousarray(chosen, np.int64)
        menu = self._observer.menu
        if chosen.min() < 0 or chosen.max() >= len(menu):
            raise ValueError(f"actions must lie in 0..{len(menu) - 1}, got {chosen.min()}..{chosen.max()}")
        chosen = menu[chosen]
        if self._shares is not None:
            for index in np.flatnonzero(self.state["steps"] >= self.max_steps):
                self._draw_red_agent(int(index), None)
        rewards = np.empty(self.num_envs)
        truncations = np.empty(self.num_envs, np.bool_)
        _advance(self.state, chosen, rewards, truncations)
        terminations = np.zeros(self.num_envs, np.bool_)
        observation, info = self._seen(np.where(self.state["steps"] == 0, BEGUN, chosen))
        return observation, rewards, terminations, truncations, info

    def _draw_red_agent(self, index: int, seed: int | None) -> None:
        """Draw the red agent of the episode that environment ``index`` is about to begin, if agents are mixed."""
        if self._shares is not None:
            drawn_by = int(self.np_random.integers(2**63)) if seed is None else seed
            self.state["red"][index] = drawn_red_agent(drawn_by, self._shares)

    def _seen(self, actions: NDArray[np.int64]) -> tuple[NDArray[np.int8], dict[str, Any]]:
        """Return observations and info after blue's ``actions`` among the 145, BEGUN where an episode just began."""
        everywhere = np.ones(self.num_envs, np.bool_)
        info: dict[str, Any] = {"red_hosts": self.state["held"].astype(np.int64), "_red_hosts": everywhere}
        observation, masks = self._observer.observe(self.state["observation"].copy(), actions)
        for name, mask in masks.items():
            info |= {name: mask, f"_{name}": everywhere.copy()}
        if self.workflow is None:
            return observation, info
        order_bits = ONE_HOT[ORDER_INDEX[self.workflow]]
        observation = np.hstack([observation, np.broadcast_to(order_bits, (self.num_envs, len(order_bits)))])
        before, fixes = self._compliance, self.state["fixes"]
        self._compliance = np.full(self.num_envs, np.nan)
        np.divide(self.state["compliant_fixes"], fixes, out=self._compliance, where=fixes > 0)
        # An autoreset makes compliance undefined again, which is no change within an episode.
        change = np.where(fixes > 0, self._compliance - np.nan_to_num(before), 0.0)
        return observation, info | {
            "compliance": self._compliance.copy(),
            "_compliance": fixes > 0,
            "alignment": change,
            "_alignment": everywhere.copy(),
            "bonus": self._alignment_lambda * change,
            "_bonus": everywhere.copy(),
        }


@compiled
def _advance(
    state: Any, actions: NDArray[np.int64], rewards: NDArray[np.float64], truncations: NDArray[np.bool_]
) -> None:
    for index in range(len(state)):
        env = state[index]
        if env.steps >= env.max_steps:
            restart_one(state, index)
            rewards[index] = 0.0
            truncations[index] = False
        else:
            rewards[index] = step_one(state, index, actions[index], NO_TAPE) / 10.0
            truncations[index] = env.steps >= env.max_steps

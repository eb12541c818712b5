"""The compiled engine as a Gymnasium vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import ArrayLike, NDArray

from aiotrain.cage2.blue_view import BEGUN, View
from aiotrain.cage2.engine import NO_TAPE, RED_AGENTS, allocate, compiled, reset_one, restart_one, set_order, step_one
from aiotrain.cage2.red_agents import SHARES, compiled_red_agent, drawn_red_agent, shares_of
from aiotrain.cage2.workflows import ONE_HOT, ORDER_INDEX, Order, parse_order, requested_order

_OTHERWISE: Final = "; for anything else, take make_vec(..., vectorization_mode='sync') or 'async'"


class Cage2VectorEnv(VectorEnv[NDArray[np.int8], NDArray[np.int64], NDArray[Any]]):
    """Many compiled environments of CAGE Challenge 2, one call a step for all of them.

    ``gymnasium.make_vec("aiotrain/Cage2-v0", num_envs=1024)`` gives this class. It equals ``Cage2Env`` in
    spaces, rules and the law of its episodes, not in the episode that a seed gives: the engine has a random
    generator of its own.

    Observations, actions, rewards
        int8 [num_envs, 52], or as many bits as ``Cage2Env`` shows by the same arguments, int64 [num_envs] and float64
        [num_envs].
    End
        Never terminated; truncated at ``max_steps``. In the step after that (``AutoresetMode.NEXT_STEP``) the
        environment is reset and its action ignored, with reward 0.
    Info
        ``info["red_hosts"]``, int64 [num_envs]: bit h is set if red has a session of any privilege on host h.
        With a workflow also ``info["compliance"]``, NaN where ``Cage2Env`` has no such entry, ``info["alignment"]``
        and ``info["bonus"]``, each float64 [num_envs]. With compact actions also ``info["action_mask"]``, int8
        [num_envs, 42].
        For each an entry whose name begins with an underscore, bool [num_envs]: where ``Cage2Env`` has the entry.

    Args:
        num_envs: how many environments.
        red_agent: a name of ``RED_AGENTS`` for all, one name for each environment, or "mixed".
        max_steps: the length of an episode in steps, 1 to 65,535.
        rules: "main" (csle-cyborg and CybORG's main branch) or "leaderboard".
        workflow: the order of host types by which all are judged, or None, as of ``Cage2Env``.
        scenario: must stay None.
        simulator: must stay "compiled".
        observation: "table" or "memory", as of ``Cage2Env``.
        actions: "full" or "compact", as of ``Cage2Env``.
        red_shares: as of ``Cage2Env``.
        alignment_lambda: as of ``Cage2Env``.

    Raises:
        ValueError: an argument is out of its range, or asks for what only ``Cage2Env`` can do.

    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        red_agent: str | Sequence[str] = "B_lineAgent",
        max_steps: int = 100,
        rules: str = "main",
        scenario: None = None,
        workflow: str | Sequence[str] | None = None,
        simulator: str = "compiled",
        observation: str = "table",
        actions: str = "full",
        red_shares: Sequence[float] = SHARES,
        alignment_lambda: float = 0.0,
    ) -> None:
        if simulator != "compiled":
            raise ValueError(f"simulator {simulator!r} has no vector environment of its own" + _OTHERWISE)
        if scenario is not None:
            raise ValueError("the compiled engine plays Scenario2 only" + _OTHERWISE)
        if isinstance(red_agent, type) or (isinstance(red_agent, str) and ":" in red_agent):
            raise ValueError(f"the compiled engine plays {', '.join(RED_AGENTS)} only" + _OTHERWISE)
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
        self._view = View(observation, actions, num_envs)
        inputs = self._view.num_inputs
        self.single_observation_space = gymnasium.spaces.MultiBinary(
            inputs if self.workflow is None else inputs + ONE_HOT.shape[1]
        )
        self.single_action_space = gymnasium.spaces.Discrete(len(self._view.menu))
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self._seeded = False

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray[np.int8], dict[str, Any]]:
        """Begin an episode in every environment.

        Args:
            seed: environment i is seeded with ``seed + i``, or with ``seed[i]`` of a sequence. Where None, it goes
                on with its own random numbers, which at the first reset come from the operating system.
            options: ``{"workflow": order}`` changes the order of all from these episodes on.

        Raises:
            ValueError: a sequence of seeds of another length than ``num_envs``, a negative seed, what is no order,
                or any order in an environment made without a workflow.

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
        # The generator behind np_random, which wrappers use, follows the first seed.
        super().reset(seed=seeds[0])
        for index, own in enumerate(seeds):
            self._draw_red_agent(index, own)
        fresh = np.random.SeedSequence().generate_state(self.num_envs, np.uint64) if not self._seeded else None
        for index, own in enumerate(seeds):
            if own is not None:
                reset_one(self.state, index, np.uint64(own % 2**64))
            elif fresh is not None:
                reset_one(self.state, index, fresh[index])
            else:
                restart_one(self.state, index)
        self._seeded = True
        self._compliance = np.full(self.num_envs, np.nan)
        return self._seen(np.full(self.num_envs, BEGUN))

    def step(
        self, actions: ArrayLike
    ) -> tuple[NDArray[np.int8], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Play one step in every environment, or reset it if the step before truncated its episode.

        Raises:
            ValueError: actions of another shape than [num_envs], or that do not exist.
            gymnasium.error.ResetNeeded: before the first reset.

        """
        if not self._seeded:
            raise gymnasium.error.ResetNeeded("call reset() before the first step()")
        chosen = np.asarray(actions)
        if chosen.shape != (self.num_envs,) or chosen.dtype.kind not in "iu":
            raise ValueError(
                f"actions must be integers of shape ({self.num_envs},), got {chosen.dtype} of shape {chosen.shape}"
            )
        chosen = np.ascontiguousarray(chosen, np.int64)
        if chosen.min() < 0 or chosen.max() >= len(self._view.menu):
            raise ValueError(f"actions must lie in 0..{len(self._view.menu) - 1}, got {chosen.min()}..{chosen.max()}")
        chosen = self._view.menu[chosen]
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
        """If red agents are mixed, choose that of an episode which is about to begin."""
        if self._shares is not None:
            self.state["red"][index] = drawn_red_agent(seed, self._shares, self.np_random)

    def _seen(self, actions: NDArray[np.int64]) -> tuple[NDArray[np.int8], dict[str, Any]]:
        """Observations and info after these ``actions`` among the 145, BEGUN where an episode has begun instead."""
        everywhere = np.ones(self.num_envs, np.bool_)
        info: dict[str, Any] = {"red_hosts": self.state["held"].astype(np.int64), "_red_hosts": everywhere}
        observation, masks = self._view.after(self.state["observation"].copy(), actions)
        for name, mask in masks.items():
            info |= {name: mask, f"_{name}": everywhere.copy()}
        if self.workflow is None:
            return observation, info
        order_bits = ONE_HOT[ORDER_INDEX[self.workflow]]
        observation = np.hstack([observation, np.broadcast_to(order_bits, (self.num_envs, len(order_bits)))])
        before, fixes = self._compliance, self.state["fixes"]
        self._compliance = np.full(self.num_envs, np.nan)
        np.divide(self.state["compliant_fixes"], fixes, out=self._compliance, where=fixes > 0)
        # In the step of an autoreset compliance becomes undefined again, which is no change within an episode.
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

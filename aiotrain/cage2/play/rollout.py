"""Whole episodes of CAGE Challenge 2 in compiled code: engine, policy and what is written down in one loop."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
from numba import float32
from numpy.typing import ArrayLike, NDArray

from aiotrain.cage2.blue_memory import MEMORY, allow, forget, list_inputs, list_table, remember
from aiotrain.cage2.blue_view import NUM_INPUTS, actions_of, inputs_of
from aiotrain.cage2.engine import NO_TAPE, allocate, compiled, reset_one, step_one
from aiotrain.cage2.engine.chance import part
from aiotrain.cage2.play.policy_network import GROUP, Network, add_bits, allocate_network, bar, fill, finish, sample
from aiotrain.cage2.red_agents import SHARES, compiled_red_agent, drawn_red_agent, shares_of
from aiotrain.cage2.scenario import HOST_TYPES, NUM_BITS

__all__ = ["NO_BONUSES", "NO_MASKS", "ORDER_BITS", "Arrays", "Rollout", "play_episodes"]

_TYPES: Final = len(HOST_TYPES)

ORDER_BITS: Final = _TYPES * _TYPES
"""Inputs that tell a policy the order of host types: number 5 p + h is 1 where type h stands in place p."""

NO_BONUSES: Final[NDArray[np.float32]] = np.zeros((0, 0), np.float32)
"""What ``bonuses`` is where none are wanted."""

NO_MASKS: Final[NDArray[np.int8]] = np.zeros((0, 0, 0), np.int8)
"""What ``masks`` is where every action may always be chosen."""


class Arrays(Protocol):
    """Where episodes are written to, each into its slot; ``aiotrain.transport.ring.Ring`` is one. C-contiguous."""

    @property
    def observations(self) -> NDArray[np.int8]:
        """int8 [slots, T + 1 or more, inputs]: bits of the observation, then ORDER_BITS if the policy has those."""

    @property
    def actions(self) -> NDArray[np.int16]:
        """int16 [slots, T or more]."""

    @property
    def log_probs(self) -> NDArray[np.float32]:
        """float32 [slots, T or more]: natural logarithms."""

    @property
    def rewards(self) -> NDArray[np.float32]:
        """float32 [slots, T or more], the environment's."""


class Rollout:
    """Plays episodes with a policy and keeps the memory that this needs. Not for two threads at once.

    Args:
        layers: (inputs, outputs) of each layer of the policy. It takes the bits of the observation, or these and
            ORDER_BITS to let it see the order, and gives a logit for each action.
        red_agent: one of ``RED_AGENTS``, or "mixed".
        rules: one of ``RULES``.
        observation: "table" (52 bits) or "memory" (307), as ``aiotrain.cage2.blue_view`` has them.
        actions: "full" (145) or "compact" (42, masked).
        red_shares: as of ``Cage2Env``.

    Raises:
        ValueError: layers that do not fit together or the scenario, or an unknown agent, rules, observation or set of
            actions.

    """

    def __init__(
        self,
        layers: Sequence[tuple[int, int]],
        *,
        red_agent: str,
        rules: str = "main",
        observation: str = "table",
        actions: str = "full",
        red_shares: Sequence[float] = SHARES,
    ) -> None:
        inputs, outputs = layers[0][0], layers[-1][1]
        bits, self._menu = inputs_of(observation), actions_of(actions)
        if inputs not in (bits, bits + ORDER_BITS) or outputs != len(self._menu):
            raise ValueError(
                f"a policy from {inputs} inputs to {outputs} outputs, but CAGE Challenge 2 with observation "
                f"{observation!r} and actions {actions!r} has {bits} observation bits ({bits + ORDER_BITS} with those "
                f"of the order) and {len(self._menu)} actions"
            )
        if any(before[1] != after[0] for before, after in itertools.pairwise(layers)):
            raise ValueError(f"layers {list(layers)}: each must take as many inputs as the one before has outputs")
        self._inputs = inputs
        self._size = 2 * inputs + sum((fan_in + 1) * fan_out for fan_in, fan_out in layers)
        self._network = allocate_network(layers)
        self._red_agent, self._rules = compiled_red_agent(red_agent), rules
        self._shares = shares_of(red_agent, red_shares)
        self._masked = actions == "compact"
        self._remembers = self._masked or observation == "memory"
        self._state = allocate(1, red_agent=self._red_agent, rules=rules, max_steps=0)

    def refresh(self, parameters: NDArray[np.float32]) -> None:
        """Play with these parameters from now on.

        Args:
            parameters: float32 [size]: input mean and scale, then weight [inputs, outputs] and bias of each layer.

        Raises:
            ValueError: another size, or a mean and scale other than 0 and 1: bits are taken as they are.

        """
        parameters = np.ascontiguousarray(parameters, np.float32)
        if parameters.shape != (self._size,):
            raise ValueError(f"{self._size} parameters are needed, got an array of shape {list(parameters.shape)}")
        mean, scale = parameters[: 2 * self._inputs].reshape(2, -1)
        if mean.any() or (scale != 1).any():
            raise ValueError(
                "these parameters normalise the inputs, but compiled rollouts take bits as they are: "
                "the first numbers must be a mean of 0 and then a scale of 1 for each input"
            )
        fill(self._network, parameters[2 * self._inputs :])

    def play(
        self,
        seeds: ArrayLike,
        noise: ArrayLike,
        orders: ArrayLike,
        slots: ArrayLike,
        arrays: Arrays,
        bonuses: NDArray[np.float32] = NO_BONUSES,
        alignment_lambda: float = 0.0,
        masks: NDArray[np.int8] = NO_MASKS,
    ) -> NDArray[Any]:
        """Play K episodes of T steps, each into its slot, without holding the interpreter lock.

        To the bit, an episode depends on its seed, noise and order alone, not on what is played with it.

        Args:
            seeds: uint64 [K], for the engine.
            noise: float32 [K, T], uniform in [0, 1): draws the actions, by inverting the distribution function.
            orders: uint8 [K, 5]: host types as places in ``HOST_TYPES``, most urgent first.
            slots: int64 [K], all different.
            arrays: overwritten in these slots.
            bonuses: float32 [slots, T or more], overwritten as well: ``alignment_lambda`` times what the step added
                to the episode's compliance, which counts as 0 before the first fix. They add up to
                ``alignment_lambda`` times the compliance of the episode.
            alignment_lambda: reward for raising the compliance from 0 to 1.
            masks: int8 [slots, T or more, 42], overwritten, and needed, with compact actions: 1 where an action could
                be drawn, which has probability 0 where it is 0.

        Returns:
            The engine's records of the episodes, [K] of dtype ``STATE``, valid until the next call:
            ``return_tenths``, ``fixes`` and ``compliant_fixes`` say how they went.

        Raises:
            ValueError: arrays that do not fit together.

        """
        noise = np.ascontiguousarray(noise, np.float32)
        if noise.ndim != 2:
            raise ValueError(f"noise must have the shape [episodes, steps], got {list(noise.shape)}")
        count, steps = noise.shape
        seeds = _input("seeds", seeds, np.uint64, (count,))
        orders = _input("orders", orders, np.uint8, (count, _TYPES))
        slots = _input("slots", slots, np.int64, (count,))
        if (np.sort(orders, axis=1) != np.arange(_TYPES)).any():
            raise ValueError(f"orders must be permutations of 0..{_TYPES - 1}, one a row")
        num_slots = len(arrays.observations)
        if len(np.unique(slots)) != count or (count and not 0 <= slots.min() <= slots.max() < num_slots):
            raise ValueError(f"slots must be different numbers in 0..{num_slots - 1}, got {slots.tolist()}")
        _check_output("observations", arrays.observations, np.int8, (num_slots, steps + 1, self._inputs))
        _check_output("actions", arrays.actions, np.int16, (num_slots, steps))
        _check_output("log_probs", arrays.log_probs, np.float32, (num_slots, steps))
        _check_output("rewards", arrays.rewards, np.float32, (num_slots, steps))
        if bonuses is not NO_BONUSES:
            _check_output("bonuses", bonuses, np.float32, (num_slots, steps))
        if self._masked:
            _check_output("masks", masks, np.int8, (num_slots, steps, len(self._menu)))
        if len(self._state) < count:
            self._state = allocate(count, red_agent=self._red_agent, rules=self._rules, max_steps=0)
        state = self._state[:count]
        state["order"] = orders
        if self._shares is not None:
            state["red"] = [drawn_red_agent(seed, self._shares) for seed in seeds.tolist()]
        play_episodes(
            state,
            np.zeros(count if self._remembers else 0, MEMORY),
            seeds,
            noise,
            slots,
            self._network,
            self._menu,
            arrays.observations,
            arrays.actions,
            arrays.log_probs,
            arrays.rewards,
            bonuses,
            float(alignment_lambda),
            masks if self._masked else NO_MASKS,
        )
        return state


def _input(name: str, given: ArrayLike, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.ascontiguousarray(given, dtype)
    if array.shape != shape:
        raise ValueError(f"{name} must have the shape {list(shape)}, as the noise has, got {list(array.shape)}")
    return array


def _check_output(name: str, array: NDArray[Any], dtype: Any, shape: tuple[int, ...]) -> None:
    fits = array.ndim == len(shape) and array.shape[0] == shape[0] and array.shape[2:] == shape[2:]
    if not fits or array.shape[1] < shape[1] or array.dtype != dtype or not array.flags.c_contiguous:
        raise ValueError(
            f"{name} must be a C-contiguous {np.dtype(dtype)} array of shape {list(shape)} with {shape[1]} steps or "
            f"more, got {array.dtype} {list(array.shape)}"
        )


@compiled
def play_episodes(
    state: Any,
    memories: Any,
    seeds: NDArray[np.uint64],
    noise: NDArray[np.float32],
    slots: NDArray[np.int64],
    network: Network,
    menu: NDArray[np.int64],
    observations: NDArray[np.int8],
    actions: NDArray[np.int16],
    log_probs: NDArray[np.float32],
    rewards: NDArray[np.float32],
    bonuses: NDArray[np.float32],
    alignment_lambda: float,
    masks: NDArray[np.int8],
) -> None:
    """Play an episode in each record; ``Rollout.play`` says what the arrays are, and checks what is not checked here.

    Rows go through the network GROUP at a time. ``menu``, int64 [actions], is what each action is among the 145.
    ``memories`` has a record of MEMORY for each episode, or none if neither inputs nor masks need them. Without bonuses
    or masks, these are ``NO_BONUSES`` and ``NO_MASKS``.
    """
    steps = noise.shape[1]
    width = len(network.shares)
    for first in range(0, len(state), GROUP):
        rows = min(GROUP, len(state) - first)
        for row in range(rows):
            reset_one(state, first + row, seeds[first + row])
            if len(memories) > 0:
                forget(memories[first + row])
        for step in range(steps):
            for row in range(rows):
                slot = slots[first + row]
                count = _list_bits(state, memories, first + row, network)
                _show(network, count, observations[slot, step])
                add_bits(network, row, count)
                if masks.shape[2] > 0:
                    allow(memories[first + row], state[first + row].observation, masks[slot, step])
            logits = finish(network, rows)
            # All draws before all steps: a step branches on its action, and what was guessed wrong is noticed the
            # sooner, the longer ago the action was known.
            for row in range(rows):
                slot = slots[first + row]
                if masks.shape[2] > 0:
                    bar(network, logits + row * width, masks[slot, step])
                action, log_prob = sample(network, logits + row * width, noise[first + row, step])
                actions[slot, step] = action
                log_probs[slot, step] = log_prob
            for row in range(rows):
                index = first + row
                slot = slots[index]
                env = state[index]
                compliance = _compliance(env)
                action = menu[actions[slot, step]]
                rewards[slot, step] = float32(step_one(state, index, action, NO_TAPE) / 10.0)
                if len(memories) > 0:
                    remember(memories[index], env.observation, action)
                if bonuses.shape[1] > 0:
                    bonuses[slot, step] = alignment_lambda * (_compliance(env) - compliance)
        for row in range(rows):
            count = _list_bits(state, memories, first + row, network)
            _show(network, count, observations[slots[first + row], steps])


@part
def _list_bits(state: Any, memories: Any, index: Any, network: Any) -> Any:
    """List in ``network.bits`` which inputs of an episode are 1, and return how many."""
    env, bits, inputs = state[index], network.bits, network.sizes[0]
    if inputs >= NUM_INPUTS:
        own_bits = NUM_INPUTS
        count = list_inputs(memories[index], env.observation, bits)
    else:
        own_bits = NUM_BITS
        count = list_table(env.observation, bits)
    if inputs > own_bits:
        for place in range(_TYPES):
            bits[count] = own_bits + _TYPES * place + env.order[place]
            count += 1
    return count


@part
def _show(network: Any, count: Any, observation: Any) -> None:
    for i in range(len(observation)):
        observation[i] = 0
    for i in range(count):
        observation[network.bits[i]] = 1


@part
def _compliance(env: Any) -> Any:
    return env.compliant_fixes / env.fixes if env.fixes > 0 else 0.0

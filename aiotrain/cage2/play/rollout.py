"""Whole episodes of CAGE Challenge 2 in one compiled loop: the engine, the policy, and what is recorded."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
from numba import float32
from numpy.typing import ArrayLike, NDArray

from aiotrain.cage2 import blue_memory
from aiotrain.cage2.blue_view import NUM_INPUTS, Actions, Observation, actions_of, inputs_of
from aiotrain.cage2.engine import NO_TAPE, allocate, compiled, reset_one, step_one
from aiotrain.cage2.engine.compilation import compiled_helper
from aiotrain.cage2.play import policy_network
from aiotrain.cage2.red_agents import SHARES, compiled_red_agent, drawn_red_agent, shares_of
from aiotrain.cage2.scenario import HOST_TYPES, NUM_BITS, Rules

__all__ = ["NO_BONUSES", "NO_MASKS", "ORDER_BITS", "Rollout", "SlotArrays", "play_episodes"]

_TYPES: Final = len(HOST_TYPES)

ORDER_BITS: Final = _TYPES * _TYPES
"""Bits of an order in an observation. Bit ``5 * place + type`` is 1 if that host type has that place."""

NO_BONUSES: Final[NDArray[np.float32]] = np.zeros((0, 0), np.float32)
"""Given as ``bonuses`` if there are none."""

NO_MASKS: Final[NDArray[np.int8]] = np.zeros((0, 0, 0), np.int8)
"""Given as ``masks`` if every action is always allowed."""


class SlotArrays(Protocol):
    """C-contiguous arrays that episodes are written to, each into its slot. `Ring` has them."""

    @property
    def observations(self) -> NDArray[np.int8]:
        """int8 [slots, T + 1 or more, inputs]: the observation's bits, then ORDER_BITS if the policy takes these."""

    @property
    def actions(self) -> NDArray[np.int16]:
        """int16 [slots, T or more]."""

    @property
    def log_probs(self) -> NDArray[np.float32]:
        """float32 [slots, T or more]: natural logarithms."""

    @property
    def rewards(self) -> NDArray[np.float32]:
        """float32 [slots, T or more]: the environment's rewards."""


class Rollout:
    """Plays episodes with a policy, and holds the buffers for it. Two threads must not use it at the same time.

    Args:
        layers: (inputs, outputs) of each layer of the policy. Inputs are the observation's bits, and ORDER_BITS if the
            policy sees the order; outputs are a logit for each action.
        red_agent: One of ``RED_AGENTS``, or "mixed".
        rules: One of ``RULES``.
        observation: "table" (52 bits) or "memory" (307); see ``aiotrain.cage2.blue_view``.
        actions: "full" (145) or "compact" (42, masked).
        red_shares: See ``Cage2Env``.

    Raises:
        ValueError: The layers do not fit together or the scenario; or the red agent, the rules, the observation or the
            set of actions is unknown.

    """

    def __init__(
        self,
        layers: Sequence[tuple[int, int]],
        *,
        red_agent: str,
        rules: Rules = "main",
        observation: Observation = "table",
        actions: Actions = "full",
        red_shares: Sequence[float] = SHARES,
    ) -> None:
        inputs, outputs = layers[0][0], layers[-1][1]
        bits, self._menu = inputs_of(observation), actions_of(actions)
        if inputs not in (bits, bits + ORDER_BITS) or outputs != len(self._menu):
            raise ValueError(
                f"the policy has {inputs} inputs and {outputs} outputs, but CAGE Challenge 2 with observation "
                f"{observation!r} and actions {actions!r} has {bits} observation bits ({bits + ORDER_BITS} with those "
                f"of the order) and {len(self._menu)} actions"
            )
        if any(before[1] != after[0] for before, after in itertools.pairwise(layers)):
            raise ValueError(f"layers {list(layers)}: each must have as many inputs as the previous one has outputs")
        self._inputs = inputs
        self._size = 2 * inputs + sum((fan_in + 1) * fan_out for fan_in, fan_out in layers)
        self._network = policy_network.allocate_network(layers)
        self._red_agent, self._rules = compiled_red_agent(red_agent), rules
        self._shares = shares_of(red_agent, red_shares)
        self._masked = actions == "compact"
        self._remembers = self._masked or observation == "memory"
        self._state = allocate(1, red_agent=self._red_agent, rules=rules, max_steps=0)

    def refresh(self, parameters: NDArray[np.float32]) -> None:
        """Play with these parameters from now on.

        Args:
            parameters: float32 [size]: mean and scale of the inputs, then weight [inputs, outputs] and bias of each
                layer.

        Raises:
            ValueError: The size is wrong, or a mean is not 0 or a scale not 1: bits are taken as they are.

        """
        parameters = np.ascontiguousarray(parameters, np.float32)
        if parameters.shape != (self._size,):
            raise ValueError(f"{self._size} parameters are needed, got an array of shape {list(parameters.shape)}")
        mean, scale = parameters[: 2 * self._inputs].reshape(2, -1)
        if mean.any() or (scale != 1).any():
            raise ValueError(
                "these parameters normalise the inputs, but compiled rollouts take bits as they are: the first numbers "
                "must be a mean of 0 and a scale of 1 for each input"
            )
        policy_network.set_weights(self._network, parameters[2 * self._inputs :])

    def play(
        self,
        seeds: ArrayLike,
        noise: ArrayLike,
        orders: ArrayLike,
        slots: ArrayLike,
        arrays: SlotArrays,
        bonuses: NDArray[np.float32] = NO_BONUSES,
        alignment_lambda: float = 0.0,
        masks: NDArray[np.int8] = NO_MASKS,
    ) -> NDArray[Any]:
        """Play K episodes of T steps, each into its slot, without the interpreter lock.

        An episode depends, to the bit, on its seed, noise and order only, and not on what is played with it.

        Args:
            seeds: uint64 [K], for the engine.
            noise: float32 [K, T], uniform in [0, 1): actions are drawn by inverting the distribution function at it.
            orders: uint8 [K, 5]: numbers of host types in ``HOST_TYPES``, most urgent first.
            slots: int64 [K], all different.
            arrays: Arrays that are overwritten in these slots.
            bonuses: float32 [slots, T or more], overwritten: ``alignment_lambda`` times each change of compliance.
            alignment_lambda: Bonus for raising compliance from 0, where it starts, to 1.
            masks: int8 [slots, T or more, 42], overwritten, required with compact actions: 0 for probability 0.

        Returns:
            The engine's records of the episodes, [K] of dtype ``STATE``, with ``return_tenths``, ``fixes`` and
            ``compliant_fixes``. They are valid until the next call.

        Raises:
            ValueError: The arrays do not fit together.

        """
        noise = np.ascontiguousarray(noise, np.float32)
        if noise.ndim != 2:
            raise ValueError(f"noise must have the shape [episodes, steps], got {list(noise.shape)}")
        count, steps = noise.shape
        seeds = _input("seeds", seeds, np.uint64, (count,))
        slots = _input("slots", slots, np.int64, (count,))
        masks = masks if self._masked else NO_MASKS
        self._check_outputs(slots, steps, arrays, bonuses, masks)
        state = self._prepare(seeds, _input("orders", orders, np.uint8, (count, _TYPES)))
        play_episodes(
            state,
            np.zeros(count if self._remembers else 0, blue_memory.MEMORY),
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
            masks,
        )
        return state

    def _prepare(self, seeds: NDArray[np.uint64], orders: NDArray[np.uint8]) -> NDArray[Any]:
        """Return records of the engine for these episodes, with their orders and red agents."""
        if (np.sort(orders, axis=1) != np.arange(_TYPES)).any():
            raise ValueError(f"orders must be permutations of 0..{_TYPES - 1}, one a row")
        if len(self._state) < len(seeds):
            self._state = allocate(len(seeds), red_agent=self._red_agent, rules=self._rules, max_steps=0)
        state = self._state[: len(seeds)]
        state["order"] = orders
        if self._shares is not None:
            state["red"] = [drawn_red_agent(seed, self._shares) for seed in seeds.tolist()]
        return state

    def _check_outputs(
        self,
        slots: NDArray[np.int64],
        steps: int,
        arrays: SlotArrays,
        bonuses: NDArray[np.float32],
        masks: NDArray[np.int8],
    ) -> None:
        num_slots = len(arrays.observations)
        if len(np.unique(slots)) != len(slots) or (len(slots) and not 0 <= slots.min() <= slots.max() < num_slots):
            raise ValueError(f"slots must be different numbers in 0..{num_slots - 1}, got {slots.tolist()}")
        _check_output("observations", arrays.observations, np.int8, (num_slots, steps + 1, self._inputs))
        _check_output("actions", arrays.actions, np.int16, (num_slots, steps))
        _check_output("log_probs", arrays.log_probs, np.float32, (num_slots, steps))
        _check_output("rewards", arrays.rewards, np.float32, (num_slots, steps))
        if bonuses is not NO_BONUSES:
            _check_output("bonuses", bonuses, np.float32, (num_slots, steps))
        if self._masked:
            _check_output("masks", masks, np.int8, (num_slots, steps, len(self._menu)))


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
    network: policy_network.Network,
    menu: NDArray[np.int64],
    observations: NDArray[np.int8],
    actions: NDArray[np.int16],
    log_probs: NDArray[np.float32],
    rewards: NDArray[np.float32],
    bonuses: NDArray[np.float32],
    alignment_lambda: float,
    masks: NDArray[np.int8],
) -> None:
    """Play an episode in each record. `Rollout.play` tells what the arrays are, and checks them.

    GROUP rows go through the network together. ``menu``, int64 [actions], holds the index of each action among the 145.
    ``memories`` has a record of MEMORY for each episode, or none if neither inputs nor masks need them.
    """
    steps = noise.shape[1]
    width = len(network.probabilities)
    for first in range(0, len(state), policy_network.GROUP):
        rows = min(policy_network.GROUP, len(state) - first)
        for row in range(rows):
            _reset(state, memories, first + row, seeds[first + row])
        for step in range(steps):
            for row in range(rows):
                slot = slots[first + row]
                count = _list_ones(state, memories, first + row, network)
                _write_bits(network, count, observations[slot, step])
                policy_network.first_layer(network, row, count)
                if masks.shape[2] > 0:
                    blue_memory.write_mask(memories[first + row], state[first + row].observation, masks[slot, step])
            logits = policy_network.later_layers(network, rows)
            # All draws come before all steps. A step branches on its action: the longer the action has been known, the
            # sooner the processor notices a wrong prediction.
            for row in range(rows):
                slot = slots[first + row]
                if masks.shape[2] > 0:
                    policy_network.mask_logits(network, logits + row * width, masks[slot, step])
                action, log_prob = policy_network.sample(network, logits + row * width, noise[first + row, step])
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
                    blue_memory.update(memories[index], env.observation, action)
                if bonuses.shape[1] > 0:
                    bonuses[slot, step] = alignment_lambda * (_compliance(env) - compliance)
        for row in range(rows):
            count = _list_ones(state, memories, first + row, network)
            _write_bits(network, count, observations[slots[first + row], steps])


@compiled_helper
def _reset(state: Any, memories: Any, index: Any, seed: Any) -> None:
    reset_one(state, index, seed)
    if len(memories) > 0:
        blue_memory.clear(memories[index])


@compiled_helper
def _list_ones(state: Any, memories: Any, index: Any, network: Any) -> Any:
    """List in ``network.bits`` which bits of an episode's observation are 1. Return how many."""
    env, bits, inputs = state[index], network.bits, network.sizes[0]
    if inputs >= NUM_INPUTS:
        own_bits = NUM_INPUTS
        count = blue_memory.list_ones(memories[index], env.observation, bits)
    else:
        own_bits = NUM_BITS
        count = blue_memory.list_table_ones(env.observation, bits)
    if inputs > own_bits:
        for place in range(_TYPES):
            bits[count] = own_bits + _TYPES * place + env.order[place]
            count += 1
    return count


@compiled_helper
def _write_bits(network: Any, count: Any, observation: Any) -> None:
    for i in range(len(observation)):
        observation[i] = 0
    for i in range(count):
        observation[network.bits[i]] = 1


@compiled_helper
def _compliance(env: Any) -> Any:
    return env.compliant_fixes / env.fixes if env.fixes > 0 else 0.0

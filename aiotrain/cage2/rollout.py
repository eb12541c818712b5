"""Whole episodes of CAGE Challenge 2 in compiled code: engine, policy and the arrays of the trajectories in one loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numba import float32
from numpy.typing import NDArray

from aiotrain.cage2.engine import NO_TAPE, allocate, compiled, reset_one, step_one
from aiotrain.cage2.engine.chance import part
from aiotrain.cage2.forward import GROUP, Network, add_bits, allocate_network, fill, finish, sample
from aiotrain.cage2.scenario import HOST_TYPES, NUM_ACTIONS, NUM_BITS

__all__ = ["NO_BONUSES", "ORDER_BITS", "Rollout", "play_episodes"]

_TYPES: Final = len(HOST_TYPES)

ORDER_BITS: Final = _TYPES * _TYPES
"""Inputs that tell a policy the order of host types: number 5 p + h is 1 where type h stands in place p."""

NO_BONUSES: Final[NDArray[np.float32]] = np.zeros((0, 0), np.float32)
"""Pass this as ``bonuses`` where none are wanted."""


class Rollout:
    """Plays episodes with a policy and keeps the memory that this needs.

    Args:
        layers: (inputs, outputs) of each layer of the policy: 52 inputs, or 77 to let it see the order; 145 outputs.
        red_agent: one of ``RED_AGENTS``.
        rules: one of ``RULES``.

    Raises:
        ValueError: layers of which this cannot be made, or an unknown agent or rules.

    """

    def __init__(self, layers: Sequence[tuple[int, int]], *, red_agent: str, rules: str = "main") -> None:
        inputs, outputs = layers[0][0], layers[-1][1]
        if inputs not in (NUM_BITS, NUM_BITS + ORDER_BITS) or outputs != NUM_ACTIONS:
            raise ValueError(
                f"a policy from {inputs} inputs to {outputs} outputs, but CAGE Challenge 2 has {NUM_BITS} observation "
                f"bits (with the order {NUM_BITS + ORDER_BITS}) and {NUM_ACTIONS} actions"
            )
        self._inputs = inputs
        self._size = 2 * inputs + sum((fan_in + 1) * fan_out for fan_in, fan_out in layers)
        self._network = allocate_network(layers)
        self._red_agent, self._rules = red_agent, rules
        self._state = allocate(1, red_agent=red_agent, rules=rules, max_steps=0)

    def refresh(self, parameters: NDArray[np.float32]) -> None:
        """Play with these parameters from now on.

        Args:
            parameters: float32 [size]: input mean and scale, then weight [inputs, outputs] and bias of each layer.

        Raises:
            ValueError: another shape, or a mean and scale other than 0 and 1, since bits need no normalisation.

        """
        if parameters.shape != (self._size,) or parameters.dtype != np.float32:
            raise ValueError(
                f"parameters must be float32 [{self._size}], got {parameters.dtype} {list(parameters.shape)}"
            )
        mean, scale = parameters[: 2 * self._inputs].reshape(2, -1)
        if mean.any() or (scale != 1).any():
            raise ValueError(
                "compiled rollouts take bits as they are, but these parameters normalise them; train with "
                "normalisation of observations switched off"
            )
        fill(self._network, np.ascontiguousarray(parameters[2 * self._inputs :]))

    def play(
        self,
        seeds: NDArray[np.uint64],
        noise: NDArray[np.float32],
        orders: NDArray[np.uint8],
        slots: NDArray[np.int64],
        observations: NDArray[np.int8],
        actions: NDArray[np.int16],
        log_probs: NDArray[np.float32],
        rewards: NDArray[np.float32],
        bonuses: NDArray[np.float32] = NO_BONUSES,
        alignment_lambda: float = 0.0,
    ) -> NDArray[Any]:
        """Play K episodes of T steps, each into its slot, without holding the interpreter lock.

        An episode depends on its own seed, noise, order and slot alone, to the bit, not on what is played with it.

        Args:
            seeds: uint64 [K], for the engine.
            noise: float32 [K, T], uniform in [0, 1): what draws the actions.
            orders: uint8 [K, 5], numbers of host types (places in ``HOST_TYPES``), most urgent first.
            slots: int64 [K], each another one.
            observations: int8 [slots, T + 1 or more, inputs]; overwritten like all that follow.
            actions: int16 [slots, T or more].
            log_probs: float32 [slots, T or more].
            rewards: float32 [slots, T or more].
            bonuses: float32 [slots, T or more], see ``play_episodes``, or ``NO_BONUSES``.
            alignment_lambda: reward for raising the compliance from 0 to 1, for ``bonuses``.

        Returns:
            The engine's records of the episodes, [K] of ``STATE``, valid until the next call: ``return_tenths``,
            ``fixes`` and ``compliant_fixes`` say how they went.

        Raises:
            ValueError: arrays that do not fit together.

        """
        count, steps = noise.shape
        if len(self._state) < count:
            self._state = allocate(count, red_agent=self._red_agent, rules=self._rules, max_steps=0)
        state = self._state[:count]
        self._check(count, steps, seeds, orders, slots, observations, (actions, log_probs, rewards, bonuses))
        state["order"] = orders
        play_episodes(
            state,
            slots,
            seeds,
            noise,
            self._network,
            observations,
            actions,
            log_probs,
            rewards,
            bonuses,
            alignment_lambda,
        )
        return state

    def _check(self, *args: Any) -> None:
        pass


@compiled
def play_episodes(
    state: Any,
    slots: NDArray[np.int64],
    seeds: NDArray[np.uint64],
    noise: NDArray[np.float32],
    network: Network,
    observations: NDArray[np.int8],
    actions: NDArray[np.int16],
    log_probs: NDArray[np.float32],
    rewards: NDArray[np.float32],
    bonuses: NDArray[np.float32],
    alignment_lambda: float,
) -> None:
    """Play an episode in each record; ``Rollout.play`` says what the arrays are. Nothing is checked.

    The bonus of a step is ``alignment_lambda`` times what the step added to the episode's compliance, which counts as
    0 before the first fix; so the bonuses of an episode add up to its compliance at the end.
    """
    steps = noise.shape[1]
    width = len(network.shares)
    for first in range(0, len(state), GROUP):
        rows = min(GROUP, len(state) - first)
        for row in range(rows):
            reset_one(state, first + row, seeds[first + row])
            _show(state[first + row], observations[slots[first + row], 0])
        for step in range(steps):
            for row in range(rows):
                add_bits(network, row, _list_bits(state[first + row], network))
            logits = finish(network, rows)
            for row in range(rows):
                index = first + row
                slot = slots[index]
                env = state[index]
                action, log_prob = sample(network, logits + row * width, noise[index, step])
                fixes, compliance = env.fixes, _compliance(env)
                actions[slot, step] = action
                log_probs[slot, step] = log_prob
                rewards[slot, step] = float32(step_one(state, index, action, NO_TAPE) / 10.0)
                if bonuses.shape[1] > 0:
                    bonuses[slot, step] = alignment_lambda * (_compliance(env) - compliance)
                _show(env, observations[slot, step + 1])


@part
def _list_bits(env: Any, network: Any) -> Any:
    """List in ``network.bits`` which inputs are 1, and return how many."""
    bits = network.bits
    count = 0
    for i in range(NUM_BITS):
        bits[count] = i
        count += env.observation[i]
    if network.sizes[0] > NUM_BITS:
        for place in range(_TYPES):
            bits[count] = NUM_BITS + _TYPES * place + env.order[place]
            count += 1
    return count


@part
def _show(env: Any, observation: Any) -> None:
    for i in range(NUM_BITS):
        observation[i] = env.observation[i]
    if len(observation) > NUM_BITS:
        for place in range(_TYPES):
            for kind in range(_TYPES):
                observation[NUM_BITS + _TYPES * place + kind] = env.order[place] == kind


@part
def _compliance(env: Any) -> Any:
    return env.compliant_fixes / env.fixes if env.fixes > 0 else 0.0

"""The agent for CAGE Challenge 2 that an export writes: which source it has, and the tables of what it remembers."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aiotrain.cage2 import blue_view as view
from aiotrain.cage2 import scenario
from aiotrain.cage2.domain import Cage2
from aiotrain.cage2.official import challenge_agent
from aiotrain.cage2.trained_runs import settings_of
from aiotrain.cage2.workflows import ONE_HOT, ORDER_INDEX, parse_order
from aiotrain.play.policy import INPUT_CLIP, NumpyPolicy
from aiotrain.runs.export.agent_file import AgentParts, general_parts
from aiotrain.runs.load_run import Trained

__all__ = ["agent_parts"]

_TOLD: Final = ("red_agent", "red_shares", "rules", "observation", "actions", "workflow")
_FOR_THE_CHALLENGE: Final = """
The evaluation script of CAGE Challenge 2 takes it as it is, instead of BlueLoadAgent.
"""
_OF_SCENARIO: Final = ("GLOBAL_ACTIONS", "HOST_ACTIONS", "HOSTS")
_OF_VIEW: Final = (
    *("COMPACT_ACTIONS", "DEFENDED", "DECOYS", "TIMES", "AGES", "OLD", "EVENTS_KEPT", "OPENING"),
    *("ACTIONS_KEPT", "ACTION_KINDS", "MOST_EVENTS"),
)


def agent_parts(trained: Trained) -> AgentParts:
    """Return the parts of an agent that sees the 52 bits of the challenge. The order it acts by is in its policy."""
    env, policy = settings_of(trained.config), trained.policy
    if env.workflow != "none":
        policy = _always_shown(policy, ONE_HOT[ORDER_INDEX[parse_order(env.workflow)]])
    about = {name: getattr(env, name) for name in _TOLD}
    if (env.observation, env.actions) != ("table", "full"):
        return AgentParts(source=challenge_agent, policy=policy, constants=_memory(env), about=about)
    general = general_parts(trained)
    constants = {**general.constants, "OBSERVATION_SHAPE": (policy.shape.inputs,)}  # without the order
    return dataclasses.replace(general, policy=policy, constants=constants, remark=_FOR_THE_CHALLENGE, about=about)


def _memory(env: Cage2) -> dict[str, Any]:
    """Return what is seen and done in the challenge, and the tables of what is remembered."""
    from aiotrain.cage2.blue_memory import DECOY_OF_ACTION  # imports Numba

    decoys = {
        scenario.action_name(action): int(bit).bit_length() - 1 for action, bit in enumerate(DECOY_OF_ACTION) if bit
    }
    return {
        "OBSERVATION": env.observation,
        "ACTIONS": env.actions,
        **{name: getattr(scenario, name) for name in _OF_SCENARIO},
        **{name: getattr(view, name) for name in _OF_VIEW},
        "DECOY_OF_ACTION": decoys,
    }


def _always_shown(policy: NumpyPolicy, bits: npt.NDArray[np.int8]) -> NumpyPolicy:
    """Return a policy without the last inputs of ``policy``, which does what that does when these are ``bits``.

    Their part of the first layer's sums is a constant, and goes to its biases.
    """
    inputs = policy.shape.inputs - len(bits)
    mean, scale, weight, bias, *rest = policy.shape.split(policy.parameters)
    shown = bits.astype(np.float32)
    if policy.normalizes:
        shown = np.clip((shown - mean[inputs:]) * scale[inputs:], -INPUT_CLIP, INPUT_CLIP)
    without = NumpyPolicy(dataclasses.replace(policy.shape, inputs=inputs))
    parameters = [mean[:inputs], scale[:inputs], weight[:inputs], bias + shown @ weight[inputs:], *rest]
    for target, values in zip(without.shape.split(without.parameters), parameters, strict=True):
        target[...] = values
    without.refresh()
    return without

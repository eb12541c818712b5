"""A policy as one file of Python: the parts beside this module, with the run's constants in front of them."""

from __future__ import annotations

import base64
import dataclasses
import inspect
import textwrap
from pprint import pformat
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aiotrain.cage2 import blue_view as view
from aiotrain.cage2 import scenario
from aiotrain.cage2.domain import Cage2
from aiotrain.cage2.official import challenge_agent as agent_for_cage2
from aiotrain.cage2.workflows import ONE_HOT, ORDER_INDEX, parse_order
from aiotrain.play.policy import INPUT_CLIP, NumpyPolicy
from aiotrain.play.spaces import EnvSpec
from aiotrain.runs.export import agent_for_any, agent_policy
from aiotrain.runs.export.about import MARK, about
from aiotrain.runs.load import Trained

__all__ = ["agent_file"]

_LINE: Final = "\n# ---- copied ----\n"
_WIDTH: Final = 110
_FOR_THE_CHALLENGE: Final = """
The evaluation script of CAGE Challenge 2 takes it as it is, instead of BlueLoadAgent.
"""
_IMPORTS: Final = """\
from __future__ import annotations

import base64
from math import inf
from typing import Any

import numpy as np
"""
_OF_SCENARIO: Final = ("GLOBAL_ACTIONS", "HOST_ACTIONS", "HOSTS")
_OF_VIEW: Final = (
    *("COMPACT_ACTIONS", "DEFENDED", "DECOYS", "TIMES", "AGES", "OLD", "EVENTS_KEPT", "OPENING"),
    *("ACTIONS_KEPT", "ACTION_KINDS", "MOST_EVENTS"),
)


def agent_file(trained: Trained) -> str:
    """The source of a module with a class Agent that needs NumPy alone."""
    env, policy = trained.config.env, trained.policy
    is_cage2 = isinstance(env, Cage2)
    remembers = isinstance(env, Cage2) and (env.observation, env.actions) != ("table", "full")
    if isinstance(env, Cage2) and env.workflow != "none":
        policy = _always_shown(policy, ONE_HOT[ORDER_INDEX[parse_order(env.workflow)]])
    constants = {
        "ABOUT": about(trained),
        "GREEDY": trained.actions == "greedy",
        "LAYERS": (policy.shape.inputs, *policy.shape.hidden, policy.shape.outputs),
        "GAUSSIAN": policy.shape.kind == "gaussian",
        "NORMALIZED": policy.normalizes,
        "INPUT_CLIP": INPUT_CLIP,
        **(_cage2(env) if isinstance(env, Cage2) and remembers else _spaces(trained.spec)),
    }
    if is_cage2 and not remembers:
        constants["OBSERVATION_SHAPE"] = (policy.shape.inputs,)  # without the order
    part: ModuleType = agent_for_cage2 if remembers else agent_for_any
    weights = base64.encodebytes(policy.parameters.astype("<f4").tobytes()).decode()
    blocks = (
        f'"""{part.__doc__}{_FOR_THE_CHALLENGE if is_cage2 and not remembers else ""}"""\n\n# {MARK}\n\n{_IMPORTS}',
        "\n".join(f"{name} = {_literal(value)}" for name, value in constants.items()) + "\n\n",
        _copied(part) + "\n",
        _copied(agent_policy) + "\n",
        f'WEIGHTS = """\n{weights}"""\n',
    )
    return "\n".join(blocks)


def _literal(value: Any) -> str:
    """Plain values as Python writes them, on lines of their own where one is too short."""
    text = pformat(value, width=_WIDTH, compact=True, sort_dicts=False)
    if "\n" not in text:
        return text
    inside = textwrap.indent(textwrap.dedent(f" {text[1:-1]}"), "    ")
    return f"{text[0]}\n{inside},\n{text[-1]}"


def _copied(part: ModuleType) -> str:
    """What a part gives to the file."""
    return inspect.getsource(part).split(_LINE, 1)[1].strip("\n") + "\n"


def _spaces(spec: EnvSpec) -> dict[str, Any]:
    """How observations and actions are coded."""
    return {
        "ONE_HOT": spec.observation_kind == "one_hot",
        "OBSERVATION_SHAPE": spec.observation_shape,
        "OBSERVATION_START": spec.observation_start,
        "MASKED": spec.has_action_mask,
        "ACTION_START": spec.action_start,
        "ACTION_LOW": spec.action_low,
        "ACTION_HIGH": spec.action_high,
        "ACTION_DTYPE": spec.action_dtype,
    }


def _cage2(env: Cage2) -> dict[str, Any]:
    """What is seen and done in CAGE Challenge 2, and the tables of what is remembered."""
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
    """A policy without the last inputs of ``policy``, which does what that does when these are ``bits``.

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

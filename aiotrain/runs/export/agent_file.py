"""A policy as one file of Python: the parts beside this module, with the run's constants in front of them."""

from __future__ import annotations

import base64
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pprint import pformat
from types import ModuleType
from typing import Any, Final

from aiotrain.domains import part_of
from aiotrain.play.env_factory import named
from aiotrain.play.policy import INPUT_CLIP, NumpyPolicy
from aiotrain.runs.export import agent_for_any, agent_policy
from aiotrain.runs.export.about import MARK
from aiotrain.runs.load_run import Trained

__all__ = ["AgentParts", "agent_file", "general_parts", "parts_of"]

_LINE: Final = "\n# ---- copied ----\n"
_WIDTH: Final = 110
_IMPORTS: Final = """\
from __future__ import annotations

import base64
from math import inf
from typing import Any

import numpy as np
"""


@dataclass(frozen=True, kw_only=True)
class AgentParts:
    """What an agent's file is made of."""

    source: ModuleType
    """Has the docstring of the file, and below a line ``# ---- copied ----`` its class Agent."""
    policy: NumpyPolicy
    """The policy that it acts by."""
    constants: Mapping[str, Any]
    """Plain values by the names that the source uses, beside those of the policy."""
    remark: str = ""
    """Follows the docstring."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What the policy was trained on besides, as plain values for all exported files."""


def parts_of(trained: Trained) -> AgentParts:
    """Return the parts that the policy's domain gives, else the general ones."""
    domain = trained.config.domain
    if domain is None or (agent := domain.agent) is None:
        return general_parts(trained)
    parts: AgentParts = part_of(domain, "agent", AgentParts, lambda: named(agent)(trained))
    return parts


def general_parts(trained: Trained) -> AgentParts:
    """Return the parts of an agent that observes and acts as the environment of the training has it."""
    spec = trained.spec
    constants = {
        "ONE_HOT": spec.observation_kind == "one_hot",
        "OBSERVATION_SHAPE": spec.observation_shape,
        "OBSERVATION_START": spec.observation_start,
        "MASKED": spec.has_action_mask,
        "ACTION_START": spec.action_start,
        "ACTION_LOW": spec.action_low,
        "ACTION_HIGH": spec.action_high,
        "ACTION_DTYPE": spec.action_dtype,
    }
    return AgentParts(source=agent_for_any, policy=trained.policy, constants=constants)


def agent_file(about: Mapping[str, Any], parts: AgentParts, greedy: bool) -> str:
    """Return the source of a module with a class Agent that needs NumPy alone."""
    policy = parts.policy
    constants = {
        "ABOUT": about,
        "GREEDY": greedy,
        "LAYERS": (policy.shape.inputs, *policy.shape.hidden, policy.shape.outputs),
        "GAUSSIAN": policy.shape.kind == "gaussian",
        "NORMALIZED": policy.normalizes,
        "INPUT_CLIP": INPUT_CLIP,
        **parts.constants,
    }
    weights = base64.encodebytes(policy.parameters.astype("<f4").tobytes()).decode()
    blocks = (
        f'"""{parts.source.__doc__}{parts.remark}"""\n\n# {MARK}\n\n{_IMPORTS}',
        "\n".join(f"{name} = {_literal(value)}" for name, value in constants.items()) + "\n\n",
        _copied(parts.source) + "\n",
        _copied(agent_policy) + "\n",
        f'WEIGHTS = """\n{weights}"""\n',
    )
    return "\n".join(blocks)


def _literal(value: Any) -> str:
    """Return plain values as Python writes them, on lines of their own where one is too short."""
    text = pformat(value, width=_WIDTH, compact=True, sort_dicts=False)
    if "\n" not in text:
        return text
    inside = textwrap.indent(textwrap.dedent(f" {text[1:-1]}"), "    ")
    return f"{text[0]}\n{inside},\n{text[-1]}"


def _copied(part: ModuleType) -> str:
    """Return what a part gives to the file."""
    return inspect.getsource(part).split(_LINE, 1)[1].strip("\n") + "\n"

"""What an environment is like, and what is wrong with what it returns."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from aiotrain.errors import AiotrainError, EnvError, InvalidStepError
from aiotrain.play.env_factory import EnvFactory, named
from aiotrain.play.spaces import EnvSpec

__all__ = [
    "BREAKDOWNS",
    "NUMBERS",
    "InvalidValue",
    "close_envs",
    "inspect_env",
    "make_env",
    "mask_fault",
    "metric_of",
    "numbers_of",
    "observation_fault",
]

BREAKDOWNS = (Exception, SystemExit)  # sys.exit in an environment ends its episode, not the run
NUMBERS = (int, float, np.integer, np.floating, np.bool_)
"""Types of a metric."""


class InvalidValue(Exception):
    """What the environment returned cannot be learned from."""


def make_env(factory: EnvFactory) -> gymnasium.Env[Any, Any]:
    """Return a new environment. Raises EnvError with the traceback."""
    try:
        return factory()
    except AiotrainError:
        raise
    except BREAKDOWNS as error:
        raise EnvError(f"environment {factory.name} cannot be made:\n{traceback.format_exc()}") from error


def inspect_env(factory: EnvFactory) -> tuple[gymnasium.Env[Any, Any], EnvSpec]:
    """Make an environment, reset it once, and tell what it is like.

    Raises EnvError with the traceback, UnsupportedSpaceError or InvalidStepError.
    """
    env = make_env(factory)
    try:
        return env, _look_at(env, factory)
    except BaseException:
        close_envs([env])
        raise


def close_envs(envs: Iterable[gymnasium.Env[Any, Any]]) -> None:
    """Let the environments end what they own; whatever they raise there does not matter any more."""
    for env in envs:
        with contextlib.suppress(*BREAKDOWNS):
            env.close()


def _look_at(env: gymnasium.Env[Any, Any], factory: EnvFactory) -> EnvSpec:
    try:
        spec = EnvSpec.of(env, factory.name, factory.max_episode_steps)
        observation, info = env.reset(seed=0)
        spec = dataclasses.replace(
            spec,
            metrics=factory.metrics,
            has_action_mask=spec.action_kind == "discrete" and "action_mask" in info,
        )
    except AiotrainError:
        raise
    except BREAKDOWNS as error:
        raise EnvError(f"environment {factory.name} raised in its first reset:\n{traceback.format_exc()}") from error
    if fault := observation_fault(observation, spec) or mask_fault(info, spec):
        raise InvalidStepError(f"environment {factory.name}, first reset(seed=0): {fault}", seed=0, step=0)
    if factory.compiled_player is not None:
        named(factory.compiled_player).compile()  # once, before there are other workers
    return spec


def observation_fault(observation: Any, spec: EnvSpec) -> str:
    """Return what is wrong with the shape, dtype, range or finiteness of ``observation``; empty if nothing is."""
    array = np.asarray(observation)
    if array.shape != spec.observation_shape:
        return f"observation of shape {array.shape} where the space says {spec.observation_shape}"
    if array.dtype.kind not in "biuf" or not np.can_cast(array.dtype, spec.observation_dtype, "same_kind"):
        return f"observation of dtype {array.dtype} where the space says {spec.observation_dtype}"
    if spec.observation_kind == "one_hot" and not 0 <= array - spec.observation_start < spec.inputs:
        return f"observation {array}, which the Discrete space does not have"
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return f"observation with {int((~np.isfinite(array)).sum())} values that are NaN or infinite"
    return ""


def mask_fault(info: Mapping[str, Any], spec: EnvSpec) -> str:
    """Return what is wrong with ``action_mask`` in ``info``, or with its presence or absence; empty if nothing is."""
    if not spec.has_action_mask:
        is_late = spec.action_kind == "discrete" and "action_mask" in info
        return "an action_mask, which the info of its first reset lacked: give one there too, or nowhere" * is_late
    if "action_mask" not in info:
        return "no action_mask, which the info of its first reset had"
    mask = np.asarray(info["action_mask"])
    if mask.shape != (spec.outputs,) or mask.dtype.kind not in "biu":
        return f"an action_mask of {mask.dtype} {mask.shape} where {spec.outputs} integers belong, one an action"
    return "" if mask.any() else "an action_mask that allows no action"


def numbers_of(values: Sequence[Any], what: str) -> npt.NDArray[np.float64]:
    """Return the rewards or bonuses of a slot, float64 ``[T]``. Raises InvalidValue for what is no number."""
    numbers = np.array(values, np.float64)
    if numbers.shape != (len(values),):
        raise InvalidValue(f"a {what} of shape {numbers.shape[1:]} where one number belongs")
    return numbers


def metric_of(name: str, value: Any) -> float:
    """Return a metric as a number; NaN where there is none. Raises InvalidValue for what is no finite number."""
    if value is None:
        return math.nan
    try:
        number = float(value) if isinstance(value, NUMBERS) else math.inf
    except (OverflowError, TypeError):  # an integer beyond all floats, a time difference
        number = math.inf
    if math.isinf(number):
        raise InvalidValue(f"{name} = {value!r:.60} in info, where a finite number belongs")
    return number

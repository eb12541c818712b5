"""What the trainer knows of an environment: how observations and actions are stored, and what the policy sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from aiotrain.errors import UnsupportedSpaceError
from aiotrain.transport.slot_ring import RingLayout

__all__ = ["EnvSpec"]

_DEFAULT_SLOT_STEPS = 1024
_LONGEST_SLOT_STEPS = 4096  # a longer time limit does not deserve a slot for the whole episode


@dataclass(frozen=True)
class EnvSpec:
    """An environment as the ring, the policy and the learner see it. Plain data: it travels between processes."""

    name: str
    """What people call the environment."""
    observation_kind: Literal["box", "bits", "one_hot"]
    observation_shape: tuple[int, ...]
    """Shape of one stored observation; () for a Discrete space."""
    observation_dtype: str
    """The dtype that the environment itself uses: 52 bits are bytes, not floats."""
    inputs: int
    """Numbers that the policy's first layer takes."""
    observation_start: int
    """First value of a Discrete observation space, else 0."""
    action_kind: Literal["discrete", "gaussian"]
    action_shape: tuple[int, ...]
    """Shape of one stored action; () for a Discrete space."""
    outputs: int
    """Numbers that the policy's last layer gives: actions, or means of the Gaussian."""
    action_start: int
    """First value of a Discrete action space, else 0."""
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    """Bounds of a Box action space, to which actions are clipped on their way to the environment; else ()."""
    action_dtype: str
    """Dtype of the actions that the environment is given; the ring keeps int16, int32 or float32."""
    max_episode_steps: int | None
    """The environment's own time limit in steps, where it tells one."""
    metrics: tuple[str, ...] = ()
    """Numbers of an episode that ``info`` may tell at its end, by name."""
    has_action_mask: bool = False
    """Whether ``info`` tells ``action_mask`` after reset and step: for each action 1 if it may be drawn, else 0."""

    @classmethod
    def of(cls, env: gymnasium.Env[Any, Any], name: str, limit: int | None = None) -> EnvSpec:
        """Return the spec of ``env``, whose episodes are also cut after ``limit`` steps.

        Raises UnsupportedSpaceError, with the space and the reason.
        """
        observation, action = env.observation_space, env.action_space
        kind, shape, dtype, inputs, start = _observation_layout(observation, name)
        action_kind, action_shape, outputs, action_start, low, high = _action_layout(action, name)
        return cls(
            name=name,
            observation_kind=kind,
            observation_shape=shape,
            observation_dtype=dtype,
            inputs=inputs,
            observation_start=start,
            action_kind=action_kind,
            action_shape=action_shape,
            outputs=outputs,
            action_start=action_start,
            action_low=low,
            action_high=high,
            action_dtype=str(action.dtype),
            max_episode_steps=_max_episode_steps(env, limit),
        )

    @property
    def ring_action_dtype(self) -> npt.DTypeLike:
        """Return the smallest dtype that holds every action as the policy draws it."""
        if self.action_kind == "gaussian":
            return np.float32
        return np.int16 if self.outputs <= np.iinfo(np.int16).max else np.int32

    @property
    def masked(self) -> int:
        """Actions in a stored mask: all, or none where the environment bars none."""
        return self.outputs if self.has_action_mask else 0

    @property
    def slot_steps(self) -> int:
        """Steps of a slot unless the configuration says so: a whole episode, if that has a reasonable limit."""
        limit = self.max_episode_steps
        return limit if limit is not None and limit <= _LONGEST_SLOT_STEPS else _DEFAULT_SLOT_STEPS

    def ring_layout(self, slots: int, steps: int) -> RingLayout:
        """Return the layout of a ring for ``slots`` trajectories of at most ``steps`` steps each."""
        return RingLayout(
            slots,
            steps,
            self.observation_shape,
            self.observation_dtype,
            self.action_shape,
            np.dtype(self.ring_action_dtype).str,
            self.masked,
            self.metrics,
        )

    def encode(self, observations: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return observations ``[N, *shape]`` as the policy's inputs ``[N, inputs]``, float32."""
        if self.observation_kind == "one_hot":
            encoded = np.zeros((len(observations), self.inputs), np.float32)
            encoded[np.arange(len(observations)), observations - self.observation_start] = 1.0
            return encoded
        return observations.reshape(len(observations), self.inputs).astype(np.float32)


def _observation_layout(
    space: spaces.Space[Any], name: str
) -> tuple[Literal["box", "bits", "one_hot"], tuple[int, ...], str, int, int]:
    match space:
        case spaces.Box() if np.dtype(space.dtype).kind in "fiub" and np.prod(space.shape) > 0:
            return "box", space.shape, str(space.dtype), int(np.prod(space.shape)), 0
        case spaces.MultiBinary():
            return "bits", space.shape, str(space.dtype), int(np.prod(space.shape)), 0
        case spaces.Discrete():
            return "one_hot", (), str(space.dtype), int(space.n), int(space.start)
    raise UnsupportedSpaceError(
        f"{name}: observation space {space} is not supported: a policy here takes Box, Discrete and MultiBinary "
        f"observations of numbers. {_wrapper_advice(space)}"
    )


def _action_layout(
    space: spaces.Space[Any], name: str
) -> tuple[Literal["discrete", "gaussian"], tuple[int, ...], int, int, tuple[float, ...], tuple[float, ...]]:
    match space:
        case spaces.Discrete():
            return "discrete", (), int(space.n), int(space.start), (), ()
        case spaces.Box() if len(space.shape) == 1 and space.shape[0] > 0 and np.dtype(space.dtype).kind == "f":
            low, high = space.low.astype(float), space.high.astype(float)
            return "gaussian", space.shape, space.shape[0], 0, tuple(low.tolist()), tuple(high.tolist())
    raise UnsupportedSpaceError(
        f"{name}: action space {space} is not supported: a policy here draws Discrete and Box actions (a Box of "
        "floats with one axis). Wrap the environment so that its actions have this form."
    )


def _wrapper_advice(space: spaces.Space[Any]) -> str:
    if isinstance(space, spaces.Dict | spaces.Tuple | spaces.MultiDiscrete):
        return "Wrap the environment in gymnasium.wrappers.FlattenObservation."
    return "Wrap the environment so that its observations have this form."


def _max_episode_steps(env: gymnasium.Env[Any, Any], limit: int | None) -> int | None:
    """Return the lowest of ``limit``, that of Gymnasium's registration, and the environment's own ``max_steps``."""
    limits = [
        steps
        for steps in (limit, env.spec and env.spec.max_episode_steps, getattr(env.unwrapped, "max_steps", None))
        if isinstance(steps, int) and steps > 0
    ]
    return min(limits, default=None)

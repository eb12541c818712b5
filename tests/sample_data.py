"""Specs, weights and trajectories for tests that need no environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from aiotrain.play.policy import PolicyShape
from aiotrain.play.spaces import EnvSpec
from aiotrain.transport.slot_ring import SEALED, Trajectories, header_dtype
from envs import Action, Observation, Toy


def spec_of(observation: Observation = "box", action: Action = "discrete") -> EnvSpec:
    return EnvSpec.of(Toy(observation, action), "toy")


def weights_for(shape: PolicyShape, seed: int = 0, deviation: float = 0.7) -> npt.NDArray[np.float32]:
    """A random vector of parameters: means about 0, scales about 1."""
    rng = np.random.default_rng(seed)
    vector = (deviation * rng.standard_normal(shape.size)).astype(np.float32)
    mean, scale = shape.split(vector)[:2]
    mean[...] = rng.normal(0, 0.1, shape.inputs)
    scale[...] = rng.uniform(0.5, 2, shape.inputs)
    return vector


def trajectories(
    spec: EnvSpec,
    lengths: Sequence[int],
    *,
    episodes: Sequence[int] | None = None,
    fragments: Sequence[int] | None = None,
    ended: Sequence[bool] | None = None,
    terminated: Sequence[bool] | None = None,
    versions: Sequence[int] | None = None,
    metrics: Sequence[str] = (),
    seed: int = 0,
) -> Trajectories:
    """Random trajectories of these ``lengths``; by default each is an episode that terminated. ``metrics`` are 0."""
    rng = np.random.default_rng(seed)
    count, steps = len(lengths), sum(lengths)
    headers = np.zeros(count, header_dtype(metrics))
    headers["length"] = headers["episode_steps"] = lengths
    headers["episode"] = range(count) if episodes is None else episodes
    headers["fragment"] = 0 if fragments is None else fragments
    headers["ended"] = True if ended is None else ended
    headers["terminated"] = True if terminated is None else terminated
    headers["version"] = 0 if versions is None else versions
    headers["state"] = SEALED
    masks = (rng.random((steps, spec.masked)) < 0.5).astype(np.int8)
    if spec.action_kind == "discrete":
        actions: npt.NDArray[Any] = rng.integers(0, spec.outputs, steps).astype(spec.ring_action_dtype)
    else:
        actions = rng.standard_normal((steps, spec.outputs)).astype(np.float32)
    if spec.has_action_mask:
        masks[np.arange(steps), actions] = 1
    return Trajectories(
        headers,
        _observations(spec, steps, rng),
        _observations(spec, count, rng),
        actions,
        np.log(rng.uniform(0.1, 0.9, steps)).astype(np.float32),
        rng.standard_normal(steps).astype(np.float32),
        np.zeros(steps, np.float32),
        masks,
    )


def _observations(spec: EnvSpec, count: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    shape = (count, *spec.observation_shape)
    match spec.observation_kind:
        case "bits":
            return rng.integers(0, 2, shape).astype(spec.observation_dtype)
        case "one_hot":
            return (rng.integers(0, spec.inputs, shape) + spec.observation_start).astype(spec.observation_dtype)
    return rng.standard_normal(shape).astype(spec.observation_dtype)

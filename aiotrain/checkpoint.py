"""Weights on disk: safetensors, written whole or not at all, read as data and nothing else."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from aiotrain.errors import ConfigError
from aiotrain.policy import NumpyPolicy, PolicyShape
from aiotrain.spaces import EnvSpec

__all__ = ["load_policy", "save_weights", "write_whole"]

_Described = TypeVar("_Described")


def save_weights(path: Path, tensors: Mapping[str, npt.NDArray[Any]], shape: PolicyShape, spec: EnvSpec) -> None:
    """Write the learner's ``tensors`` to ``path``, with what is needed to act with them in the file's metadata.

    The file is complete under its name or not there: it is written beside it, flushed to disk, and renamed.
    """
    metadata = {"policy": json.dumps(dataclasses.asdict(shape)), "environment": json.dumps(dataclasses.asdict(spec))}
    data = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, metadata)
    write_whole(path, data)


def load_policy(path: str | Path) -> tuple[NumpyPolicy, EnvSpec]:
    """The policy in a file that a run left, such as weights.safetensors, and the environment that it was trained for.

    ``policy.act(spec.encode(observations), policy.noise(generator, len(observations)))`` draws actions, and their
    log-probabilities, for observations ``[N, *spec.observation_shape]``; where ``spec.has_action_mask``, it needs
    their masks too. ``policy.shape`` tells its layers. Nothing in the file is executed. Raises ConfigError if there is
    none, or it is damaged or no policy of aiotrain.
    """
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            shape = _described(PolicyShape, metadata.get("policy"))
            spec = _described(EnvSpec, metadata.get("environment"))
            if PolicyShape.of(spec, shape.hidden) != shape:
                raise ValueError("the policy's inputs and outputs are not those of its environment")
            names = ["input_mean", "input_scale"]
            shapes: list[tuple[int, ...]] = [(shape.inputs,), (shape.inputs,)]
            for index, (fan_in, fan_out) in enumerate(shape.layers):
                names += [f"actor.{2 * index}.weight", f"actor.{2 * index}.bias"]  # between them, there is a tanh
                shapes += [(fan_out, fan_in), (fan_out,)]
            if shape.kind == "gaussian":
                names.append("log_std")
                shapes.append((shape.outputs,))
            tensors = [file.get_tensor(name) for name in names]
        for name, tensor, expected in zip(names, tensors, shapes, strict=True):
            if tensor.shape != expected or tensor.dtype != np.float32 or not np.isfinite(tensor).all():
                raise ValueError(f"{name} is no float32 array of shape {list(expected)} with finite numbers")
        policy = NumpyPolicy(shape)
        for view, tensor in zip(shape.split(policy.parameters), tensors, strict=True):
            view[...] = tensor.T
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}; a run writes its weights when it ends") from None
    except (OSError, RecursionError, SafetensorError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} holds no policy of this version of aiotrain, or is damaged: {error}") from error
    policy.refresh()
    return policy, spec


def _described(kind: Callable[..., _Described], text: str | None) -> _Described:
    """What `save_weights` wrote of a dataclass. Raises TypeError or ValueError if it did not."""
    if text is None:
        raise ValueError("its metadata lack what aiotrain writes there")
    values: dict[str, Any] = json.loads(text)
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a crash leaves the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

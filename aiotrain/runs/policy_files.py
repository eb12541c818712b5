"""Files of weights, such as weights.safetensors: a policy, and what is needed to act with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from aiotrain.errors import ConfigError, Faults
from aiotrain.play.policy import NumpyPolicy, PolicyShape
from aiotrain.play.spaces import EnvSpec
from aiotrain.runs.tensor_files import Tensors, Unfit, parsed, read_tensors, write_whole

__all__ = ["WEIGHTS", "described", "load_policy", "policy_of", "read_as", "save_weights", "tensors_of"]

WEIGHTS: Final = "weights.safetensors"
"""The file in a run's folder that holds the policy at its end."""
_MOST_BYTES: Final = 4 << 30

_Described = TypeVar("_Described")


def save_weights(path: Path, tensors: Mapping[str, npt.NDArray[Any]], shape: PolicyShape, spec: EnvSpec) -> None:
    """Write the learner's ``tensors`` to ``path``, with what is needed to act with them in the file's metadata.

    The file appears whole under its name. Raises OSError.
    """
    data = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, described(shape, spec))
    write_whole(path, data)


def described(shape: PolicyShape, spec: EnvSpec) -> dict[str, str]:
    """Return what `load_policy` needs of a file's metadata."""
    return {"policy": json.dumps(dataclasses.asdict(shape)), "environment": json.dumps(dataclasses.asdict(spec))}


def tensors_of(policy: NumpyPolicy) -> Tensors:
    """Return the parameters of ``policy`` by the names that `load_policy` knows; weights are ``[out, in]``."""
    names, views = _tensor_names(policy.shape), policy.shape.split(policy.parameters)
    return {name: np.ascontiguousarray(view.T) for name, view in zip(names, views, strict=True)}


def _tensor_names(shape: PolicyShape) -> list[str]:
    """Return the names of a policy's tensors, in the order in which its parameters lie in the flat vector."""
    names = ["input_mean", "input_scale"]
    for index in range(len(shape.layers)):
        names += [f"actor.{2 * index}.weight", f"actor.{2 * index}.bias"]  # between them, there is a tanh
    return [*names, "log_std"] if shape.kind == "gaussian" else names


def load_policy(path: str | Path) -> tuple[NumpyPolicy, EnvSpec]:
    """Return the policy in a file that a run left, such as weights.safetensors, and its environment's spec.

    ``policy.act(spec.encode(observations), policy.noise(generator, len(observations)))`` draws actions, and their
    log-probabilities, for observations ``[N, *spec.observation_shape]``; where ``spec.has_action_mask``, it needs
    their masks too. ``policy.shape`` tells its layers. Nothing in the file is executed. Raises ConfigError if there is
    none, or it is damaged or no policy of aiotrain.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder: name a file in it, such as {path / WEIGHTS}")
    try:
        metadata, tensors = read_tensors(path, _MOST_BYTES)
        if metadata.get("format", "").startswith("aiotrain checkpoint"):
            raise ConfigError(f"{path} is a checkpoint: name the policy.safetensors that aiotrain.export makes of it")
        if not {"policy", "environment"} <= metadata.keys():
            raise Unfit("its metadata lack what aiotrain writes there")
        shape = read_as(PolicyShape, parsed(metadata["policy"]))
        spec = read_as(EnvSpec, parsed(metadata["environment"]))
        if PolicyShape.of(spec, shape.hidden) != shape:
            raise Unfit("the policy's inputs and outputs are not those of its environment")
        return policy_of(shape, tensors), spec
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}; a run writes its weights when it ends") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except Unfit as error:
        raise ConfigError(f"{path} holds no policy of this version of aiotrain, or is damaged: {error}") from error


def policy_of(shape: PolicyShape, tensors: Mapping[str, Any]) -> NumpyPolicy:
    """Return the policy among a learner's ``tensors``. Raises Unfit for one that is not what it should be."""
    shapes: list[tuple[int, ...]] = [(shape.inputs,), (shape.inputs,)]
    for fan_in, fan_out in shape.layers:
        shapes += [(fan_out, fan_in), (fan_out,)]
    if shape.kind == "gaussian":
        shapes.append((shape.outputs,))
    found = []
    for name, expected in zip(_tensor_names(shape), shapes, strict=True):
        tensor: Any = tensors.get(name)
        is_array = isinstance(tensor, np.ndarray) and (tensor.shape, tensor.dtype) == (expected, np.float32)
        if not is_array or not np.isfinite(tensor).all():
            raise Unfit(f"{name} is no float32 array of shape {list(expected)} with finite numbers")
        found.append(tensor)
    policy = NumpyPolicy(shape)
    for view, tensor in zip(shape.split(policy.parameters), found, strict=True):
        view[...] = tensor.T
    policy.refresh()
    return policy


def read_as(kind: type[_Described], values: Any) -> _Described:
    """Return a dataclass of plain fields from its values in a file. Raises Unfit."""
    fields = {each.name: each for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not isinstance(values, dict):
        raise Unfit(f"{values!r:.40} stands where {', '.join(fields)} belong")
    needed = {name for name, each in fields.items() if each.default is dataclasses.MISSING}
    if wrong := sorted((values.keys() - fields.keys()) | (needed - values.keys())):
        raise Unfit(f"of {', '.join(wrong)}, there is too much or too little")
    made: Any = kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    faults = Faults(made)
    if not faults.of_right_type():
        raise Unfit("; ".join(faults.found))
    result: _Described = made
    return result

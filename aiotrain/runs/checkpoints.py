"""Weights and checkpoints on disk: safetensors and JSON, written whole or not at all, and read as data alone.

A checkpoint is one safetensors file, ``RUN/checkpoints/update-000120.safetensors``. Its tensors are the arrays of a
nested state of plain values; the rest of that state is JSON in the file's metadata, with a checksum of both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from aiotrain.config import Config
from aiotrain.errors import AiotrainError, CheckpointError, ConfigError
from aiotrain.play.policy import NumpyPolicy, PolicyShape
from aiotrain.play.spaces import EnvSpec

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "described",
    "library_versions",
    "load_checkpoint",
    "load_policy",
    "natural",
    "save_weights",
    "tensors_of",
    "write_whole",
]

_Described = TypeVar("_Described")
_FORMAT: Final = "aiotrain checkpoint 2"
_LARGEST_BYTES: Final = 4 << 30
"""Of a checkpoint; what claims to be larger is not read."""
_NAME: Final = re.compile(r"update-(\d{6,12})\.safetensors")
_TENSOR: Final = "$tensor"
"""The only key of a JSON object that stands for the array of this name."""
_FAULTS: Final = (AiotrainError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What comes of data that is not what it should be, of too deep a nesting too."""

Tensors = dict[str, npt.NDArray[Any]]


def save_weights(path: Path, tensors: Mapping[str, npt.NDArray[Any]], shape: PolicyShape, spec: EnvSpec) -> None:
    """Write the learner's ``tensors`` to ``path``, with what is needed to act with them in the file's metadata.

    The file is complete under its name or not there: it is written beside it, flushed to disk, and renamed.
    """
    data = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, described(shape, spec))
    write_whole(path, data)


def described(shape: PolicyShape, spec: EnvSpec) -> dict[str, str]:
    """What `load_policy` needs of a file's metadata."""
    return {"policy": json.dumps(dataclasses.asdict(shape)), "environment": json.dumps(dataclasses.asdict(spec))}


def tensors_of(policy: NumpyPolicy) -> Tensors:
    """The parameters of ``policy`` by the names that `load_policy` knows; weights are ``[out, in]``."""
    names, views = _tensor_names(policy.shape), policy.shape.split(policy.parameters)
    return {name: np.ascontiguousarray(view.T) for name, view in zip(names, views, strict=True)}


def _tensor_names(shape: PolicyShape) -> list[str]:
    """Names of a policy's tensors, in the order in which its parameters lie in the flat vector."""
    names = ["input_mean", "input_scale"]
    for index in range(len(shape.layers)):
        names += [f"actor.{2 * index}.weight", f"actor.{2 * index}.bias"]  # between them, there is a tanh
    return [*names, "log_std"] if shape.kind == "gaussian" else names


def load_policy(path: str | Path) -> tuple[NumpyPolicy, EnvSpec]:
    """The policy in a file that a run left, such as weights.safetensors, and the environment that it was trained for.

    ``policy.act(spec.encode(observations), policy.noise(generator, len(observations)))`` draws actions, and their
    log-probabilities, for observations ``[N, *spec.observation_shape]``; where ``spec.has_action_mask``, it needs
    their masks too. ``policy.shape`` tells its layers. Nothing in the file is executed. Raises ConfigError if there is
    none, or it is damaged or no policy of aiotrain.
    """
    metadata: dict[str, str] = {}
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            shape = _described(PolicyShape, metadata.get("policy"))
            spec = _described(EnvSpec, metadata.get("environment"))
            if PolicyShape.of(spec, shape.hidden) != shape:
                raise ValueError("the policy's inputs and outputs are not those of its environment")
            policy = _policy_of(shape, file.get_tensor)
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}; a run writes its weights when it ends") from None
    except (OSError, RecursionError, SafetensorError, TypeError, ValueError) as error:
        if Path(path).is_dir():
            what = f"is a folder: name a file in it, such as {Path(path, 'weights.safetensors')}"
        elif metadata.get("format") == _FORMAT:
            what = "is a checkpoint: name the policy.safetensors that aiotrain.export makes of it"
        else:
            what = f"holds no policy of this version of aiotrain, or is damaged: {error}"
        raise ConfigError(f"{path} {what}") from error
    return policy, spec


def _policy_of(shape: PolicyShape, tensor_of: Callable[[str], npt.NDArray[Any]]) -> NumpyPolicy:
    """The policy among a learner's tensors. Raises ValueError for one that is not what it should be."""
    shapes: list[tuple[int, ...]] = [(shape.inputs,), (shape.inputs,)]
    for fan_in, fan_out in shape.layers:
        shapes += [(fan_out, fan_in), (fan_out,)]
    if shape.kind == "gaussian":
        shapes.append((shape.outputs,))
    names = _tensor_names(shape)
    tensors = [tensor_of(name) for name in names]
    for name, tensor, expected in zip(names, tensors, shapes, strict=True):
        if tensor.shape != expected or tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            raise ValueError(f"{name} is no float32 array of shape {list(expected)} with finite numbers")
    policy = NumpyPolicy(shape)
    for view, tensor in zip(shape.split(policy.parameters), tensors, strict=True):
        view[...] = tensor.T
    policy.refresh()
    return policy


def _described(kind: Callable[..., _Described], text: str | None) -> _Described:
    """What `save_weights` wrote of a dataclass. Raises TypeError or ValueError if it did not."""
    if text is None:
        raise ValueError("its metadata lack what aiotrain writes there")
    values: dict[str, Any] = json.loads(text)
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a crash leaves the old file or the new one. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # else the new name may be lost with the power
    finally:
        os.close(folder)


def natural(value: Any) -> int:
    """``value``, if it is an integer from 0 to 2**53. Raises ValueError."""
    if type(value) is not int or not 0 <= value <= 2**53:
        raise ValueError(f"{value!r:.40} where a count belongs")
    return value


@functools.cache
def library_versions() -> dict[str, str]:
    """The versions of what decides the bits of a run: another one may round otherwise."""
    libraries = ("aiotrain", "csle-cyborg", "numba", "numpy", "scikit-learn", "torch")
    versions = {"python": platform.python_version()}
    for name in libraries:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # as this one, where it runs without being installed
            versions[name] = "unknown"
    return versions


# ------------------------------------------------------------------------ writing


class Checkpoints:
    """The checkpoints of the run in the folder ``run``: the last ``keep`` and the best. Raises OSError."""

    def __init__(self, run: Path, keep: int, best_return: float = -math.inf) -> None:
        self._folder = run / "checkpoints"
        self._keep = keep
        self.best_return = best_return
        """Mean return of the best so far."""

    def save(self, update: int, state: Mapping[str, Any], mean_return: float) -> None:
        """Save ``state`` as that after ``update``. The best is the one with the highest ``mean_return``; NaN is none.

        Whatever goes wrong, the checkpoints that there are stay.
        """
        is_best = mean_return > self.best_return
        data = _pack({**state, "best_return": mean_return if is_best else self.best_return})
        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"update-{update:06d}.safetensors"
        write_whole(path, data)
        if is_best:
            _name_again(path, "best.safetensors", data)
            self.best_return = mean_return
        for old in _numbered(self._folder)[self._keep :]:
            old.unlink(missing_ok=True)

    def newest(self) -> Path | None:
        """The one that was saved last."""
        return next(iter(_numbered(self._folder)), None)

    def forget_after(self, update: int) -> None:
        """Remove those of later updates, which will be done again, and what a killed process left half-written."""
        for path in _numbered(self._folder):
            if _number(path) > update:
                path.unlink(missing_ok=True)
        for path in self._folder.glob(".*.safetensors.*"):
            path.unlink(missing_ok=True)


def _name_again(path: Path, name: str, data: bytes) -> None:
    """Give the file ``path``, which holds ``data``, a second name in its folder, instead of what had it before."""
    second = path.with_name(f".{name}.{os.getpid()}")
    second.unlink(missing_ok=True)
    try:
        os.link(path, second)
    except OSError:  # not every file system has second names
        write_whole(path.with_name(name), data)
    else:
        second.replace(path.with_name(name))
        second.unlink(missing_ok=True)  # if it had that name already, nothing was done


def _number(path: Path) -> int:
    found = _NAME.fullmatch(path.name)
    return -1 if found is None else int(found[1])


def _numbered(folder: Path) -> list[Path]:
    """The checkpoints in ``folder`` but for the best, the newest first."""
    return sorted((path for path in folder.glob("update-*") if _number(path) >= 0), key=_number, reverse=True)


def _pack(state: Mapping[str, Any]) -> bytes:
    tensors: Tensors = {}
    text = json.dumps(_take_out(state, "", tensors))
    data = save(tensors, {"format": _FORMAT, "state": text, "sha256": _digest(text, tensors)})
    if len(data) > _LARGEST_BYTES:
        raise OSError(None, f"it is of {len(data)} bytes, more than would be read again")
    return data


def _take_out(value: Any, name: str, tensors: Tensors) -> Any:
    """``value`` for JSON: its arrays go to ``tensors`` by their paths, and leave these names in their places."""
    if isinstance(value, np.ndarray):
        tensors[name] = np.ascontiguousarray(value).reshape(value.shape)  # which by itself makes 0 dimensions 1
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        return {key: _take_out(each, f"{name}/{key}", tensors) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_take_out(each, f"{name}/{index}", tensors) for index, each in enumerate(value)]
    return value


def _digest(text: str, tensors: Tensors) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype.str} {tensor.shape}\n".encode())
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()


# ------------------------------------------------------------------------ reading


class Checkpoint(NamedTuple):
    """A checkpoint that was read and is whole. What its state means, its readers judge: see `refusing`."""

    path: Path
    config: Config
    """Settings of the run, with the folder in which it is now."""
    state: Mapping[str, Any]
    update: int
    """Updates until then."""

    def refuse_changes(self, config: Config, override: bool) -> None:
        """Raise ConfigError if ``config`` has settings that the run cannot go on with; some it can by ``override``."""
        if config.run_dir != self.config.run_dir:
            raise ConfigError(f"run-dir: a run that is resumed stays in its folder, {self.config.run_dir}")
        if not override and (changes := self.config.differences(config)):
            raise ConfigError(
                "\n".join(
                    (
                        f"{self.config.run_dir} was begun with other settings, and would learn otherwise from now on:",
                        *(f"  - {change}" for change in changes),
                        "Leave them as they were, or go on with them as they are now by --override.",
                    )
                )
            )

    def policy(self) -> tuple[NumpyPolicy, EnvSpec]:
        """The policy as it was, and the environment that it was trained for. Raises CheckpointError."""
        with self.refusing():
            spec = _described(EnvSpec, json.dumps(self.state["environment"]))
            shape = PolicyShape.of(spec, self.config.ppo.hidden_sizes)
            return _policy_of(shape, self.state["learner"]["network"].__getitem__), spec

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """While something is restored from the state: raise CheckpointError, with the file, if that cannot be."""
        try:
            yield
        except _FAULTS as error:
            raise CheckpointError(f"{self.path} does not fit: {_said(error)}") from error


def load_checkpoint(source: str | Path) -> Checkpoint:
    """The newest checkpoint of the run in a folder, or the one in a file of ``RUN/checkpoints``.

    Raises CheckpointError if it is missing, damaged, or of another version; of a folder, it names one that is whole.
    """
    source = Path(source)
    if not source.exists():
        raise CheckpointError(f"there is no {source}: name the folder of a run, or a checkpoint in it")
    if not source.is_dir():
        return _read(source)
    newest, *others = [*_numbered(source / "checkpoints"), source / "checkpoints" / "best.safetensors"]
    if not newest.exists():
        raise CheckpointError(
            f"{source} holds no checkpoint: it is no run, or one that was killed before its first one. Move it away, "
            "and begin anew"
        )
    try:
        return _read(newest)
    except CheckpointError as error:
        good = next(filter(_is_good, others), None)
        advice = "No other one is good" if good is None else f"The one before it is good: resume {good}"
        raise CheckpointError(f"{error}. {advice}") from error


def _is_good(path: Path) -> bool:
    try:
        return bool(_read(path))
    except CheckpointError:
        return False


def _read(path: Path) -> Checkpoint:
    """The checkpoint in ``path``. Raises CheckpointError."""
    try:
        if path.parent.name != "checkpoints" or path.parent.is_symlink() or path.is_symlink():
            raise ValueError("a checkpoint is a file in the folder checkpoints of its run, and no link")
        state = _unpack(path)
        config = dataclasses.replace(Config.of(state["config"]), run_dir=str(path.parent.parent))
        return Checkpoint(path, config, state, natural(state["update"]))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (*_FAULTS, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {_said(error)}") from error


def _unpack(path: Path) -> dict[str, Any]:
    """The state in the file ``path``."""
    if not path.is_file():
        raise ValueError("there is no such file")
    if path.stat().st_size > _LARGEST_BYTES:
        raise ValueError(f"it is larger than {_LARGEST_BYTES >> 30} GiB, which no checkpoint is")
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or begin > len(data):
        raise ValueError("it is no safetensors file, or cut off in its header")
    header = json.loads(data[8:begin])
    metadata = header.pop("__metadata__", {})
    if metadata.get("format") != _FORMAT:
        found = repr(metadata["format"])[:80] if "format" in metadata else "no checkpoint, perhaps weights alone"
        raise ValueError(f"it is {found}; this version of aiotrain reads {_FORMAT!r}")
    size = begin + max((each["data_offsets"][1] for each in header.values()), default=0)
    if len(data) != size:
        raise ValueError(f"it is cut off or has something added: {len(data):,} bytes instead of {size:,}")
    text, tensors = metadata["state"], load(data)
    if _digest(text, tensors) != metadata["sha256"]:
        raise ValueError("its checksum is wrong: it was damaged or changed")
    state: dict[str, Any] = _put_back(json.loads(text), tensors)
    return state


def _put_back(value: Any, tensors: Tensors) -> Any:
    """The opposite of `_take_out`, with arrays that may be written to."""
    if isinstance(value, dict):
        if value.keys() == {_TENSOR}:
            return tensors[value[_TENSOR]].copy()
        return {key: _put_back(each, tensors) for key, each in value.items()}
    return [_put_back(each, tensors) for each in value] if isinstance(value, list) else value


def _said(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return str(error) or type(error).__name__

"""Checkpoints of a run: which are kept, how each is written, and what is refused in one that is read.

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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from safetensors.numpy import save

from aiotrain.config import Config
from aiotrain.errors import CheckpointError, ConfigError
from aiotrain.play.policy import NumpyPolicy, PolicyShape
from aiotrain.play.spaces import EnvSpec
from aiotrain.runs.policy_files import policy_of, read_as
from aiotrain.runs.tensor_files import Tensors, Unfit, parsed, read_tensors, write_whole

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "State",
    "library_versions",
    "load_checkpoint",
    "natural",
    "number",
    "refuse_unsavable",
]

_FORMAT: Final = "aiotrain checkpoint 2"
_FIRST_FORMAT: Final = "aiotrain checkpoint 1"
"""Of aiotrain 0.1."""
_LARGEST_BYTES: Final = 4 << 30
"""Of a checkpoint; what claims to be larger is not read."""
_NAME: Final = re.compile(r"update-(\d{6,12})\.safetensors")
_WIDEST_BYTES: Final = 8
"""Of a number in an array."""
_TENSOR: Final = "$tensor"
"""The only key of a JSON object that stands for the array of this name."""


class State(dict[str, Any]):
    """A mapping in the state of a checkpoint. Raises Unfit for what it lacks."""

    def __missing__(self, key: object) -> Any:
        raise Unfit(f"{key!r} is missing")

    def part(self, name: str) -> State:
        """Return the mapping called ``name``. Raises Unfit if it is none."""
        value = self[name]
        if not isinstance(value, State):
            raise Unfit(f"{name} is {value!r:.40}, where a mapping belongs")
        return value


def natural(value: Any) -> int:
    """Return ``value``, if it is an integer from 0 to 2**53. Raises Unfit, a ValueError."""
    if type(value) is not int or not 0 <= value <= 2**53:
        raise Unfit(f"{value!r:.40} where a count belongs")
    return value


def number(value: Any) -> float:
    """Return ``value``, if it is a number. Raises Unfit, a ValueError."""
    if type(value) is not float:
        raise Unfit(f"{value!r:.40} where a number belongs")
    return value


@functools.cache
def library_versions(more: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the versions of what decides the bits of a run: another one may round otherwise.

    ``more``: the distributions that its domain uses.
    """
    versions = {"python": platform.python_version()}
    for name in ("aiotrain", "numba", "numpy", "torch", *more):
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


def refuse_unsavable(state: Mapping[str, Any]) -> None:
    """Raise Unfit if ``state`` holds something that a checkpoint cannot."""
    _take_out(state, "", {})


def _pack(state: Mapping[str, Any]) -> bytes:
    tensors: Tensors = {}
    text = json.dumps(_take_out(state, "", tensors))
    data = save(tensors, {"format": _FORMAT, "state": text, "sha256": _digest(text, tensors)})
    if len(data) > _LARGEST_BYTES:
        raise OSError(None, f"it is of {len(data)} bytes, more than would be read again")
    return data


def _take_out(value: Any, name: str, tensors: Tensors) -> Any:
    """Return ``value`` for JSON: its arrays go to ``tensors`` by their paths, which take their places. Raises Unfit."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.dtype.itemsize <= _WIDEST_BYTES:
        tensors[name] = np.ascontiguousarray(value).reshape(value.shape)  # which by itself makes 0 dimensions 1
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        if unnamed := [key for key in value if not isinstance(key, str)]:
            raise Unfit(f"{name[1:] or 'it'} has the key {unnamed[0]!r:.40}, where text belongs")
        return {key: _take_out(each, f"{name}/{key}", tensors) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_take_out(each, f"{name}/{index}", tensors) for index, each in enumerate(value)]
    value = value.item() if isinstance(value, np.generic) else value
    if value is not None and not isinstance(value, bool | int | float | str):
        raise Unfit(f"{name[1:]} is {value!r:.40}, where a plain value or an array belongs")
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
    state: State
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
        """Return the policy as it was, and the spec of its environment. Raises CheckpointError."""
        with self.refusing():
            spec = read_as(EnvSpec, self.state["environment"])
            shape = PolicyShape.of(spec, self.config.ppo.hidden_sizes)
            return policy_of(shape, self.state.part("learner").part("network")), spec

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """While something is read from the state: raise CheckpointError, with the file, for what is Unfit."""
        try:
            yield
        except Unfit as error:
            raise CheckpointError(f"{self.path} does not fit: {error}") from error


def load_checkpoint(source: str | Path) -> Checkpoint:
    """Return the newest checkpoint of the run in a folder, or the one in a file of ``RUN/checkpoints``.

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
    """Return the checkpoint in ``path``. Raises CheckpointError."""
    try:
        if path.parent.name != "checkpoints" or path.parent.is_symlink() or path.is_symlink():
            raise Unfit("a checkpoint is a file in the folder checkpoints of its run, and no link")
        state = _unpack(path)
        config = dataclasses.replace(Config.of(state["config"]), run_dir=str(path.parent.parent))
        return Checkpoint(path, config, state, natural(state["update"]))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (ConfigError, Unfit) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error


def _unpack(path: Path) -> State:
    """Return the state in the file ``path``. Raises OSError or Unfit."""
    if not path.is_file():
        raise Unfit("there is no such file")
    metadata, tensors = read_tensors(path, _LARGEST_BYTES)
    if (found := metadata.get("format")) != _FORMAT:
        if found == _FIRST_FORMAT:
            raise Unfit("it was written by aiotrain 0.1: go on with that version, or begin anew")
        what = "no checkpoint, perhaps weights alone" if found is None else repr(found)[:80]
        raise Unfit(f"it is {what}; this version of aiotrain reads {_FORMAT!r}")
    text = metadata.get("state", "")
    if _digest(text, tensors) != metadata.get("sha256"):
        raise Unfit("its checksum is wrong: it was damaged or changed")
    try:
        state = _put_back(parsed(text), tensors)
    except RecursionError:
        raise Unfit("it is nested too deeply") from None
    if not isinstance(state, State):
        raise Unfit(f"its state is {state!r:.40}, where a mapping belongs")
    return state


def _put_back(value: Any, tensors: Tensors) -> Any:
    """Do the opposite of `_take_out`, with arrays that may be written to. Raises Unfit or RecursionError."""
    if isinstance(value, dict):
        if value.keys() == {_TENSOR}:
            if (name := value[_TENSOR]) not in [*tensors]:  # a list, as what is there may not be hashable
                raise Unfit(f"the array {name!r:.40} is missing")
            return tensors[name].copy()
        return State({key: _put_back(each, tensors) for key, each in value.items()})
    return [_put_back(each, tensors) for each in value] if isinstance(value, list) else value

"""Weights on disk: safetensors, written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from aiotrain.policy import PolicyShape
from aiotrain.spaces import EnvSpec

__all__ = ["save_weights", "write_whole"]


def save_weights(path: Path, tensors: Mapping[str, npt.NDArray[Any]], shape: PolicyShape, spec: EnvSpec) -> None:
    """Write the learner's ``tensors`` to ``path``, with what is needed to act with them in the file's metadata.

    The file is complete under its name or not there: it is written beside it, flushed to disk, and renamed.
    """
    metadata = {"policy": json.dumps(dataclasses.asdict(shape)), "environment": json.dumps(dataclasses.asdict(spec))}
    data = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, metadata)
    write_whole(path, data)


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

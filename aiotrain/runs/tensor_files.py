"""Files of tensors, as safetensors: written whole or not at all, and read as data alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load

__all__ = ["Tensors", "Unfit", "parsed", "read_tensors", "write_whole"]

Tensors = dict[str, npt.NDArray[Any]]


class Unfit(ValueError):
    """Something in a file is not what belongs there. The message is a part of a sentence about it."""


def read_tensors(path: Path, most_bytes: int) -> tuple[dict[str, str], Tensors]:
    """Return the metadata and the tensors of the safetensors file ``path``. Raises OSError or Unfit."""
    if (size := path.stat().st_size) > most_bytes:
        raise Unfit(f"it is of {size:,} bytes, which is larger than {most_bytes >> 30} GiB")
    data = path.read_bytes()
    try:
        tensors = load(data)
    except (SafetensorError, KeyError, ValueError) as error:  # of the package, for whatever a foreign header says
        raise Unfit(f"it is no safetensors file, or it was cut off or has something added ({error})") from error
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])  # which the package has found to be good
    metadata: dict[str, str] = header.get("__metadata__", {})
    return metadata, tensors


def parsed(text: str) -> Any:
    """Return what a JSON text says. Raises Unfit."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unfit(f"it holds text that is no JSON ({error})") from error


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

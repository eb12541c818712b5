"""Segments of shared memory: the only file that creates, attaches, sizes, closes and unlinks them."""

from __future__ import annotations

import math
import os
import secrets
import sys
from collections.abc import Mapping
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import numpy.typing as npt

from aiotrain.errors import SharedMemoryError

__all__ = ["Fields", "LocalSegment", "Segment", "free_bytes", "human_bytes", "size_of"]

Fields = Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]]
"""The arrays in a segment: name -> (shape, dtype)."""

_ALIGNMENT = 64  # a cache line, so that two writers never share one
_SHM_DIR = "/dev/shm"


def free_bytes() -> int | None:
    """Bytes that shared memory can still take, or None where the system does not tell."""
    try:
        stat = os.statvfs(_SHM_DIR)
    except OSError:
        return None
    return stat.f_bavail * stat.f_frsize


def human_bytes(count: float) -> str:
    """``count`` bytes as people write it: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _offsets(fields: Fields) -> tuple[dict[str, int], int]:
    """Where each array of ``fields`` starts, and the bytes of all together."""
    offsets, end = {}, 0
    for name, (shape, dtype) in fields.items():
        offsets[name] = end
        size = math.prod(shape) * np.dtype(dtype).itemsize
        end += -(-size // _ALIGNMENT) * _ALIGNMENT
    return offsets, max(end, _ALIGNMENT)


def size_of(fields: Fields) -> int:
    """Bytes that a segment for ``fields`` takes."""
    return _offsets(fields)[1]


class Segment:
    """Named arrays in one piece of shared memory.

    ``create`` reserves the memory before it returns, so that a full /dev/shm is an error message here and not a
    SIGBUS at the first write. Whoever created a segment unlinks it.
    """

    def __init__(self, memory: SharedMemory, fields: Fields, owner: bool) -> None:
        self.name = memory.name
        self.nbytes = memory.size
        self._memory = memory
        self._owner = owner
        offsets, _ = _offsets(fields)
        assert memory.buf is not None
        self.arrays: dict[str, npt.NDArray[np.generic]] = {
            # frombuffer holds on to the memory, so that closing it under an array is an error and not a crash.
            name: np.frombuffer(memory.buf, np.dtype(dtype), math.prod(shape), offsets[name]).reshape(shape)
            for name, (shape, dtype) in fields.items()
        }

    @classmethod
    def create(cls, fields: Fields, *, purpose: str, advice: str = "") -> Segment:
        """A new segment for ``fields``, private to this user, all zeros.

        Raises SharedMemoryError, with the bytes needed and free, where it does not fit.
        """
        size = size_of(fields)
        name = f"aiotrain-{os.getpid()}-{secrets.token_hex(6)}"
        _refuse_what_does_not_fit(size, purpose, advice)
        try:
            memory = SharedMemory(name, create=True, size=size)
        except OSError as error:
            raise SharedMemoryError(f"shared memory for {purpose} cannot be created: {error}") from error
        try:
            _reserve(name, size)
        except OSError:
            memory.close()
            memory.unlink()
            _refuse_what_does_not_fit(size, purpose, advice, certainly=True)
        return cls(memory, fields, owner=True)

    @classmethod
    def attach(cls, name: str, fields: Fields) -> Segment:
        """The segment that another process created, with the same ``fields``."""
        # Before 3.13 every attaching process registers with the resource tracker. Our workers share the creator's
        # tracker, where a second registration of a name changes nothing.
        if sys.version_info >= (3, 13):
            return cls(SharedMemory(name, track=False), fields, owner=False)
        return cls(SharedMemory(name), fields, owner=False)

    def close(self) -> None:
        """Give up the arrays, and unlink the segment if it was created here. May be called twice."""
        self.arrays.clear()
        if self._owner:
            self._owner = False
            try:
                self._memory.unlink()
            except FileNotFoundError:  # somebody has removed it; the tracker would complain of it at the end
                resource_tracker.unregister(f"/{self.name}", "shared_memory")
        try:
            self._memory.close()
        except BufferError as error:  # somebody still holds a view: a fault in this package
            error.add_note(f"an array of segment {self.name} is still in use while the segment is closed")
            raise


def _reserve(name: str, size: int) -> None:
    """Make the system commit ``size`` bytes to the segment now (only Linux offers this)."""
    if not hasattr(os, "posix_fallocate") or not os.path.isdir(_SHM_DIR):
        return
    fd = os.open(f"{_SHM_DIR}/{name}", os.O_RDWR)
    try:
        os.posix_fallocate(fd, 0, size)
    finally:
        os.close(fd)


def _refuse_what_does_not_fit(size: int, purpose: str, advice: str, certainly: bool = False) -> None:
    free = free_bytes()
    if not certainly and (free is None or size <= free):
        return
    free_text = "unknown" if free is None else f"{free:,} bytes ({human_bytes(free)})"
    raise SharedMemoryError(
        f"{purpose} needs {size:,} bytes ({human_bytes(size)}) of shared memory, but {_SHM_DIR} has {free_text} free. "
        f"{advice + ' ' if advice else ''}In Docker, start the container with a larger --shm-size."
    )


class LocalSegment(Segment):
    """The same arrays in this process's own memory, where no other can attach them and nothing can be left behind."""

    def __init__(self, fields: Fields) -> None:
        self.name, self.nbytes = "", size_of(fields)
        self.arrays = {name: np.zeros(shape, dtype) for name, (shape, dtype) in fields.items()}

    def close(self) -> None:
        """Give up the arrays."""
        self.arrays.clear()

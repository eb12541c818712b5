"""Segments of shared memory: the only file that creates, attaches, sizes, closes and unlinks them."""

from __future__ import annotations

import contextlib
import fcntl
import math
import mmap
import os
import re
import secrets
from collections.abc import Mapping
from multiprocessing import resource_tracker

import numpy as np
import numpy.typing as npt

from aiotrain.errors import SharedMemoryError

__all__ = ["Fields", "Segment", "free_bytes", "human_bytes", "size_of"]

Fields = Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]]
"""The arrays in a segment: name -> (shape, dtype)."""

_CACHE_LINE = 64  # bytes; where arrays begin, so that two writers never share one
_SHM_DIR = "/dev/shm"
_NAME = re.compile(r"aiotrain-\d+-[0-9a-f]{16}")  # the pid is for people; nothing is concluded from it


def free_bytes() -> int | None:
    """Return the bytes that shared memory has free, or None where the system does not tell."""
    try:
        stat = os.statvfs(_SHM_DIR)
    except OSError:
        return None
    return stat.f_bavail * stat.f_frsize


def human_bytes(count: float) -> str:
    """Return ``count`` bytes as people write them: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _offsets(fields: Fields) -> tuple[dict[str, int], int]:
    """Return where each array of ``fields`` starts, and the bytes of all together."""
    offsets, end = {}, 0
    for name, (shape, dtype) in fields.items():
        offsets[name] = end
        size = math.prod(shape) * np.dtype(dtype).itemsize
        end += -(-size // _CACHE_LINE) * _CACHE_LINE
    return offsets, max(end, _CACHE_LINE)


def size_of(fields: Fields) -> int:
    """Return the bytes that a segment for ``fields`` takes."""
    return _offsets(fields)[1]


class Segment:
    """Named arrays in one piece of shared memory.

    ``create`` reserves the memory before it returns, so that a full /dev/shm is an error message here and not a
    SIGBUS at the first write. Whoever created a segment unlinks it, and holds a lock on it until then. A segment
    without a lock was left behind by a run that was killed, and is removed when the next one is created.

    The system frees the memory when the segment is unlinked and the last of its arrays, in any process, is gone. So an
    array can be used for as long as somebody holds it.
    """

    def __init__(self, name: str, fields: Fields, fd: int, *, is_owner: bool) -> None:
        self.name = name
        self._lock = fd if is_owner else None
        memory = mmap.mmap(fd, size_of(fields))
        offsets, _ = _offsets(fields)
        self.arrays: dict[str, npt.NDArray[np.generic]] = {
            name: np.frombuffer(memory, np.dtype(dtype), math.prod(shape), offsets[name]).reshape(shape)
            for name, (shape, dtype) in fields.items()
        }

    @classmethod
    def create(cls, fields: Fields, *, purpose: str, advice: str = "") -> Segment:
        """Create a segment for ``fields``, private to this user, all zeros.

        Raises SharedMemoryError, with the bytes needed and free, where it does not fit.
        """
        if not os.path.isdir(_SHM_DIR):
            raise SharedMemoryError(f"shared memory for {purpose} cannot be created: there is no {_SHM_DIR}")
        _remove_orphans()
        size = size_of(fields)
        _refuse_what_does_not_fit(size, purpose, advice)
        while True:
            name = f"aiotrain-{os.getpid()}-{secrets.token_hex(8)}"
            try:
                fd = os.open(f"{_SHM_DIR}/{name}", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            except OSError as error:
                raise SharedMemoryError(f"shared memory for {purpose} cannot be created: {error}") from error
            resource_tracker.register(f"/{name}", "shared_memory")
            try:
                _lock_and_reserve(fd, size)
                return cls(name, fields, fd, is_owner=True)
            except OSError as error:
                _remove(name, fd)
                if not isinstance(error, FileNotFoundError):  # else it was taken for an orphan before it was locked
                    _refuse_what_does_not_fit(size, purpose, advice, certainly=True)

    @classmethod
    def attach(cls, name: str, fields: Fields) -> Segment:
        """Attach to the segment that another process created with the same ``fields``."""
        fd = os.open(f"{_SHM_DIR}/{name}", os.O_RDWR)
        try:
            return cls(name, fields, fd, is_owner=False)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Unlink the segment if it was created here. May be called twice."""
        if self._lock is not None:
            lock, self._lock = self._lock, None
            _remove(self.name, lock)


def _lock_and_reserve(fd: int, size: int) -> None:
    """Lock the segment as one in use, and make the system commit ``size`` bytes to it now.

    Raises FileNotFoundError if the segment is gone, or OSError.
    """
    fcntl.flock(fd, fcntl.LOCK_SH)
    if not os.fstat(fd).st_nlink:
        raise FileNotFoundError
    os.posix_fallocate(fd, 0, size)


def _remove(name: str, fd: int) -> None:
    """Unlink the segment, and give up the lock that ``fd`` holds."""
    with contextlib.suppress(FileNotFoundError):  # somebody has removed it
        os.unlink(f"{_SHM_DIR}/{name}")
    resource_tracker.unregister(f"/{name}", "shared_memory")
    os.close(fd)


def _remove_orphans() -> None:
    """Remove the segments of this user's dead runs. What cannot be looked at or removed is left.

    A run lives as long as the lock on its segment. The system drops it when its last descriptor is closed, however the
    process dies; it can be seen from another container that shares /dev/shm, where a pid means nothing, and does not
    come back to life with the pid. Workers have no part in it, since they do not outlive the run; whatever else the
    run's process forks inherits it, and keeps the segment for as long.
    """
    with contextlib.suppress(OSError):
        for name in filter(_NAME.fullmatch, os.listdir(_SHM_DIR)):
            with contextlib.suppress(OSError):
                _remove_if_orphaned(f"{_SHM_DIR}/{name}")


def _remove_if_orphaned(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if os.fstat(fd).st_uid == os.geteuid():
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError, an OSError, while the run lives
            os.unlink(path)
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

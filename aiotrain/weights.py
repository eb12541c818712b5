"""The policy's parameters in shared memory: one writer, any number of readers, no lock.

Two buffers and a version. The writer fills the buffer that is not being read, then publishes its version; version v
lies in buffer v % 2. A reader copies the buffer of the version it saw and looks at the version again: as long as that
has not changed, the writer cannot have touched this buffer, because it only ever fills the other one.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from aiotrain.shm import Fields, LocalSegment, Segment

__all__ = ["Weights"]

_UNPUBLISHED = -1


class Weights:
    """A float32 vector of ``size`` parameters with a version, readable while it is being replaced."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._buffers: npt.NDArray[np.float32] = segment.arrays["buffers"]  # type: ignore[assignment]
        self._version: npt.NDArray[np.int64] = segment.arrays["version"]  # type: ignore[assignment]
        self.name = segment.name

    @staticmethod
    def _fields(size: int) -> Fields:
        return {"version": ((1,), np.int64), "buffers": ((2, size), np.float32)}

    @classmethod
    def create(cls, size: int) -> Weights:
        """Room for ``size`` float32 parameters; nothing is published yet. Raises SharedMemoryError."""
        weights = cls(Segment.create(cls._fields(size), purpose="the policy's parameters"))
        weights._version[0] = _UNPUBLISHED
        return weights

    @classmethod
    def attach(cls, name: str, size: int) -> Weights:
        """The weights that another process created."""
        return cls(Segment.attach(name, cls._fields(size)))

    @classmethod
    def local(cls, parameters: npt.NDArray[np.float32]) -> Weights:
        """``parameters`` as version 0, for a player in this process."""
        weights = cls(LocalSegment(cls._fields(len(parameters))))
        weights._version[0] = _UNPUBLISHED
        weights.publish(parameters, 0)
        return weights

    @property
    def version(self) -> int:
        """The policy version that was published last; -1 before the first."""
        return int(self._version[0])

    def publish(self, parameters: npt.NDArray[np.float32], version: int) -> None:
        """Make ``parameters`` the weights of ``version``, which is one more than the last (or any first one)."""
        last = self.version
        if last != _UNPUBLISHED and version != last + 1:
            raise ValueError(f"version {version} cannot follow version {last}")
        self._buffers[version % 2] = parameters
        self._version[0] = version

    def pull(self, into: npt.NDArray[np.float32], held: int, timeout_s: float = 10.0) -> int:
        """Copy the newest parameters ``into`` the caller's vector, unless it holds that version; return the version.

        Raises TimeoutError if no steady copy was had within ``timeout_s``: then nothing is published, or the writer
        publishes faster than this process can copy.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            version = self.version
            if version != _UNPUBLISHED:
                if version == held:
                    return version
                np.copyto(into, self._buffers[version % 2])
                if self.version == version:
                    return version
            if time.monotonic() > deadline:
                raise TimeoutError(f"no steady copy of the policy's parameters within {timeout_s:g} s")
            time.sleep(0.0005)

    def close(self) -> None:
        """Detach; the creator also removes the segment. May be called twice."""
        self.__dict__.pop("_buffers", None)
        self.__dict__.pop("_version", None)
        self._segment.close()

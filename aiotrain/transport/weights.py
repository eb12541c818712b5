"""The policy's parameters in shared memory: one writer, any number of readers, no lock.

Two buffers, each with its version, and a number that counts what was published; what was published as number n lies in
buffer n % 2. The writer fills the buffer that is not being read, then raises the number. A reader copies the buffer of
the number it saw and looks at the number again: as long as that has not changed, the writer cannot have touched this
buffer, because it only ever fills the other one.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from aiotrain.transport.segments import Fields, Segment

__all__ = ["Weights"]

_UNPUBLISHED = -1


class Weights:
    """A float32 vector of ``size`` parameters with a version, readable while it is being replaced."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._buffers: npt.NDArray[np.float32] = segment.arrays["buffers"]  # type: ignore[assignment]
        self._versions: npt.NDArray[np.int64] = segment.arrays["versions"]  # type: ignore[assignment]
        self._number: npt.NDArray[np.int64] = segment.arrays["number"]  # type: ignore[assignment]
        self.name = segment.name

    @staticmethod
    def _fields(size: int) -> Fields:
        return {"number": ((1,), np.int64), "versions": ((2,), np.int64), "buffers": ((2, size), np.float32)}

    @classmethod
    def create(cls, size: int) -> Weights:
        """Make room for ``size`` float32 parameters, none of them published yet. Raises SharedMemoryError."""
        weights = cls(Segment.create(cls._fields(size), purpose="the policy's parameters"))
        weights._versions[:] = _UNPUBLISHED
        return weights

    @classmethod
    def attach(cls, name: str, size: int) -> Weights:
        """Attach to the weights that another process created."""
        return cls(Segment.attach(name, cls._fields(size)))

    @property
    def version(self) -> int:
        """The policy version that was published last; -1 before the first."""
        return int(self._versions[self._number[0] % 2])

    def publish(self, parameters: npt.NDArray[np.float32], version: int) -> None:
        """Publish ``parameters``, float32 ``[size]``. Raises ValueError if ``version`` is not later than the last."""
        if version <= self.version:
            raise ValueError(f"version {version} cannot follow version {self.version}")
        number = int(self._number[0]) + 1
        self._buffers[number % 2] = parameters
        self._versions[number % 2] = version
        self._number[0] = number

    def pull(self, into: npt.NDArray[np.float32], held: int, timeout_s: float = 10.0) -> int:
        """Copy the newest parameters ``into`` the caller's vector, unless it holds that version; return the version.

        Raises TimeoutError if no steady copy was had within ``timeout_s``: then nothing is published, or the writer
        publishes faster than this process can copy.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            number = int(self._number[0])
            if number:
                version = int(self._versions[number % 2])
                if version == held:
                    return version
                np.copyto(into, self._buffers[number % 2])
                if self._number[0] == number:
                    return version
            if time.monotonic() > deadline:
                raise TimeoutError(f"no steady copy of the policy's parameters within {timeout_s:g} s")
            time.sleep(0.0005)

    def close(self) -> None:
        """Remove the segment if it was created here. May be called twice."""
        self._segment.close()

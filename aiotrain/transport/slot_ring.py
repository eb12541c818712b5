"""The episode ring: preallocated slots in shared memory, each with room for one trajectory.

One owner at a time. The event loop lends slots to a worker with a task; the worker fills them and seals each; the
resolved future hands them back. So there is no lock, and what is read is whole: a slot counts only if it is sealed,
and a slot is sealed only after everything in it is written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aiotrain.transport.segments import Fields, Segment, size_of
from aiotrain.transport.trajectories import Trajectories, ragged_rows

__all__ = [
    "BROKEN_OFF",
    "FREE",
    "LENT",
    "PLAYING",
    "SEALED",
    "Ring",
    "RingLayout",
    "header_dtype",
    "metric_faults",
]

FREE, LENT, PLAYING, SEALED, BROKEN_OFF = range(5)
"""States of a slot: nobody's; a task's but not begun; being written; whole; given up by its environment."""

_HEADER = [
    ("ended", np.bool_),  # the episode ended with this trajectory (else it goes on in another slot)
    ("terminated", np.bool_),  # … in a terminal state, so that nothing is to be bootstrapped
    ("worker", np.int32),
    ("length", np.int32),  # steps in this slot
    ("fragment", np.int32),  # number of the trajectory within its episode
    ("episode", np.int64),
    ("version", np.int64),  # of the policy that acted
    ("seed", np.int64),  # that the episode was reset with
    ("episode_steps", np.int64),  # steps of the episode so far
    ("episode_return", np.float64),  # sum of its rewards so far
    ("episode_bonus", np.float64),  # sum of its bonuses so far
    ("began_s", np.float64),  # monotonic time at which this trajectory began
]
_STATE = ("state", np.int8)  # last, because the fields of a header are written in their order


def header_dtype(metrics: Sequence[str] = ()) -> np.dtype[np.void]:
    """Return the dtype of a slot's header: its own fields, then a float64 for each metric of the episode.

    A metric is NaN until the episode has ended, and where the environment did not tell it.
    """
    return np.dtype([*_HEADER, *((name, np.float64) for name in metrics), _STATE])


def metric_faults(names: Sequence[str]) -> list[str]:
    """Return why ``names`` cannot be those of an episode's metrics, a sentence each."""
    taken = [field for field, _ in (*_HEADER, _STATE)]
    return [
        *(f"{name!r} is no name; use letters, digits and underscores" for name in names if not name.isidentifier()),
        *(f"{name} is a field of every episode already; rename it" for name in names if name in taken),
        *(f"{name} is named twice; leave one out" for name in dict.fromkeys(names) if names.count(name) > 1),
    ]


@dataclass(frozen=True)
class RingLayout:
    """Sizes and dtypes of a ring. Plain data: it travels to the workers, which attach with it."""

    slots: int
    steps: int
    """Steps that a slot holds; a longer episode goes on in further slots."""
    observation_shape: tuple[int, ...]
    observation_dtype: str
    action_shape: tuple[int, ...]
    action_dtype: str
    masked: int = 0
    """Actions in a mask; 0 where there are no masks."""
    metrics: tuple[str, ...] = ()
    """Metrics of an episode; see `header_dtype`."""

    @property
    def fields(self) -> Fields:
        """The ring's arrays. ``observations`` has one row more than steps: what was seen after the last one."""
        per_slot = (self.slots, self.steps)
        return {
            "headers": ((self.slots,), header_dtype(self.metrics)),
            "observations": ((self.slots, self.steps + 1, *self.observation_shape), self.observation_dtype),
            "actions": ((*per_slot, *self.action_shape), self.action_dtype),
            "log_probs": (per_slot, np.float32),
            "rewards": (per_slot, np.float32),
            "bonuses": (per_slot, np.float32),
            "masks": ((*per_slot, self.masked), np.int8),
        }

    @property
    def nbytes(self) -> int:
        """Bytes of shared memory that the ring takes."""
        return size_of(self.fields)


def _flat(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the steps of all slots one after the other: one index takes rows faster than slot and step."""
    return array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])


class Ring:
    """Slots for trajectories, in shared memory or in this process's own."""

    def __init__(self, arrays: Mapping[str, Any], layout: RingLayout, segment: Segment | None) -> None:
        self._segment = segment
        self.layout = layout
        self.name = "" if segment is None else segment.name
        self.headers: npt.NDArray[np.void] = arrays["headers"]
        self.observations: npt.NDArray[Any] = arrays["observations"]
        self.actions: npt.NDArray[Any] = arrays["actions"]
        self.log_probs: npt.NDArray[np.float32] = arrays["log_probs"]
        self.rewards: npt.NDArray[np.float32] = arrays["rewards"]
        self.bonuses: npt.NDArray[np.float32] = arrays["bonuses"]
        self.masks: npt.NDArray[np.int8] = arrays["masks"]
        self._free = deque(range(layout.slots))

    @classmethod
    def create(cls, layout: RingLayout) -> Ring:
        """Create a ring and reserve its memory. Raises SharedMemoryError, with the bytes needed and what to change."""
        purpose = f"a ring of {layout.slots} slots of {layout.steps} steps"
        advice = "Lower --workers, --envs-per-worker or --slot-steps."
        segment = Segment.create(layout.fields, purpose=purpose, advice=advice)
        return cls(segment.arrays, layout, segment)

    @classmethod
    def attach(cls, name: str, layout: RingLayout) -> Ring:
        """Attach to the ring that another process created."""
        segment = Segment.attach(name, layout.fields)
        return cls(segment.arrays, layout, segment)

    @classmethod
    def private(cls, layout: RingLayout) -> Ring:
        """Create a ring that no other process sees."""
        arrays = {name: np.zeros(shape, dtype) for name, (shape, dtype) in layout.fields.items()}
        return cls(arrays, layout, None)

    @property
    def free_slots(self) -> int:
        """Slots that can be lent now."""
        return len(self._free)

    def lend(self, count: int) -> list[int]:
        """Lend ``count`` free slots to a task, marked so that nothing in them counts. Raises ValueError."""
        if count > len(self._free):
            raise ValueError(f"{count} slots wanted, {len(self._free)} free")
        slots = [self._free.popleft() for _ in range(count)]
        self.headers["state"][slots] = LENT
        return slots

    def take_back(self, slots: Iterable[int]) -> None:
        """Free the slots of a finished or failed task."""
        slots = list(slots)
        self.headers["state"][slots] = FREE
        self._free.extend(slots)

    def sealed(self, slots: Sequence[int]) -> list[int]:
        """Return those of ``slots`` that hold a whole trajectory."""
        states = self.headers["state"]
        return [slot for slot in slots if states[slot] == SEALED]

    def copy_out(self, slots: Sequence[int]) -> Trajectories:
        """Copy the trajectories in sealed ``slots``, in this order. Raises ValueError for a slot that is not sealed."""
        headers = self.headers[slots]
        if (headers["state"] != SEALED).any():
            raise ValueError(f"slots {[s for s in slots if self.headers['state'][s] != SEALED]} are not sealed")
        lengths, starts = headers["length"], np.asarray(slots, np.intp)
        rows = ragged_rows(starts * self.layout.steps, lengths)
        by_step = (self.actions, self.log_probs, self.rewards, self.bonuses, self.masks)
        return Trajectories(
            headers,
            _flat(self.observations).take(ragged_rows(starts * (self.layout.steps + 1), lengths), 0),
            self.observations[slots, lengths],
            *(_flat(each).take(rows, 0) for each in by_step),
        )

    def close(self) -> None:
        """Remove the segment if the ring was created here. May be called twice."""
        if self._segment is not None:
            self._segment.close()

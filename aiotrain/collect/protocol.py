"""The protocol of collectors: what the trainer asks of them, and what they answer.

`choose_collector` makes the one that is configured. `base_collector` holds what all have in common, `task_collector`
what those have in common that play each launch in a task of its own, with weights and trajectories as values.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from aiotrain.errors import documented
from aiotrain.play.player import LostEpisode
from aiotrain.play.policy import PolicyShape
from aiotrain.play.spaces import EnvSpec
from aiotrain.transport.trajectories import Trajectories

__all__ = [
    "Collector",
    "CollectorSettings",
    "CollectorStatus",
    "Launch",
    "Outcome",
    "WorkerState",
    "WorkerStatus",
]


@dataclass(frozen=True)
class CollectorSettings:
    """Settings that every collector has."""

    workers: int
    envs_per_worker: int
    run_seed: int
    episode_timeout_s: float
    """Longest time that one episode may take, or as much of it as fits a slot, in seconds from its own beginning.

    The start of a process, the making of an environment and the wait of a launch for its turn do not count. Where the
    time is over, the process that hangs is killed, and what it was playing is lost. Episodes that one process plays in
    a batch share its fate; those in other processes do not.

    The collector ``sequential`` cannot kill itself: it breaks an episode off after the step by which the time is over,
    and a step that never returns hangs.
    """
    start_timeout_s: float
    """Longest time that the start of a process may take, with the making of its environments, in seconds."""

    @property
    def hung(self) -> str:
        """Why a process was killed whose episode took too long."""
        return f"hung for {self.episode_timeout_s:g} s and was killed; raise --episode-timeout-s if it is slow"

    @property
    def not_ready(self) -> str:
        """Why a process is given up that did not start in time."""
        return f"not ready within {self.start_timeout_s:g} s. Raise --start-timeout-s if it is slow"

    @property
    def look_every_s(self) -> float:
        """Seconds between two looks at whether an episode takes too long."""
        return min(1.0, self.episode_timeout_s / 4)


class Launch(NamedTuple):
    """A task: episodes to be played for a batch."""

    batch: int
    """The batch that is to learn from them."""
    episodes: tuple[int, ...]
    """Episodes to begin, in this order; one trajectory each, unless unfinished episodes take their place."""
    options: tuple[Mapping[str, Any], ...] = ()
    """Options of the environment's ``reset``, for each episode; () where there are none."""


class Outcome(NamedTuple):
    """What became of one launch. Each launched episode is in exactly one of the three."""

    launch: Launch
    trajectories: Trajectories | None
    """Steps that were played, of these episodes or of earlier ones that went on."""
    unused: tuple[int, ...]
    """Episodes that were not begun, or broken off for no fault of theirs: to be launched again."""
    lost: tuple[LostEpisode, ...]


class Collector(Protocol):
    """Plays episodes with the newest weights, wherever and however it likes.

    `start` comes first, then `open`, then `publish`; `describe`, `close` and `abort` may be called at any time.
    """

    async def start(self) -> EnvSpec:
        """Make the environment and return its spec. Raises EnvError before anything else is started."""
        ...

    async def open(self, policy: PolicyShape, slot_steps: int) -> None:
        """Prepare for playing: trajectories of at most ``slot_steps`` steps.

        Raises SharedMemoryError, EnvError, and ConfigError for an environment without time limit that needs one.
        """
        ...

    def publish(self, parameters: npt.NDArray[np.float32], version: int) -> None:
        """Play with these parameters from the next launch on."""
        ...

    def room(self, wanted: int) -> int:
        """Return how many of ``wanted`` trajectories the next launch should have; 0 if none can be played now."""
        ...

    def submit(self, launch: Launch) -> None:
        """Play ``launch``, which has as many episodes as ``room`` returned."""
        ...

    def submit_unfinished(self) -> None:
        """Go on with every episode that outgrew its slot."""
        ...

    async def outcomes(self) -> Sequence[Outcome]:
        """Wait until launches have ended or there is room, and return what became of the launches.

        Raises WorkerError if no worker can be kept alive, InvalidStepError if the environment cannot be learned from.
        """
        ...

    def describe(self) -> CollectorStatus:
        """Return the collector's status."""
        ...

    async def close(self) -> None:
        """End every process and remove every segment. May be called at any time, and twice."""
        ...

    def abort(self) -> None:
        """Kill every process and remove every segment at once: the caller is about to exit."""
        ...


class WorkerState(enum.Enum):
    """What one worker is doing."""

    STARTING = "starting"
    """Its first process is coming up."""
    WAITING = "waiting"
    """Ready, with no episode to play."""
    PLAYING = "playing"
    """At work on an episode."""
    RESTARTING = "restarting"
    """Its process was lost, a new one is coming up."""
    HUNG = "hung"
    """Past its deadline, about to be killed."""
    ENDED = "ended"
    """Its process has ended with the run."""


@documented
@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker; its number is its index in `Status.workers`."""

    state: WorkerState
    """What it is doing now."""
    restarts: int
    """How often its process had to be replaced."""
    episodes: int
    """Episodes that it has finished, over all its processes."""


class CollectorStatus(NamedTuple):
    """A collector at one moment."""

    workers: tuple[WorkerStatus, ...]
    busy_s: float
    """Seconds that workers have played, all together."""
    slots: int = 0
    slots_in_use: int = 0
    ring_bytes: int = 0

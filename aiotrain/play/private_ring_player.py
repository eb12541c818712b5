"""Playing into a ring of one's own, for collectors whose trajectories and weights travel as values."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np
import numpy.typing as npt

from aiotrain.play.env_factory import EnvFactory, named
from aiotrain.play.inspection import make_env
from aiotrain.play.player import Assignment, LostEpisode, Player, PlayResult
from aiotrain.transport.slot_ring import Ring
from aiotrain.transport.trajectories import Trajectories

__all__ = ["EpisodePlayer", "LocalPlayer", "Played", "make_player"]


class EpisodePlayer(Protocol):
    """Plays episodes into the slots of a ring. `Player` is one, and so is each `EnvFactory.compiled_player`.

    A compiled one is made as ``Class(assignment, ring, factory)``; ``Class.compile()`` compiles it, or loads it from a
    cache.
    """

    parameters: npt.NDArray[np.float32]
    """The policy's parameters, to be overwritten in place; `refresh` must follow."""

    @property
    def unfinished(self) -> int:
        """Episodes that outgrew the slots of their task."""
        ...

    def refresh(self, version: int) -> None:
        """Act with what was written to ``parameters``, which is this version of the policy."""
        ...

    def play(
        self, slots: Sequence[int], episodes: Sequence[int], options: Sequence[Mapping[str, Any]] = ()
    ) -> PlayResult:
        """Fill ``slots``, first going on with unfinished episodes, then beginning ``episodes`` in their order.

        ``options`` are what the environment's reset is given, for each of ``episodes``, or none at all.
        """
        ...


class Played(NamedTuple):
    """What became of the episodes of a task."""

    trajectories: Trajectories | None
    unused: tuple[int, ...]
    """Episodes that were not begun, because earlier ones took their places."""
    failures: tuple[LostEpisode, ...]
    unnamed: tuple[str, ...] = ()
    """As of PlayResult."""


def make_player(
    assignment: Assignment,
    factory: EnvFactory,
    ring: Ring,
    envs: list[gymnasium.Env[Any, Any]],
    make: Callable[[], gymnasium.Env[Any, Any]] | None = None,
) -> EpisodePlayer:
    """Return what plays ``assignment`` into ``ring``: compiled code where it can, else ``envs``, to which it adds.

    ``make`` makes environments, by default from the factory. Raises EnvError.
    """
    whole = assignment.ring_layout.steps >= (assignment.spec.max_episode_steps or math.inf)
    if factory.compiled_player is not None and whole:
        player: EpisodePlayer = named(factory.compiled_player)(assignment, ring, factory)
        return player
    make = make or functools.partial(make_env, factory)
    while len(envs) < assignment.envs:
        envs.append(make())
    return Player(assignment, ring, envs, make)


class LocalPlayer:
    """Plays tasks of at most as many trajectories as the assignment's layout has slots.

    ``when_begun`` is called whenever episodes begin, or go on in further slots.
    """

    def __init__(
        self,
        assignment: Assignment,
        make: Callable[[Ring], EpisodePlayer],
        when_begun: Callable[[], None] = lambda: None,
    ) -> None:
        self._ring = Ring.private(assignment.ring_layout)
        self._player = make(self._ring)
        self._when_begun = when_begun

    @property
    def unfinished(self) -> int:
        """Episodes that outgrew the slots of their task."""
        return self._player.unfinished

    def play(
        self,
        parameters: npt.NDArray[np.float32],
        version: int,
        count: int,
        episodes: Sequence[int],
        options: Sequence[Mapping[str, Any]] = (),
    ) -> Played:
        """Play ``count`` trajectories: go on with unfinished episodes, then begin ``episodes`` in their order.

        ``parameters``, float32 ``[policy.size]``, are those of the policy's ``version``.
        """
        self._load(parameters, version)
        return self._fill(count, episodes, options)

    def play_whole(
        self,
        parameters: npt.NDArray[np.float32],
        version: int,
        episodes: Sequence[int],
        options: Sequence[Mapping[str, Any]] = (),
    ) -> Played:
        """Play each of ``episodes`` to its end, in as many fragments as that takes.

        Where there are fewer environments than episodes, fragments may take the places of some, which are unused.
        """
        self._load(parameters, version)
        parts = [self._fill(len(episodes), episodes, options)]
        while self.unfinished:
            parts.append(self._fill(self.unfinished, ()))
        trajectories = [part.trajectories for part in parts if part.trajectories is not None]
        return Played(
            Trajectories.join(trajectories) if trajectories else None,
            parts[0].unused,
            tuple(failure for part in parts for failure in part.failures),
            tuple(name for part in parts for name in part.unnamed),
        )

    def _load(self, parameters: npt.NDArray[np.float32], version: int) -> None:
        self._player.parameters[:] = parameters
        self._player.refresh(version)

    def _fill(self, count: int, episodes: Sequence[int], options: Sequence[Mapping[str, Any]] = ()) -> Played:
        slots = self._ring.lend(count)
        self._when_begun()
        result: PlayResult = self._player.play(slots, episodes, options)
        sealed = self._ring.sealed(slots)
        trajectories = self._ring.copy_out(sealed) if sealed else None
        self._ring.take_back(slots)
        return Played(trajectories, result.unused, result.failures, result.unnamed)

"""Episodes one after the other in the main process, in the event loop's own thread: for debugging.

Breakpoints in the environment work. So does everything that an environment can do to a process: what ends it ends the
run, and what hangs hangs.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import gymnasium

from aiotrain.collect.protocol import CollectorSettings, Launch
from aiotrain.collect.task_collector import TaskCollector
from aiotrain.errors import EnvError
from aiotrain.play.factory import EnvFactory
from aiotrain.play.inspection import inspect_env
from aiotrain.play.local_player import LocalPlayer, Played, make_player
from aiotrain.play.policy import PolicyShape
from aiotrain.play.spaces import EnvSpec

__all__ = ["SequentialCollector"]


class SequentialCollector(TaskCollector):
    """Plays in this process, with ``envs_per_worker`` environments in a batch. There is one worker: this process."""

    whole_episodes = False

    def __init__(self, factory: EnvFactory, settings: CollectorSettings, warn: Callable[[str], None]) -> None:
        super().__init__(factory, dataclasses.replace(settings, workers=1), warn)
        self._envs: list[gymnasium.Env[Any, Any]] = []
        self._player: LocalPlayer | None = None

    async def _inspect(self) -> EnvSpec:
        env, spec = inspect_env(self._factory)
        self._envs.append(env)
        return spec

    async def open(self, policy: PolicyShape, slot_steps: int) -> None:
        """See Collector."""
        await super().open(policy, slot_steps)
        self._player = self._make_player()

    def _make_player(self) -> LocalPlayer:
        assignment, factory = self._assignment, self._factory
        return LocalPlayer(assignment, lambda ring: make_player(assignment, factory, ring, self._envs))

    async def _play(self, worker: int, launch: Launch) -> Played:
        try:
            player = self._player = self._player or self._make_player()
            count = len(launch.episodes) or player.unfinished
            return player.play(*self._policy, count, launch.episodes, launch.options)
        except EnvError:  # a broken environment could not be replaced: the next task makes all of them anew
            await self._end()
            raise

    async def _end(self) -> None:
        self._player = None
        envs, self._envs = self._envs, []
        for env in envs:
            with contextlib.suppress(Exception):
                env.close()

"""Episodes one after the other in the main process, in the event loop's own thread: for debugging.

Breakpoints in the environment work. So does everything that an environment can do to a process: what ends it ends the
run, and a call that never returns hangs.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import gymnasium

from aiotrain.collect.episode_timer import EpisodeTimer
from aiotrain.collect.protocol import CollectorSettings, Launch
from aiotrain.collect.task_collector import TaskCollector
from aiotrain.errors import EnvError
from aiotrain.play.env_factory import EnvFactory
from aiotrain.play.inspection import close_envs, inspect_env, make_env
from aiotrain.play.policy import PolicyShape
from aiotrain.play.private_ring_player import LocalPlayer, Played, make_player
from aiotrain.play.spaces import EnvSpec

__all__ = ["SequentialCollector"]


class SequentialCollector(TaskCollector):
    """Plays in this process, with ``envs_per_worker`` environments in a batch. There is one worker: this process."""

    def __init__(self, factory: EnvFactory, settings: CollectorSettings, warn: Callable[[str], None]) -> None:
        super().__init__(factory, dataclasses.replace(settings, workers=1), warn)
        self._envs: list[gymnasium.Env[Any, Any]] = []
        self._player: LocalPlayer | None = None

    async def _inspect(self) -> EnvSpec:
        env, spec = inspect_env(self._factory)
        self._envs.append(env)
        return spec

    async def open(self, policy: PolicyShape, slot_steps: int) -> None:
        await super().open(policy, slot_steps)
        self._envs = [self._timed(env) for env in self._envs]
        self._player = self._make_player()

    def _make_player(self) -> LocalPlayer:
        def make() -> gymnasium.Env[Any, Any]:
            return self._timed(make_env(self._factory))

        return LocalPlayer(
            self._assignment, lambda ring: make_player(self._assignment, self._factory, ring, self._envs, make)
        )

    def _timed(self, env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
        return _TimedEnv(env, self._settings, self._assignment.ring_layout.steps)

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
        close_envs(envs)


class _TimedEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Breaks an episode off, by EnvError, after the call by which its time is over."""

    def __init__(self, env: gymnasium.Env[Any, Any], settings: CollectorSettings, slot_steps: int) -> None:
        super().__init__(env)
        self._timer, self._limit_s = EpisodeTimer(settings, slot_steps), settings.episode_timeout_s

    def reset(self, **kwargs: Any) -> Any:
        """As the environment's."""
        self._timer.begin()
        return self._in_time(self.env.reset, **kwargs)

    def step(self, action: Any) -> Any:
        """As the environment's."""
        self._timer.begin_step()
        return self._in_time(self.env.step, action)

    def _in_time(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        began_s = time.monotonic()
        answer = call(*args, **kwargs)
        self._timer.spend(time.monotonic() - began_s)
        if self._timer.left_s < 0:
            raise EnvError(f"broken off after {self._limit_s:g} s; raise --episode-timeout-s if it is slow")
        return answer

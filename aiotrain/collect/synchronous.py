"""One process per environment; all step together, and the main process acts for all in one batch.

So there is a barrier at every step, at which everybody waits for the slowest.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from aiotrain.collect import CollectorSettings, Launch
from aiotrain.collect.processes import WorkerContext
from aiotrain.collect.tasks import TaskCollector
from aiotrain.errors import EnvError
from aiotrain.factory import EnvFactory
from aiotrain.policy import PolicyShape
from aiotrain.status import WorkerState
from aiotrain.worker import LocalPlayer, Played
from aiotrain.worker.player import Player
from aiotrain.worker.remote import RemoteEnv, serve_env

__all__ = ["SynchronousCollector"]

_EPISODES_PER_ENV = 4  # in a task: an environment whose episode is over begins the next while others go on
_END_S = 2.0  # for the task that is being played


class SynchronousCollector(TaskCollector):
    """Steps ``workers`` times ``envs_per_worker`` environments in lockstep, in a thread of its own.

    ``barriers`` - 1 times a step, all processes are asked for an answer besides, as older designs did for the
    simulator's true state.
    """

    whole_episodes = False

    def __init__(
        self, factory: EnvFactory, settings: CollectorSettings, warn: Callable[[str], None], *, barriers: int = 1
    ) -> None:
        super().__init__(factory, settings, warn)
        self._barriers = barriers
        self._count = settings.workers * settings.envs_per_worker
        self._task_size = _EPISODES_PER_ENV * self._count
        self._context = WorkerContext()
        self._envs: list[RemoteEnv] = []
        self._thread = ThreadPoolExecutor(1, "aiotrain-synchronous")
        self._player: LocalPlayer | None = None

    async def open(self, policy: PolicyShape, slot_steps: int) -> None:
        """See Collector."""
        await super().open(policy, slot_steps)
        self._player = await self._in_thread(LocalPlayer, self._posting, self._make_player)

    def _make_player(self, ring: Any) -> Player:
        while len(self._envs) < self._count:  # of which those that were made are ended whatever happens
            self._envs.append(self._make_env())
        return Player(self._posting, ring, self._envs, self._make_env, self._step_together)

    def _make_env(self) -> RemoteEnv:
        if self._closing:
            raise EnvError("the collector is closing")
        ours, theirs = self._context.Pipe()
        with theirs:
            process = self._context.Process(target=serve_env, args=(theirs, self._factory))
            process.start()
        return RemoteEnv(process, ours, self._settings.episode_timeout_s)

    def _step_together(self, envs: list[Any], actions: Sequence[Any]) -> None:
        """Send all actions before the first answer is waited for."""
        for _ in range(self._barriers - 1):
            for env in envs:
                env.send_nothing()
            for env in envs:
                with contextlib.suppress(EnvError):  # the step will tell
                    env.receive_nothing()
        for env, action in zip(envs, actions, strict=True):
            env.send_step(action)

    def room(self, wanted: int) -> int:
        """See Collector. All environments work at one task at a time."""
        return 0 if self._tasks else super().room(wanted)

    async def _play(self, worker: int, launch: Launch) -> Played:
        player = self._player
        assert player is not None
        count = len(launch.episodes) or player.unfinished
        played: Played = await self._in_thread(player.play, *self._policy, count, launch.episodes, launch.options)
        return played

    async def _in_thread(self, function: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    def _state(self, worker: Any) -> WorkerState:
        if self._closed:
            return WorkerState.ENDED
        return WorkerState.PLAYING if self._tasks else WorkerState.WAITING

    async def _end(self) -> None:
        await asyncio.to_thread(self._end_processes)

    def _end_processes(self) -> None:
        if not wait([self._thread.submit(self._hang_up)], _END_S).done:
            self._kill()  # what is being played breaks off, and is not begun again
        self._thread.shutdown()
        for env in self._envs:
            env.close()

    def _hang_up(self) -> None:
        for env in self._envs:
            env.hang_up()

    def _kill(self) -> None:
        for env in self._envs:
            env.kill()

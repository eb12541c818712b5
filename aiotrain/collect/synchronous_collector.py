"""One process per environment; all step together, and the main process acts for all in one batch.

So there is a barrier at every step, at which everybody waits for the slowest.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from aiotrain.collect.env_process import Answer, serve_env
from aiotrain.collect.episode_timer import EpisodeTimer
from aiotrain.collect.protocol import CollectorSettings, CollectorStatus, Launch
from aiotrain.collect.task_collector import TaskCollector
from aiotrain.collect.worker_executor import GRACE_S, WorkerContext, cause_of_exit, wait_for_end
from aiotrain.errors import EnvError
from aiotrain.play.env_factory import EnvFactory
from aiotrain.play.player import Player
from aiotrain.play.policy import PolicyShape
from aiotrain.play.private_ring_player import LocalPlayer, Played

__all__ = ["SynchronousCollector"]

_EPISODES_PER_ENV = 4  # in a task: an environment whose episode is over begins the next while others go on


class SynchronousCollector(TaskCollector):
    """Steps ``workers`` times ``envs_per_worker`` environments in lockstep, in a thread of its own."""

    def __init__(self, factory: EnvFactory, settings: CollectorSettings, warn: Callable[[str], None]) -> None:
        super().__init__(factory, settings, warn)
        self._count = settings.workers * settings.envs_per_worker
        self._task_size = _EPISODES_PER_ENV * self._count
        self._envs: list[_RemoteEnv] = []
        self._thread = ThreadPoolExecutor(1, "aiotrain-synchronous")

    async def open(self, policy: PolicyShape, slot_steps: int) -> None:
        await super().open(policy, slot_steps)
        self._player: LocalPlayer = await self._in_thread(LocalPlayer, self._assignment, self._make_player)

    def _make_player(self, ring: Any) -> Player:
        while len(self._envs) < self._count:  # of which those that were made are ended whatever happens
            self._envs.append(self._make_env())
        return Player(self._assignment, ring, self._envs, self._make_env, self._step_together)

    def _make_env(self) -> _RemoteEnv:
        self._leave_if_closing()
        return _RemoteEnv(self._factory, self._settings, self._assignment.ring_layout.steps)

    def _leave_if_closing(self) -> None:
        if self._closing:
            raise EnvError("the collector is closing")

    def _step_together(self, envs: list[Any], actions: Sequence[Any]) -> None:
        """Send all actions before the first answer is waited for."""
        self._leave_if_closing()
        for env, action in zip(envs, actions, strict=True):
            env.send_step(action)

    def room(self, wanted: int) -> int:
        """See Collector. All environments work at one task at a time."""
        return 0 if self._tasks else super().room(wanted)

    async def _play(self, worker: int, launch: Launch) -> Played:
        count = len(launch.episodes) or self._player.unfinished
        played: Played = await self._in_thread(self._player.play, *self._policy, count, launch.episodes, launch.options)
        for failure in played.failures:  # with its environment, the process was replaced
            if failure.worker is not None:
                self._workers[failure.worker].restarts += 1
        return played

    async def _in_thread(self, function: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    def describe(self) -> CollectorStatus:
        """See Collector. All workers are at the one task."""
        told = super().describe()
        workers = tuple(dataclasses.replace(each, state=told.workers[0].state) for each in told.workers)
        return told._replace(workers=workers, busy_s=len(workers) * told.busy_s)

    async def _end(self) -> None:
        await asyncio.to_thread(self._end_processes)

    def _end_processes(self) -> None:
        if not wait([self._thread.submit(self._hang_up)], GRACE_S).done:
            self._kill()  # a step hangs
        self._thread.shutdown()
        wait_for_end([env.context for env in self._envs])
        for env in self._envs:
            env.close()

    def _hang_up(self) -> None:
        for env in self._envs:
            env.hang_up()

    def _kill(self) -> None:
        for env in self._envs:
            env.context.kill()


class _RemoteEnv:
    """An environment in a process of its own: `send_step` to all of them, then `step` for the answer of each.

    Raises EnvError for what the environment raised, for the end of its process, and where no answer comes in time. What
    others take while all wait for the slowest does not count.
    """

    def __init__(self, factory: EnvFactory, settings: CollectorSettings, slot_steps: int) -> None:
        self._settings = settings
        self._timer, self._sent_s = EpisodeTimer(settings, slot_steps), 0.0
        self.context = WorkerContext()
        self._connection, theirs = self.context.Pipe()
        with theirs:
            self._process = self.context.Process(target=serve_env, args=(theirs, factory))
            self._process.start()
        self._is_made = False

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> Any:
        """As in gymnasium.Env."""
        if not self._is_made:
            self._receive(self._settings.start_timeout_s, self._settings.not_ready)
            self._is_made = True
        self._timer.begin()
        self._send("reset", seed=seed, options=options)
        return self._answer()

    def send_step(self, action: Any) -> None:
        """Have the environment step while others do."""
        self._timer.begin_step()
        self._send("step", action)

    def step(self, action: Any) -> Any:
        """The answer to ``send_step``, which must have had the same action."""
        return self._answer()

    def _answer(self) -> Any:
        """Wait for the answer to what was sent."""
        left_s = self._timer.left_s - (time.monotonic() - self._sent_s)
        return self._receive(max(0.0, left_s), self._settings.hung)

    def hang_up(self) -> None:
        """Have the process close the environment and end."""
        self._connection.close()

    def close(self) -> None:
        """End the process, wait for its end, and free what is held of it."""
        self.hang_up()
        wait_for_end([self.context])
        self.context.close()

    def _send(self, name: str, *args: Any, **kwargs: Any) -> None:
        self._sent_s = time.monotonic()
        with contextlib.suppress(OSError):  # the process has gone: receiving tells
            self._connection.send((name, args, kwargs))

    def _receive(self, within_s: float, fault: str) -> Any:
        try:
            if not self._connection.poll(within_s):
                self._process.kill()
                raise EnvError(fault)
            answer: Answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(GRACE_S)  # so that it has an exit code
            raise EnvError(cause_of_exit(self._process.exitcode)) from None
        self._timer.spend(answer.took_s)
        if answer.report:
            raise EnvError(f"the environment raised\n{answer.report}")
        return answer.value

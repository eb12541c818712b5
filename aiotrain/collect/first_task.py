"""The first task of a worker process, which starts it, within a deadline; and what an environment is like."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from aiotrain.collect import worker as task
from aiotrain.collect.processes import WorkerExecutor, cause_of_end, kill_forkserver, preload
from aiotrain.errors import EnvError
from aiotrain.play.factory import EnvFactory
from aiotrain.play.spaces import EnvSpec

__all__ = ["answer_of", "inspect", "run_first"]

_T = TypeVar("_T")


async def answer_of(future: Future[_T]) -> _T:
    """Wait for an executor's ``future``, which is not cancelled with the caller: one that breaks trips over that."""
    waiting = asyncio.wrap_future(future)
    waiting.add_done_callback(lambda done: done.cancelled() or done.exception())  # or asyncio reports what nobody saw
    return await asyncio.shield(waiting)


async def run_first(executor: WorkerExecutor, within_s: float, function: Callable[..., _T], *args: Any) -> _T:
    """Run ``function`` in the executor's process; the submission starts it, which blocks.

    Raises TimeoutError, and EOFError or OSError if the process cannot be started.
    """
    starting = asyncio.create_task(asyncio.to_thread(executor.start, function, *args))
    # Where nobody waits for it any more, asyncio would report that its exception was not seen.
    starting.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        async with asyncio.timeout(within_s):
            await asyncio.wait([starting])  # which does not cancel it
            return await answer_of(starting.result())
    except TimeoutError:
        if starting.done():
            executor.kill()
            raise
        kill_forkserver()
        await asyncio.wait([starting])
        raise TimeoutError(
            f"the process that workers are forked from was not ready within {within_s:g} s. It first imports, and "
            "compiles, what they need. Does one of these imports wait for something? Raise --start-timeout-s if it is "
            "slow."
        ) from None


async def inspect(executor: WorkerExecutor, factory: EnvFactory, within_s: float) -> EnvSpec:
    """Make an environment in the executor's process, which keeps it, and tell what it is like. Raises EnvError."""
    preload(factory.preload)
    try:
        return await run_first(executor, within_s, task.inspect, factory)
    except BrokenProcessPool as error:
        raise EnvError(
            f"the process that made environment {factory.name} died ({cause_of_end(error, executor)}). "
            "Does the environment, or a library that it loads, end the process?"
        ) from error
    except TimeoutError as error:
        raise EnvError(
            str(error)
            or f"environment {factory.name} was not ready within {within_s:g} s of its making. "
            "Does its constructor or its first reset wait for something? Raise --start-timeout-s if it is slow."
        ) from error
    except (EOFError, OSError) as error:
        if "AF_UNIX path too long" in str(error):
            raise EnvError(
                "worker processes cannot be started: the path of temporary files is too long for a socket "
                f"({tempfile.gettempdir()}). Set TMPDIR to a folder with a shorter one."
            ) from error
        raise EnvError(cause_of_end(error, executor)) from error

"""Tasks of worker processes within a time: the first one, which starts the process, and those that follow."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from aiotrain.collect import worker
from aiotrain.collect.cpython_internals import kill_forkserver
from aiotrain.collect.worker_executor import WorkerExecutor, cause_of_end, preload
from aiotrain.errors import EnvError
from aiotrain.play.env_factory import EnvFactory
from aiotrain.play.spaces import EnvSpec

__all__ = ["answer_of", "inspect", "run_first", "start"]

_T = TypeVar("_T")


async def answer_of(answer: Awaitable[_T], fault: Callable[[], str], look_every_s: float) -> _T:
    """Wait for the answer of another process.

    It is not cancelled with the caller: an executor that breaks trips over that. Raises TimeoutError with what
    ``fault`` returns, as soon as it returns something.
    """
    waiting = asyncio.ensure_future(answer)
    waiting.add_done_callback(_is_seen)
    while not waiting.done():
        await asyncio.wait([waiting], timeout=look_every_s)
        if not waiting.done() and (found := fault()):
            raise TimeoutError(found)
    return waiting.result()


def _is_seen(done: asyncio.Future[Any]) -> None:
    """Look at an exception: asyncio would report one that nobody waits for any more."""
    if not done.cancelled():
        done.exception()


async def start(executor: WorkerExecutor, within_s: float, function: Callable[..., _T], *args: Any) -> Future[_T]:
    """Submit the first task of the executor's process, which starts it; that may block for a while.

    Raises TimeoutError, and EOFError or OSError if the process cannot be started.
    """
    starting = asyncio.create_task(asyncio.to_thread(executor.start, function, *args))
    starting.add_done_callback(_is_seen)
    await asyncio.wait([starting], timeout=within_s)  # which does not cancel it
    if starting.done():
        return starting.result()
    kill_forkserver()
    await asyncio.wait([starting])
    raise TimeoutError(
        f"the process that workers are forked from was not ready within {within_s:g} s. It first imports, and "
        "compiles, what they need. Does one of these imports wait for something? Raise --start-timeout-s if it is slow."
    )


async def run_first(executor: WorkerExecutor, within_s: float, function: Callable[..., _T], *args: Any) -> _T:
    """Run ``function`` as the first task of the executor's process. Raises as `start` does; kills a late process."""
    deadline_s = time.monotonic() + within_s
    answer = asyncio.wrap_future(await start(executor, within_s, function, *args))
    answer.add_done_callback(_is_seen)
    try:
        async with asyncio.timeout(deadline_s - time.monotonic()):
            return await asyncio.shield(answer)
    except TimeoutError:
        executor.kill()
        raise


async def inspect(executor: WorkerExecutor, factory: EnvFactory, within_s: float) -> EnvSpec:
    """Make an environment in the executor's process, which keeps it, and return its spec. Raises EnvError."""
    preload(factory.preload)
    try:
        return await run_first(executor, within_s, worker.inspect, factory)
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

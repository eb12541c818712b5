"""Worker processes and their executors: how they start and end, and why they ended."""

from __future__ import annotations

import math
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, context
from typing import Any, TypeVar

from aiotrain.collect import worker
from aiotrain.collect.cpython_internals import ForkServerProcess, NoLock, ObservablePool, kill_forkserver

__all__ = [
    "GRACE_S",
    "WorkerContext",
    "WorkerExecutor",
    "cause_of_end",
    "cause_of_exit",
    "end",
    "preload",
    "wait_for_end",
]

GRACE_S = 2.0  # for workers to be there, and then to finish their tasks and close their environments
_TERM_S = 1.0  # between SIGTERM and SIGKILL
_EXIT_CODE_S = 0.2  # for the forkserver to tell of an exit that has been noticed otherwise


def preload(modules: Sequence[str]) -> None:
    """Have the forkserver import ``modules`` once, for all workers. Without effect once it runs."""
    here = "aiotrain.collect"
    first, last = (f"{here}.forkserver_ignore_signals", f"{here}.worker"), f"{here}.forkserver_freeze_memory"
    multiprocessing.get_context("forkserver").set_forkserver_preload([*first, *modules, last])


_T = TypeVar("_T")


class WorkerContext(context.ForkServerContext):
    """A forkserver context that remembers the processes that it made, and names each by its number."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[ForkServerProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> ForkServerProcess:  # type: ignore[override]
        """As the base class's, but see `ForkServerProcess`."""
        self.made.append(ForkServerProcess(*args, **kwargs | {"name": str(len(self.made))}))
        return self.made[-1]

    @property
    def started(self) -> list[ForkServerProcess]:
        """The processes that were started."""
        return [process for process in self.made if process.pid is not None]

    @property
    def alive(self) -> bool:
        """Whether any of the processes is running."""
        return any(process.is_alive() for process in self.started)

    def terminate(self) -> None:
        """Send SIGTERM."""
        for process in self.started:
            process.terminate()

    def kill(self) -> None:
        """Send SIGKILL."""
        for process in self.started:
            process.kill()

    def close(self) -> None:
        """Free what is held of the processes, which have ended."""
        for process in self.started:
            process.close()
        self.made.clear()


class _LoneWorkerContext(WorkerContext):
    """The context of an executor with one process."""

    def Lock(self) -> NoLock:  # type: ignore[override]
        return NoLock()

    def BoundedSemaphore(self, value: int = 1) -> NoLock:  # type: ignore[override]
        return NoLock()


class WorkerExecutor(ObservablePool):
    """An executor whose worker processes, usually one, can be looked at and killed."""

    def __init__(self, processes: int = 1) -> None:
        self.context = _LoneWorkerContext() if processes == 1 else WorkerContext()
        super().__init__(processes, self.context, worker.initialize)

    def start(self, function: Callable[..., _T], *args: Any) -> Future[_T]:
        """Submit the first task, which starts the process, and the forkserver if need be.

        Blocks until the process is there. SIGINT is blocked meanwhile; see ``forkserver_ignore_signals``. Raises
        EOFError or OSError if the forkserver ends before that.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            return self.submit(function, *args)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def exit_code(self) -> int | None:
        """The exit code of the process that ended first, by itself; minus the signal's number if a signal killed it."""
        if self.is_broken:  # by the end of a pipe, which the forkserver may tell later of
            connection.wait([process.sentinel for process in self.context.started], _EXIT_CODE_S)
        codes = [code for process in self.context.started if (code := process.exitcode) is not None]
        # Those that the executor ends after it, it ends by SIGTERM.
        return next((code for code in codes if code != -signal.SIGTERM), codes[0] if codes else None)

    def kill(self) -> None:
        """Send SIGKILL to all processes; the executor's thread then comes to its end."""
        self.context.kill()
        self.hang_up()


def end(executors: Sequence[WorkerExecutor]) -> None:
    """End all processes of ``executors``, also one that another thread is just starting. Blocks until then."""
    # In a thread, because a process that is just being started holds its executor's lock.
    asking = threading.Thread(target=_shut_down, args=(executors,), kwargs={"wait": False})
    asking.start()
    asking.join(GRACE_S)
    if asking.is_alive():
        kill_forkserver()  # it still imports, compiles or hangs
        asking.join()
    wait_for_end([executor.context for executor in executors])
    for executor in executors:
        executor.kill()
    _shut_down(executors, wait=True)  # and their threads


def _shut_down(executors: Sequence[WorkerExecutor], *, wait: bool) -> None:
    for executor in executors:
        executor.shutdown(wait, cancel_futures=True)


def wait_for_end(contexts: Sequence[WorkerContext]) -> None:
    """Wait until all processes of ``contexts`` have ended, as they were asked to; then send SIGTERM, then SIGKILL."""
    for within_s, escalate in ((GRACE_S, WorkerContext.terminate), (_TERM_S, WorkerContext.kill)):
        if _have_ended(contexts, within_s):
            return
        for each in contexts:
            escalate(each)
    _have_ended(contexts, math.inf)


def _have_ended(contexts: Sequence[WorkerContext], within_s: float) -> bool:
    """Wait until no process of ``contexts`` is running. Return whether that came within the time."""
    deadline = time.monotonic() + within_s
    while any(each.alive for each in contexts):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def cause_of_end(error: BaseException, executor: WorkerExecutor | None) -> str:
    """Return why a worker is lost, in words."""
    if isinstance(error, EOFError | ConnectionError):
        return "the process that workers are forked from has ended, killed perhaps for lack of memory"
    if not isinstance(error, BrokenProcessPool):
        return str(error) or type(error).__name__
    return cause_of_exit(None if executor is None else executor.exit_code)


def cause_of_exit(code: int | None) -> str:
    """Return what the exit code of a process, None if unknown, says about its end, in words."""
    if code is None:
        return "its process ended"
    if code >= 0:
        return f"its process ended with exit code {code}: the environment, or a library under it, left the process"
    name = {each.value: each.name for each in signal.Signals}.get(-code, f"signal {-code}")  # real-time ones have none
    hint = {
        "SIGKILL": ": killed from outside, often by the system for lack of memory",
        "SIGSEGV": ": a crash in compiled code under the environment",
    }.get(name, "")
    return f"its process ended by {name}{hint}"

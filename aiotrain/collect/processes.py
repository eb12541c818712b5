"""Worker processes: started by the forkserver, one executor each, without the caller's ``__main__``."""

from __future__ import annotations

import contextlib
import io
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, context, forkserver, popen_forkserver, reduction, spawn, util
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from aiotrain.collect import worker

__all__ = [
    "GRACE_S",
    "WorkerContext",
    "WorkerExecutor",
    "cause_of_end",
    "cause_of_exit",
    "end",
    "kill_forkserver",
    "preload",
    "see_off",
]

GRACE_S = 2.0  # for workers to be there, and then to finish their tasks and close their environments
_TERM_S = 1.0  # between SIGTERM and SIGKILL
_EXIT_CODE_S = 0.2  # for the forkserver to tell of an exit that has been noticed otherwise


def preload(modules: Sequence[str]) -> None:
    """Have the forkserver import ``modules`` once, for all workers. Without effect once it runs."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["aiotrain.collect.forkserver_first", "aiotrain.collect.worker", *modules, "aiotrain.collect.forkserver_last"]
    )


def kill_forkserver() -> None:
    """Kill the process that workers are forked from, if it runs: whoever waits for it gets an EOFError or OSError.

    The next worker starts another. Those that live go on, but count as ended from now on.
    """
    pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


_T = TypeVar("_T")


class _Popen(popen_forkserver.Popen):
    """Starts a child that does not import the caller's script.

    What a worker needs travels by cloudpickle. So a script needs no ``if __name__ == "__main__"``, and what it imports
    (torch, say) costs the workers neither time nor memory.
    """

    def __init__(self, process_obj: BaseProcess) -> None:
        self._reading = threading.Lock()
        super().__init__(process_obj)

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        # The exit code can be read once. The executor's thread and the event loop both ask for it, and without the lock
        # the one that comes second takes the end of the pipe for exit code 255.
        if self.returncode is None:
            if not connection.wait([self.sentinel], 0 if flag == os.WNOHANG else None):
                return None
            with self._reading:
                super().poll(flag)
        return self.returncode

    def _launch(self, process_obj: BaseProcess) -> None:
        preparation = spawn.get_preparation_data(process_obj.name)
        preparation.pop("init_main_from_name", None)
        preparation.pop("init_main_from_path", None)
        buffer = io.BytesIO()
        context.set_spawning_popen(self)
        try:
            reduction.dump(preparation, buffer)
            reduction.dump(process_obj, buffer)
        finally:
            context.set_spawning_popen(None)
        self.sentinel, to_child = forkserver.connect_to_new_process(self._fds)  # type: ignore[attr-defined]
        # The child sees our death by this end closing; what is left of it closes with this object.
        self.finalizer = util.Finalize(self, util.close_fds, (os.dup(to_child), self.sentinel))  # type: ignore[attr-defined]
        with open(to_child, "wb") as pipe:
            pipe.write(buffer.getbuffer())
        self.pid = forkserver.read_signed(self.sentinel)


class _Process(context.ForkServerProcess):
    @staticmethod
    def _Popen(process_obj: BaseProcess) -> _Popen:
        return _Popen(process_obj)


class WorkerContext(context.ForkServerContext):
    """A forkserver context that remembers the processes that it made, and names each by its number."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[_Process] = []

    def Process(self, *args: Any, **kwargs: Any) -> _Process:  # type: ignore[override]
        """As the base class's, but see ``_Popen``."""
        self.made.append(_Process(*args, **kwargs | {"name": str(len(self.made))}))
        return self.made[-1]

    @property
    def started(self) -> list[_Process]:
        """Those of the processes that were started."""
        return [process for process in self.made if process.pid is not None]

    @property
    def alive(self) -> bool:
        """Whether any of the processes runs."""
        return any(process.is_alive() for process in self.started)

    def terminate(self) -> None:
        """Send SIGTERM."""
        for process in self.started:
            process.terminate()

    def kill(self) -> None:
        """Send SIGKILL."""
        for process in self.started:
            process.kill()


class _Unguarded:
    """Stands in for the locks of queues that have one process at each end, and need none.

    Real ones have a name in /dev/shm, five for each executor, which stays there if everything is killed.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        return True

    def release(self) -> None:
        pass

    @property
    def _semlock(self) -> _Unguarded:
        return self

    def _is_zero(self) -> bool:
        """Whether the queue is full: collectors bound what is in it."""
        return False


class _LoneWorkerContext(WorkerContext):
    """The context of an executor with one process."""

    def Lock(self) -> _Unguarded:  # type: ignore[override]
        return _Unguarded()

    def BoundedSemaphore(self, value: int = 1) -> _Unguarded:  # type: ignore[override]
        return _Unguarded()


class WorkerExecutor(ProcessPoolExecutor):
    """An executor whose worker processes, usually one, can be looked at and killed."""

    def __init__(self, processes: int = 1, initargs: tuple[Any, ...] = ()) -> None:
        self.context = _LoneWorkerContext() if processes == 1 else WorkerContext()
        self._manager: threading.Thread | None = None
        super().__init__(processes, self.context, worker.initialize, initargs)
        self._answers: Any = self._result_queue  # which shutdown forgets
        self._hanging_up = threading.Lock()

    def start(self, function: Callable[..., _T], *args: Any) -> Future[_T]:
        """Submit the first task, which starts the process, and the forkserver if need be; see ``quiet``.

        Blocks until the process is there. Raises EOFError or OSError if the forkserver ends before that.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            return self.submit(function, *args)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As the base class does, which however does not wait where it was called without ``wait`` before."""
        with self._shutdown_lock:
            self._manager = self._manager or self._executor_manager_thread  # type: ignore[assignment]
        super().shutdown(wait, cancel_futures=cancel_futures)
        if wait and self._manager is not None:
            self._manager.join()

    @property
    def is_broken(self) -> bool:
        """Whether a process has ended that it did not end itself."""
        return bool(self._broken)

    @property
    def exit_code(self) -> int | None:
        """The exit code of the process that ended first, by itself; minus the signal's number if a signal killed it."""
        if self._broken:  # by the end of a pipe, which the forkserver may tell later of
            connection.wait([process.sentinel for process in self.context.started], _EXIT_CODE_S)
        codes = [code for process in self.context.started if (code := process.exitcode) is not None]
        # Those that the executor ends after it, it ends by SIGTERM.
        return next((code for code in codes if code != -signal.SIGTERM), codes[0] if codes else None)

    def kill(self) -> None:
        """Send SIGKILL to all processes, and have the executor's thread not wait for the rest of an answer in which one
        was killed: with our end of the pipe closed, it comes to its end."""
        self.context.kill()
        with self._hanging_up:  # closing it in two threads at once would close what has taken its number
            self._answers._writer.close()


def end(executors: Sequence[WorkerExecutor]) -> None:
    """End all processes of ``executors``, one of which another thread may just be starting. Blocks until they have."""
    # In a thread, because a process that is just being started holds its executor's lock.
    asking = threading.Thread(target=_shut_down, args=(executors,), kwargs={"wait": False})
    asking.start()
    asking.join(GRACE_S)
    if asking.is_alive():
        kill_forkserver()  # it still imports, compiles or hangs
        asking.join()
    see_off([executor.context for executor in executors])
    for executor in executors:
        executor.kill()
    _shut_down(executors, wait=True)  # and their threads


def _shut_down(executors: Sequence[WorkerExecutor], *, wait: bool) -> None:
    for executor in executors:
        executor.shutdown(wait, cancel_futures=True)


def see_off(contexts: Sequence[WorkerContext]) -> None:
    """Wait until all processes of ``contexts``, which were asked to, have ended: then SIGTERM, then SIGKILL."""
    for within_s, escalate in ((GRACE_S, WorkerContext.terminate), (_TERM_S, WorkerContext.kill)):
        if _have_ended(contexts, within_s):
            return
        for each in contexts:
            escalate(each)
    _have_ended(contexts, math.inf)


def _have_ended(contexts: Sequence[WorkerContext], within_s: float) -> bool:
    """Wait until no process of ``contexts`` runs; whether that came within the time."""
    deadline = time.monotonic() + within_s
    while any(each.alive for each in contexts):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def cause_of_end(error: BaseException, executor: WorkerExecutor | None) -> str:
    """Why a worker is lost, in words."""
    if isinstance(error, EOFError | ConnectionError):
        return "the process that workers are forked from has ended, killed perhaps for lack of memory"
    if not isinstance(error, BrokenProcessPool):
        return str(error) or type(error).__name__
    return cause_of_exit(None if executor is None else executor.exit_code)


def cause_of_exit(code: int | None) -> str:
    """What the exit code of a process, if it is known, says about its end, in words."""
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

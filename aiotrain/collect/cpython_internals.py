"""The one file that uses private or undocumented names of CPython. Tried with Python 3.11, 3.12 and 3.13.

It relies on, in multiprocessing: context.ForkServerProcess._Popen, context.set_spawning_popen, forkserver._forkserver,
forkserver.connect_to_new_process, forkserver.read_signed, popen_forkserver.Popen with _launch, poll, _fds, sentinel and
finalizer, queues.Queue with _sem, reduction.dump, spawn.get_preparation_data, util.Finalize and util.close_fds; in
concurrent.futures.ProcessPoolExecutor: _broken, _executor_manager_thread, _result_queue and its _writer, and
_shutdown_lock. A test tells which of them is missing.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import connection, context, forkserver, popen_forkserver, reduction, spawn, util
from multiprocessing.process import BaseProcess
from typing import Any

__all__ = ["ForkServerProcess", "NoLock", "ObservablePool", "at_end_of_child", "kill_forkserver"]


def kill_forkserver() -> None:
    """Kill the process that workers are forked from, if it runs: whoever waits for it gets an EOFError or OSError.

    The next worker starts another. Those that live go on, but count as ended from now on.
    """
    pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def at_end_of_child(function: Callable[[], None]) -> None:
    """Have a child process call ``function`` when it ends of itself; ``atexit`` is not heeded there."""
    util.Finalize(None, function, exitpriority=10)


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


class ForkServerProcess(context.ForkServerProcess):
    """A process from the forkserver that does not import the caller's script."""

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> _Popen:
        return _Popen(process_obj)


class NoLock:
    """Stands in for the locks of queues that have one process at each end, and need none.

    Real ones have a name in /dev/shm, five for each executor, which stays there if everything is killed.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Return at once."""
        return True

    def release(self) -> None:
        """Do nothing."""

    @property
    def _semlock(self) -> NoLock:
        return self

    def _is_zero(self) -> bool:
        """Say that the queue is not full: collectors bound what is in it."""
        return False


class ObservablePool(ProcessPoolExecutor):
    """An executor that tells whether it is broken, and whose threads can be waited for and freed."""

    def __init__(self, *args: Any) -> None:
        self._manager: threading.Thread | None = None
        super().__init__(*args)
        self._answers: Any = self._result_queue  # which shutdown forgets
        self._hanging_up = threading.Lock()

    @property
    def is_broken(self) -> bool:
        """Whether a process has ended that the executor did not end itself."""
        return bool(self._broken)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut down, and wait for the thread also after a call without ``wait``, which the base class does not."""
        with self._shutdown_lock:
            self._manager = self._manager or self._executor_manager_thread  # type: ignore[assignment]
        super().shutdown(wait, cancel_futures=cancel_futures)
        if wait and self._manager is not None:
            self._manager.join()

    def hang_up(self) -> None:
        """Close our end of the pipe of answers.

        The executor's thread then does not wait for the rest of an answer in the middle of which a process was killed.
        """
        with self._hanging_up:  # closing it in two threads at once would close what has taken its number
            self._answers._writer.close()

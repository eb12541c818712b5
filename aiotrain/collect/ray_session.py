"""This process's connection to Ray, actors on a node, and Ray's errors in short."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import ray
from ray._private import worker as printing
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from aiotrain.collect.worker import NICENESS
from aiotrain.errors import AiotrainError, ConfigError
from aiotrain.transport.segments import free_bytes

__all__ = ["RaySession", "in_short", "kill", "new_actor", "take_signals_back"]

_OBJECT_STORE_BYTES = 2**28  # for the trajectories on their way; touched only as far as it is used
_LEAST_OBJECT_STORE_BYTES = 80 * 2**20  # Ray's own minimum is 75 MiB


class RaySession:
    """This process's connection to Ray, which all collectors in it share: the first begins it, the last ends it."""

    _lock: ClassVar = threading.Lock()
    _current: ClassVar[RaySession | None] = None

    @classmethod
    def join(cls, address: str) -> RaySession | None:
        """Return the connection, begun if there is none; None if somebody else began it, who will also end it.

        Blocks. Raises ConfigError if there is no Ray at ``address``.
        """
        with cls._lock:
            if cls._current is None:
                if ray.is_initialized():
                    return None
                cls._current = cls(address)
            cls._current._users += 1
            return cls._current

    def leave(self) -> None:
        """End the connection, and Ray where it was started here, unless others still need it. Blocks."""
        with self._lock:
            self._users -= 1
            if not self._users:
                type(self)._current = None
                self._end()

    def __init__(self, address: str) -> None:
        self._users = 0
        self._print: Any = None
        self._folder: str | None = None
        if address == "local":  # where Ray would put it, because the names of sockets must not be long
            self._folder = tempfile.mkdtemp(prefix="aiotrain-ray-", dir=os.environ.get("RAY_TMPDIR", "/tmp"))
        logger = logging.getLogger("ray")
        self._logging = logger.level, list(logger.handlers)
        logger.setLevel(logging.CRITICAL + 1)  # what goes wrong is told as warnings and errors of the run
        environment = set(os.environ)
        # The kernel ends Ray's processes with the thread that started them, so that one has to stay. And where it is
        # not the main thread, Ray leaves signals alone.
        self._thread = ThreadPoolExecutor(1, "aiotrain-ray-session")
        try:
            self._thread.submit(self._begin, address).result()
        except Exception as error:
            raise ConfigError(f"ray-address: Ray at {address} cannot be used: {in_short(error)}") from error
        finally:
            self._variables = os.environ.keys() - environment  # that Ray has set
            if not ray.is_initialized():
                self._end()

    def _begin(self, address: str) -> None:
        options: dict[str, Any] = {"address": address}
        if address == "local":
            free = free_bytes() or 0
            options |= {
                "include_dashboard": False,
                "object_store_memory": max(_LEAST_OBJECT_STORE_BYTES, min(_OBJECT_STORE_BYTES, free // 2)),
                "_temp_dir": self._folder,
                "_system_config": {"worker_niceness": NICENESS},
            }
        elif address != "auto":
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=5).close()  # Ray would try for a minute
        ray.init(**options, configure_logging=False, log_to_driver=False)
        # Ray has no setting against printing that a worker has died, which is told as a warning of the run.
        self._print, printing.print_to_stdstream = printing.print_to_stdstream, lambda *_, **__: None

    def _end(self) -> None:
        self._thread.submit(ray.shutdown).result()
        if self._print is not None:
            printing.print_to_stdstream = self._print
        self._thread.shutdown()
        for name in self._variables:
            os.environ.pop(name, None)
        logger = logging.getLogger("ray")
        level, logger.handlers[:] = self._logging
        logger.setLevel(level)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def take_signals_back() -> None:
    """Restore the signal handlers that Ray's core has replaced. Without effect outside the main thread."""
    if threading.current_thread() is threading.main_thread():
        for each in (signal.SIGINT, signal.SIGTERM):
            if (handler := signal.getsignal(each)) is not None:
                signal.signal(each, handler)
                signal.siginterrupt(each, False)  # as event loops have it


def new_actor(body: type, node: str, *args: Any, variables: Mapping[str, str] | None = None) -> Any:
    """Return the handle of a new actor on that node and no other, with these environment variables set.

    ``body`` is made of this process's ``sys.path`` and ``args``.
    """
    options: dict[str, Any] = {"runtime_env": {"env_vars": variables}} if variables else {}
    place = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=0, max_restarts=0, scheduling_strategy=place, **options)(body).remote(sys.path, *args)


def kill(handle: Any) -> None:
    """Kill the actor, if it is not dead."""
    with contextlib.suppress(Exception):
        ray.kill(handle)


def in_short(error: BaseException) -> str:
    """Return what happened, without Ray's advice."""
    if isinstance(error, RayTaskError):
        error = error.cause
    if isinstance(error, AiotrainError):
        return str(error)
    text = " ".join(str(error).split())
    if isinstance(error, RayActorError):
        text = re.split(r" Some common causes| There are some potential root causes", text)[0]
        text = re.split(r"Worker exit detail: |The actor is dead because ", text)[-1]
        return f"the actor's process was lost: {text}"
    return text or type(error).__name__

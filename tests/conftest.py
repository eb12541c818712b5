"""What holds for every test: nothing may be left behind, and hypothesis tries the same examples each time."""

from __future__ import annotations

import gc
import multiprocessing.forkserver
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop
from hypothesis import HealthCheck, Phase, settings

from aiotrain.collect.worker_executor import preload

settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    max_examples=40,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("suite")

_PATIENCE_S = 5.0


@pytest.fixture(scope="session", autouse=True)
def _helpers_of_multiprocessing() -> None:
    """What is started once in a process and stays, before the first count."""
    preload([])
    multiprocessing.forkserver.ensure_running()
    resource_tracker.ensure_running()
    uvloop.new_event_loop().close()  # libuv opens a pipe for signals once in a process


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """Start Ray once for the tests of a module: it takes seconds."""
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    ray.init("local", include_dashboard=False, object_store_memory=2**27, configure_logging=False, log_to_driver=False)
    yield
    ray.shutdown()
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(_helpers_of_multiprocessing: None) -> Iterator[None]:
    multiprocessing.forkserver.ensure_running()  # again, after a test that killed it
    before = _held()
    yield
    deadline = time.monotonic() + _PATIENCE_S
    while left := _left_since(before):
        if time.monotonic() > deadline:
            pytest.fail("the test leaves behind:\n" + "\n".join(left))
        time.sleep(0.02)


def _held() -> dict[str, dict[object, str]]:
    """Child processes, threads, file descriptors and segments: what identifies each, and what it is."""
    ray: Any = sys.modules.get("ray")
    with_ray = ray is not None and ray.is_initialized()  # for several tests: it has workers in stock, and connections
    processes: dict[object, str] = {}
    for child in psutil.Process().children(recursive=True):
        try:
            if child.status() != psutil.STATUS_ZOMBIE and not (with_ray and _is_in_rays_stock(child)):
                processes[child] = f"process {child.pid}: {' '.join(child.cmdline())[:200]}"
        except psutil.NoSuchProcess:
            continue
    descriptors: dict[object, str] = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if with_ray and target.startswith("socket:"):
            continue
        descriptors[fd, target] = f"file descriptor {fd}: {target}"
    return {
        "processes": processes,
        "threads": {thread: f"thread {thread.name}" for thread in threading.enumerate()},
        "descriptors": descriptors,
        "segments": {path.name: f"shared memory {path}" for path in Path("/dev/shm").glob(f"aiotrain-{os.getpid()}-*")},
    }


def _is_in_rays_stock(process: psutil.Process) -> bool:
    """Whether it is a Ray worker that is no actor: not yet, or not one any more."""
    command = " ".join(process.cmdline())
    return command.startswith("ray::IDLE") or "/workers/default_worker.py" in command


def _left_since(before: dict[str, dict[object, str]]) -> list[str]:
    left = _new(before)
    if left:
        gc.collect()  # a dead process's pipes close when its object goes
        left = _new(before)
    return left


def _new(before: dict[str, dict[object, str]]) -> list[str]:
    now = _held()
    return [text for kind, things in now.items() for thing, text in things.items() if thing not in before[kind]]

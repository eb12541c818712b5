"""The names of CPython that aiotrain/collect/cpython_internals.py relies on are there."""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
import multiprocessing.forkserver
import multiprocessing.popen_forkserver
import multiprocessing.queues
import multiprocessing.reduction
import multiprocessing.spawn
import multiprocessing.util
import platform
from concurrent.futures import ProcessPoolExecutor

import pytest

from aiotrain.collect import cpython_internals

MODULES = [
    "context.ForkServerProcess._Popen",
    "context.set_spawning_popen",
    "forkserver._forkserver._forkserver_pid",
    "forkserver.connect_to_new_process",
    "forkserver.read_signed",
    "popen_forkserver.Popen._launch",
    "popen_forkserver.Popen.poll",
    "reduction.dump",
    "spawn.get_preparation_data",
    "util.Finalize",
    "util.close_fds",
]
OF_A_PROCESS = ["_fds", "sentinel", "finalizer", "returncode", "pid"]
OF_A_QUEUE = ["_sem._semlock._is_zero", "_rlock", "_wlock"]
OF_AN_EXECUTOR = ["_broken", "_executor_manager_thread", "_result_queue._writer", "_shutdown_lock"]


def assert_there(owner: object, names: list[str]) -> None:
    for name in names:
        found = owner
        for part in name.split("."):
            assert hasattr(found, part), (
                f"{owner!r} has no {name} in Python {platform.python_version()}, on which "
                f"{cpython_internals.__name__} relies"
            )
            found = getattr(found, part)


def test_names_of_modules() -> None:
    assert_there(multiprocessing, MODULES)


def test_names_of_an_executor() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as executor:
        assert_there(executor, OF_AN_EXECUTOR)


def test_names_of_a_queue() -> None:
    queue = multiprocessing.get_context("forkserver").Queue()
    assert_there(queue, OF_A_QUEUE)
    queue.close()
    queue.join_thread()


def test_names_of_a_process() -> None:
    process = cpython_internals.ForkServerProcess(target=int)
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert_there(process._popen, OF_A_PROCESS)  # type: ignore[attr-defined]
    process.close()


def test_a_missing_name_is_told_with_the_version() -> None:
    with pytest.raises(AssertionError, match=r"no _sem\.nothing in Python 3.* on which .*cpython_internals relies"):
        assert_there(multiprocessing.get_context("forkserver").SimpleQueue(), ["_sem.nothing"])

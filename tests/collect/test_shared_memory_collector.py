"""What is special to the collector of shared memory: its slots, the supervision of its workers, and their end."""

from __future__ import annotations

import asyncio
import concurrent.futures.process
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from aiotrain.collect import shared_memory_collector, worker_executor
from aiotrain.collect.protocol import Launch, WorkerState
from aiotrain.errors import WorkerError
from aiotrain.testing import faulty
from aiotrain.transport.trajectories import Trajectories
from collector_harness import SEED, WITHIN_S, Play
from envs import Endless, Toy, Waiting


def pids() -> list[int]:
    """The workers, in the order in which they were started: children of this process's forkserver."""
    workers = [worker for child in psutil.Process().children() for worker in child.children()]
    return [worker.pid for worker in sorted(workers, key=lambda worker: worker.create_time())]


def is_running(pid: int) -> bool:
    """Whether there is such a process, dead ones aside that nobody has asked about yet."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until_ready(one: Play) -> None:
    up = (WorkerState.WAITING, WorkerState.PLAYING)
    await one.until(lambda: all(each.state in up for each in one.collector.describe().workers), "all are ready")


@pytest.mark.asyncio
async def test_endless_episodes_make_fragments() -> None:
    async with Play(Endless, workers=1, envs=2) as one:
        await one.open(slot_steps=5)
        await until_ready(one)
        for _ in range(3):
            one.collector.submit(Launch(0, (0, 1)))
            before = len(one.outcomes)
            while len(one.outcomes) == before:  # news may be that a worker is ready
                one.outcomes += await asyncio.wait_for(one.collector.outcomes(), WITHIN_S)
    got = Trajectories.join([each.trajectories for each in one.outcomes if each.trajectories is not None])
    assert got.headers[["episode", "fragment"]].tolist() == [(e, f) for e in (0, 1) for f in (0, 1, 2)]
    assert [each.unused for each in one.outcomes] == [(), (0, 1), (0, 1)]


# -------------------------------------------------------------------- disasters


@pytest.mark.asyncio
async def test_what_was_sealed_before_the_death_counts(tmp_path: Path) -> None:
    env = faulty(Toy, "kill", episodes=[3], run_seed=SEED, marks=tmp_path)
    async with Play(env) as one:
        await one.open()
        await until_ready(one)
        one.collector.submit(Launch(0, (0, 1, 2, 3, 4, 5)))
        while not one.outcomes:
            one.outcomes += await asyncio.wait_for(one.collector.outcomes(), WITHIN_S)
    (outcome,) = one.outcomes
    assert outcome.trajectories is not None
    assert outcome.trajectories.headers["episode"].tolist() == [0, 1, 2]
    assert one.lost == [3]
    assert outcome.unused == (4, 5)
    assert "SIGKILL" in outcome.lost[0].reason


@pytest.mark.asyncio
async def test_deaths_are_in_a_row_only_if_nothing_was_delivered_between_them(tmp_path: Path) -> None:
    """One worker that dies in every other episode, more often than would end a run, with what it sealed before."""
    fatal = range(1, 16, 2)
    env = faulty(Toy, "kill", episodes=fatal, run_seed=SEED, marks=tmp_path)
    async with Play(env, workers=1) as one:
        await one.open()
        await until_ready(one)
        one.collector._trajectory_cpu_s = 1e-4  # as if measured: tasks are of several episodes
        played = await one.play(16)
        assert sorted(played.headers["episode"].tolist()) == list(range(16))
        assert sorted(one.lost) == list(fatal)
        assert one.collector.describe().workers[0].restarts == len(fatal)
    assert [worker.state for worker in one.collector.describe().workers] == [WorkerState.ENDED]


@pytest.mark.asyncio
async def test_worker_killed_while_it_has_nothing_to_do_is_replaced() -> None:
    """Also if it is not needed."""
    async with Play(Toy, workers=2) as one:
        await one.open()
        await until_ready(one)
        os.kill(pids()[1], signal.SIGKILL)
        await one.until(lambda: one.collector.describe().workers[1].restarts == 1, "its death is noticed")
        await until_ready(one)
    (warning,) = one.warnings
    assert "worker 1" in warning
    assert "SIGKILL" in warning


@pytest.mark.asyncio
async def test_worker_killed_while_it_has_nothing_to_do_may_be_given_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anybody looks after it."""
    monkeypatch.setattr(shared_memory_collector, "_LOOK_S", 2 * WITHIN_S)
    async with Play(Toy, workers=2) as one:
        await one.open()
        await until_ready(one)
        victim, _ = pids()
        os.kill(victim, signal.SIGKILL)
        await one.until(lambda: not psutil.pid_exists(victim), "the worker is dead")
        executor = one.collector._workers[0].process.executor
        await one.until(lambda: executor.is_broken, "its executor knows")
        assert (await one.play(30)).headers["episode"].tolist() == list(range(30))
        assert one.lost == [], "nothing was begun"
        assert one.collector.describe().workers[0].restarts == 1


@pytest.mark.asyncio
async def test_environment_that_always_kills_its_worker_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory_collector, "_DEATHS_IN_A_ROW", 2)
    async with Play(faulty(Toy, "os._exit"), workers=1) as one:
        await one.open()
        with pytest.raises(WorkerError, match="exit code 3"):
            await one.play(10)


@pytest.mark.asyncio
async def test_worker_that_can_never_start_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """For lack of file descriptors, say; however often it is tried. The others play."""
    made: list[shared_memory_collector.WorkerExecutor] = []

    def scarce() -> shared_memory_collector.WorkerExecutor:
        if made:
            raise OSError(24, "Too many open files")
        made.append(worker_executor.WorkerExecutor())
        return made[0]

    monkeypatch.setattr(shared_memory_collector, "WorkerExecutor", scarce)
    monkeypatch.setattr(shared_memory_collector, "_LONGEST_PAUSE_S", 0.0)
    async with Play(Toy, workers=2) as one:
        await one.open()
        await one.until(lambda: len(one.warnings) > 1_100, "the second worker was tried often")
        assert "worker 1: did not start: [Errno 24] Too many open files" in one.warnings
        assert (await one.play(10)).headers["worker"].tolist() == [0] * 10


def test_end_by_any_signal_has_words() -> None:
    for number in signal.valid_signals():  # also real-time ones, most of which have no name
        words = worker_executor.cause_of_exit(-number)
        assert words.startswith("its process ended by SIG") or words == f"its process ended by signal {number}"


@pytest.mark.asyncio
async def test_ctrl_c_is_ignored_by_workers_and_by_what_starts_them() -> None:
    """A terminal sends it to the whole process group; the main process alone decides."""
    async with Play(Toy, workers=2) as one:
        await one.open()
        await until_ready(one)
        for pid in {*pids(), *(psutil.Process(pid).ppid() for pid in pids())}:
            masks = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            assert int(masks["SigIgn"], 16) >> (signal.SIGINT - 1) & 1


@pytest.mark.asyncio
async def test_no_thread_of_a_worker_outlives_close(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither of one that was lost and replaced, nor of one that ends with the collector."""
    manager = concurrent.futures.process._ExecutorManagerThread  # type: ignore[attr-defined]
    run, late = manager.run, threading.Event()

    def ends_late(thread: threading.Thread) -> None:
        run(thread)
        assert late.wait(WITHIN_S)

    monkeypatch.setattr(manager, "run", ends_late)
    async with Play(faulty(Toy, "kill", episodes=[3], run_seed=SEED, marks=tmp_path)) as one:
        await one.open()
        await one.play(5)
        managers = [thread for thread in threading.enumerate() if isinstance(thread, manager)]
        asyncio.get_running_loop().call_later(0.3, late.set)
    assert one.lost == [3]
    assert len(managers) == 2
    assert not [thread for thread in threading.enumerate() if isinstance(thread, manager)]


@pytest.mark.asyncio
async def test_worker_that_does_not_end_when_asked_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(worker_executor, "GRACE_S", 0.1)

    class Stubborn(Waiting):
        def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            return super().step(action)

    monkeypatch.setattr(worker_executor, "_TERM_S", 0.2)
    async with Play(functools.partial(Stubborn, str(tmp_path / "gate"))) as one:
        await one.open()
        playing = asyncio.create_task(one.play(5))
        await one.until(lambda: list(tmp_path.iterdir()), "the worker plays")
        (pid,) = pids()
        playing.cancel()
        await asyncio.wait([playing])
    assert not psutil.pid_exists(pid)


@pytest.mark.asyncio
async def test_queues_of_workers_have_no_named_semaphores() -> None:
    """They would stay in /dev/shm if everything were killed, and nothing tells whose they are."""

    def semaphores() -> list[str]:
        return [line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/sem." in line]

    before = semaphores()
    async with Play(Toy, workers=2) as one:
        await one.open()
        await one.play(10)
        assert semaphores() == before


PARENT = """
import asyncio, ctypes, functools, os, signal, sys, time
from pathlib import Path
sys.path[:0] = {folders!r}
from envs import Toy
from collector_harness import Play, seed_of
from test_shared_memory_collector import pids, until_ready
MARKS = Path({marks!r})
class Stuck(Toy):
    def step(self, action):
        (MARKS / str(os.getpid())).touch()
        if self.episode_seed == seed_of(1):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.episode_seed == seed_of(2):
            ctypes.PyDLL(None).sleep(60)  # as compiled code does that hangs: it keeps the interpreter's lock
        time.sleep(60)
async def main():
    one = Play(Stuck, workers=8)
    try:
        await one.open()
        await until_ready(one)
        playing = asyncio.create_task(one.play(8))
        await one.until(lambda: len(list(MARKS.iterdir())) == 8, "all play")
        print(*pids(), *(path.name for path in Path("/dev/shm").glob(f"aiotrain-{{os.getpid()}}-*")), flush=True)
        os.kill(os.getpid(), 9)
    finally:
        one.collector.abort()
asyncio.run(main())
"""


def test_killed_parent_leaves_no_worker_and_no_segment(tmp_path: Path) -> None:
    script = PARENT.format(folders=[str(each) for each in Path(__file__).parents[:2]], marks=str(tmp_path))
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        *pids, ring, weights = process.stdout.readline().split()
        assert process.wait(30) == -signal.SIGKILL
        died_s = time.monotonic()
    assert len(pids) == 8
    while left := [pid for pid in pids if is_running(int(pid))]:
        assert time.monotonic() - died_s < 2, f"workers {left} outlive their parent"
        time.sleep(0.01)
    while left := [name for name in (ring, weights) if Path("/dev/shm", name).exists()]:
        assert time.monotonic() - died_s < 2, f"segments {left} outlive their owner"
        time.sleep(0.01)

"""Worker processes: the same episodes whoever plays them, and every disaster costs only what it must."""

from __future__ import annotations

import asyncio
import concurrent.futures.process
import functools
import multiprocessing.forkserver
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from aiotrain import worker as task
from aiotrain.collect import CollectorSettings, Launch, Outcome, processes, shared_memory
from aiotrain.collect.shared_memory import SharedMemoryCollector
from aiotrain.errors import AiotrainError, EnvError, InvalidStepError, WorkerError
from aiotrain.factory import EnvFactory
from aiotrain.policy import PolicyShape
from aiotrain.ring import Trajectories
from aiotrain.status import WorkerState
from envs import BrokenFromTheStart, Endless, Toy, Trouble, Troubled, Waiting, closure
from making import weights_for

SEED = 3
WITHIN_S = 30


def seed_of(episode: int) -> int:
    return task.episode_streams(SEED, episode)[0]


def is_running(pid: int) -> bool:
    """Whether there is such a process, dead ones aside that nobody has asked about yet."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Play:
    """A collector that is told to play, with what it says along the way."""

    def __init__(self, env: Callable[..., Any] | str, *, workers: int = 1, envs: int = 1, **settings: Any) -> None:
        self.warnings: list[str] = []
        self.outcomes: list[Outcome] = []
        timeouts = {"episode_timeout_s": 60.0, "start_timeout_s": 60.0} | settings
        self.collector = SharedMemoryCollector(
            EnvFactory.of(env),
            CollectorSettings(workers=workers, envs_per_worker=envs, run_seed=SEED, **timeouts),
            self.warnings.append,
        )

    async def __aenter__(self) -> Play:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.collector.close()
        await self.collector.close()

    async def open(self, slot_steps: int = 20) -> None:
        spec = await self.collector.start()
        shape = PolicyShape.of(spec, (8,))
        await self.collector.open(shape, slot_steps)
        self.collector.publish(weights_for(shape), 0)

    async def play(self, episodes: int) -> Trajectories:
        """Play episodes 0, 1, …, each again if it is lost, until all have ended."""
        async with asyncio.timeout(WITHIN_S):
            todo, ended = list(range(episodes)), 0
            parts = []
            while ended < episodes:
                self.collector.submit_unfinished()
                while room := self.collector.room(len(todo)):
                    self.collector.submit(Launch(0, tuple(todo[:room])))
                    del todo[:room]
                for outcome in await self.collector.outcomes():
                    self.outcomes.append(outcome)
                    todo = sorted([*todo, *outcome.unused, *(lost.episode for lost in outcome.lost)])
                    if outcome.trajectories is not None:
                        parts.append(outcome.trajectories)
                        ended += int(outcome.trajectories.headers["ended"].sum())
        return Trajectories.join(parts)

    @property
    def lost(self) -> list[int]:
        return [lost.episode for outcome in self.outcomes for lost in outcome.lost]

    @property
    def pids(self) -> list[int]:
        executors = [each.executor for each in self.collector._workers if each.executor is not None]
        return [process.pid for executor in executors for process in executor._context.started if process.pid]

    async def until(self, holds: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + WITHIN_S
        while not holds():
            assert time.monotonic() < deadline, f"waited in vain until {what}"
            await asyncio.sleep(0.005)

    async def until_ready(self) -> None:
        await self.until(lambda: all(each.ready for each in self.collector._workers), "all workers are ready")


def assert_same_play(a: Trajectories, b: Trajectories) -> None:
    for name in Trajectories.__dataclass_fields__:
        left, right = getattr(a, name), getattr(b, name)
        if name == "headers":
            fields = ["episode", "fragment", "length", "seed", "ended", "terminated", "episode_return", "version"]
            left, right = left[fields], right[fields]
        np.testing.assert_array_equal(left, right, err_msg=name)


@pytest.fixture(scope="module")
def expected() -> Trajectories:
    """Thirty episodes as one worker with one environment plays them."""

    async def play() -> Trajectories:
        async with Play(Toy) as one:
            await one.open()
            return await one.play(30)

    return asyncio.run(play())


@pytest.mark.asyncio
@pytest.mark.parametrize(("workers", "envs"), [(1, 3), (3, 1), (3, 3)])
async def test_episodes_are_the_same_whoever_plays_them(expected: Trajectories, workers: int, envs: int) -> None:
    async with Play(closure(12), workers=workers, envs=envs) as one:
        await one.open()
        got = await one.play(30)
        assert got.headers["episode"].tolist() == list(range(30))
        assert_same_play(got, expected)
        assert one.lost == []
        status = one.collector.describe()
        assert sum(each.episodes for each in status.workers) == 30
        assert status.slots_in_use == 0
        assert {each.state for each in status.workers} <= {WorkerState.WAITING, WorkerState.STARTING}


@pytest.mark.asyncio
async def test_long_episodes_in_small_slots() -> None:
    async with Play(functools.partial(Toy, shortest=30, longest=60), workers=2, envs=2) as one:
        await one.open(slot_steps=7)
        got = await one.play(12)
    ended = got.headers[got.headers["ended"]]
    assert ended["episode"].tolist() == list(range(12))
    for episode, steps in zip(ended["episode"], ended["episode_steps"], strict=True):
        own = got.headers[got.headers["episode"] == episode]
        assert own["fragment"].tolist() == list(range(len(own)))
        assert own["length"].sum() == steps


@pytest.mark.asyncio
async def test_endless_episodes_make_fragments() -> None:
    async with Play(Endless, workers=1, envs=2) as one:
        await one.open(slot_steps=5)
        await one.until_ready()
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
@pytest.mark.parametrize(
    ("trouble", "words", "restarts"),
    [
        ("raise", "the simulator lost its way", 0),
        ("sys.exit", "the simulator has had enough", 0),
        ("os._exit", "exit code 3", 1),
        ("kill", "SIGKILL", 1),
        ("hang", "hung for 0.5 s and was killed", 1),
    ],
)
async def test_trouble_costs_its_episode_and_nothing_else(
    expected: Trajectories, tmp_path: Path, trouble: Trouble, words: str, restarts: int
) -> None:
    env = functools.partial(Troubled, trouble, (seed_of(4),), str(tmp_path))
    async with Play(env, workers=2, episode_timeout_s=0.5 if trouble == "hang" else 60.0) as one:
        await one.open()
        got = await one.play(30)
        status = one.collector.describe()
    assert_same_play(got, expected)
    assert one.lost == [4]
    assert words in "\n".join(one.warnings)
    assert sum(each.restarts for each in status.workers) == restarts
    for outcome in one.outcomes:
        played = [] if outcome.trajectories is None else outcome.trajectories.headers["episode"].tolist()
        fates = [*played, *outcome.unused, *(lost.episode for lost in outcome.lost)]
        assert sorted(fates) == sorted(outcome.launch.episodes), "a launched episode has no fate, or two"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("trouble", "words"),
    [("nan reward", "reward of nan"), ("nan observation", "NaN"), ("shape", "shape")],
)
async def test_invalid_steps_end_the_run_by_name(trouble: Trouble, words: str) -> None:
    async with Play(functools.partial(Troubled, trouble, (seed_of(4),)), workers=2) as one:
        await one.open()
        with pytest.raises(InvalidStepError, match=words) as caught:
            await one.play(30)
    for part in ("worker ", "episode 4", f"seed {seed_of(4)}", "step 2"):
        assert part in str(caught.value)


@pytest.mark.asyncio
async def test_what_was_sealed_before_the_death_counts(tmp_path: Path) -> None:
    env = functools.partial(Troubled, "kill", (seed_of(3),), str(tmp_path))
    async with Play(env) as one:
        await one.open()
        await one.until_ready()
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
    env = functools.partial(Troubled, "kill", [seed_of(episode) for episode in fatal], str(tmp_path))
    async with Play(env, workers=1) as one:
        await one.open()
        await one.until_ready()
        one.collector._trajectory_cpu_s = 1e-4  # as if measured: tasks are of several episodes
        played = await one.play(16)
        assert sorted(played.headers["episode"].tolist()) == list(range(16))
        assert sorted(one.lost) == list(fatal)
        assert one.collector.describe().workers[0].restarts == len(fatal)
    assert [worker.state for worker in one.collector.describe().workers] == [WorkerState.ENDED]


@pytest.mark.asyncio
async def test_worker_killed_while_it_has_nothing_to_do_is_replaced(expected: Trajectories) -> None:
    async with Play(Toy, workers=2) as one:
        await one.open()
        await one.until_ready()
        (victim, _) = one.pids
        os.kill(victim, signal.SIGKILL)
        await one.until(lambda: not psutil.pid_exists(victim), "the worker is dead")
        await one.until(lambda: one.collector._workers[0].executor._broken, "its executor knows")  # type: ignore[union-attr]
        assert_same_play(await one.play(30), expected)
        assert one.lost == [], "nothing was begun"
        assert one.collector.describe().workers[0].restarts == 1


@pytest.mark.asyncio
async def test_worker_killed_from_outside_while_it_plays(tmp_path: Path) -> None:
    async with Play(functools.partial(Waiting, str(tmp_path / "gate")), workers=2) as one:
        await one.open()
        playing = asyncio.create_task(one.play(20))
        await one.until(lambda: len(list(tmp_path.iterdir())) == 2, "both workers play")
        os.kill(one.pids[1], signal.SIGKILL)
        await one.until(lambda: one.outcomes, "the loss is told")
        (tmp_path / "gate").touch()
        got = await playing
    assert got.headers["episode"].tolist() == list(range(20)), "each episode is delivered exactly once"
    assert len(one.lost) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("where", ["init", "reset"])
@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("raise", "the simulator lost its way"),
        ("sys.exit", "SystemExit"),
        ("os._exit", "exit code 3"),
        ("kill", "SIGKILL"),
        ("hang", "not ready within 0.5 s"),
    ],
)
async def test_environment_that_cannot_start_is_told_at_once(where: str, trouble: str, words: str) -> None:
    env = functools.partial(BrokenFromTheStart, trouble, where)
    async with Play(env, start_timeout_s=0.5 if trouble == "hang" else 60.0) as one:
        with pytest.raises(EnvError, match=words):
            await asyncio.wait_for(one.collector.start(), WITHIN_S)


@pytest.mark.asyncio
async def test_environment_that_always_kills_its_worker_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "_DEATHS_IN_A_ROW", 2)
    seeds = [seed_of(episode) for episode in range(10)]
    async with Play(functools.partial(Troubled, "os._exit", seeds), workers=1) as one:
        await one.open()
        with pytest.raises(WorkerError, match="exit code 3"):
            await one.play(10)


@pytest.mark.asyncio
@pytest.mark.parametrize("moment", ["unstarted", "starting", "started", "opened", "playing", "aborted"])
async def test_closing_at_any_time_leaves_nothing(moment: str, tmp_path: Path) -> None:
    """What is left, the fixture finds."""
    one = Play(functools.partial(Waiting, str(tmp_path / "gate")), workers=3)
    if moment == "starting":
        starting = asyncio.create_task(one.collector.start())
        await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait([starting])
    elif moment != "unstarted":
        await one.collector.start()
    if moment in ("opened", "playing", "aborted"):
        await one.open()
    if moment in ("playing", "aborted"):
        playing = asyncio.create_task(one.play(20))
        await one.until(lambda: list(tmp_path.iterdir()), "a worker plays")
        playing.cancel()
        await asyncio.wait([playing])
    if moment == "aborted":
        pids = one.pids
        one.collector.abort()
        await one.until(lambda: not any(is_running(pid) for pid in pids), "the workers are dead")
    (tmp_path / "gate").touch()
    async with asyncio.timeout(WITHIN_S):
        await one.collector.close()
        await one.collector.close()


@pytest.mark.asyncio
async def test_environments_are_closed_when_their_workers_end(tmp_path: Path) -> None:
    class Closing(Toy):
        def close(self) -> None:
            (tmp_path / f"{os.getpid()}-{id(self)}").touch()

    async with Play(Closing, workers=2, envs=3) as one:
        await one.open()
        await one.until_ready()
        pids = one.pids
        assert not list(tmp_path.iterdir())
    assert sorted(int(path.name.split("-")[0]) for path in tmp_path.iterdir()) == sorted(3 * pids)


@pytest.mark.asyncio
async def test_ctrl_c_is_ignored_by_workers_and_by_what_starts_them() -> None:
    """A terminal sends it to the whole process group; the main process alone decides."""
    async with Play(Toy, workers=2) as one:
        await one.open()
        await one.until_ready()
        for pid in (*one.pids, multiprocessing.forkserver._forkserver._forkserver_pid):  # type: ignore[attr-defined]
            masks = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            assert int(masks["SigIgn"], 16) >> (signal.SIGINT - 1) & 1


@pytest.mark.asyncio
async def test_no_thread_of_a_worker_outlives_close(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither of one that was lost and replaced, nor of one that ends with the collector."""
    manager = concurrent.futures.process._ExecutorManagerThread  # type: ignore[attr-defined]
    end = manager.join_executor_internals

    late = threading.Event()

    def ends_late(thread: threading.Thread) -> None:
        end(thread)
        assert late.wait(WITHIN_S)

    monkeypatch.setattr(manager, "join_executor_internals", ends_late)
    async with Play(functools.partial(Troubled, "kill", (seed_of(3),), str(tmp_path))) as one:
        await one.open()
        await one.play(5)
        managers = [thread for thread in threading.enumerate() if isinstance(thread, manager)]
        asyncio.get_running_loop().call_later(0.3, late.set)
    assert one.lost == [3]
    assert len(managers) == 2
    assert not [thread for thread in threading.enumerate() if isinstance(thread, manager)]


@pytest.mark.asyncio
async def test_worker_that_does_not_end_when_asked_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processes, "_GRACE_S", 0.1)

    class Stubborn(Waiting):
        def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            return super().step(action)

    monkeypatch.setattr(processes, "_TERM_S", 0.2)
    async with Play(functools.partial(Stubborn, str(tmp_path / "gate"))) as one:
        await one.open()
        playing = asyncio.create_task(one.play(5))
        await one.until(lambda: list(tmp_path.iterdir()), "the worker plays")
        (pid,) = one.pids
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
sys.path.insert(0, {tests!r})
from envs import Toy
from test_collector import Play, seed_of
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
        await one.until_ready()
        playing = asyncio.create_task(one.play(8))
        await one.until(lambda: len(list(MARKS.iterdir())) == 8, "all play")
        print(*one.pids, one.collector._ring.name, one.collector._weights.name, flush=True)
        os.kill(os.getpid(), 9)
    finally:
        one.collector.abort()
asyncio.run(main())
"""


def test_killed_parent_leaves_no_worker_and_no_segment(tmp_path: Path) -> None:
    script = PARENT.format(tests=str(Path(__file__).parent), marks=str(tmp_path))
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


def test_errors_survive_the_way_between_processes() -> None:
    import pickle

    def tree(cls: type[AiotrainError]) -> list[type[AiotrainError]]:
        return [cls, *(each for child in cls.__subclasses__() for each in tree(child))]

    for cls in tree(AiotrainError):
        assert str(pickle.loads(pickle.dumps(cls("what happened")))) == "what happened"

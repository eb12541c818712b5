"""Ray, a real one on this machine: actors, the nodes of a cluster, and what happens when they go."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from aiotrain.collect import Launch, Outcome
from aiotrain.collect.making import make_collector
from aiotrain.collect.ray import ActorCollector
from aiotrain.collect.ray_cluster import ClusterCollector
from aiotrain.config import Config
from aiotrain.errors import ConfigError, InvalidStepError, WorkerError
from aiotrain.factory import EnvFactory
from aiotrain.policy import PolicyShape
from aiotrain.ring import Trajectories
from aiotrain.status import WorkerState
from aiotrain.worker import episode_streams
from envs import Toy, Trouble, Troubled, Waiting
from making import weights_for

SEED = 3
SLOT_STEPS = 5
WITHIN_S = 60
LOCAL, CLUSTER = "local", "auto"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes with a CPU each, and a head without, to which this process is connected."""
    handler = signal.getsignal(signal.SIGTERM)
    soon = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": soon}  # to notice soon that a node is lost
    nodes = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            nodes.add_node()
        ray.init(nodes.address, configure_logging=False, log_to_driver=False)
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()
        signal.signal(signal.SIGTERM, handler)


def seed_of(episode: int) -> int:
    return episode_streams(SEED, episode)[0]


class Play:
    """A collector that is told to play, with what became of every launch."""

    def __init__(self, address: str, env: Callable[..., Any] = Toy, **settings: Any) -> None:
        self.warnings: list[str] = []
        self.outcomes: list[Outcome] = []
        self.launched: Counter[int] = Counter()
        defaults: dict[str, Any] = {"collector": "ray", "ray_address": address, "workers": 2}
        config = Config(env=env, workflow="none", seed=SEED, **defaults | settings)
        factory = EnvFactory.of(env, max_episode_steps=1000)
        collector = make_collector(config, factory, self.warnings.append)
        assert isinstance(collector, ActorCollector | ClusterCollector)
        self.collector = collector

    async def __aenter__(self) -> Play:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.collector.close()
        await self.collector.close()

    async def open(self) -> None:
        spec = await self.collector.start()
        self.shape = PolicyShape.of(spec, (8,))
        await self.collector.open(self.shape, SLOT_STEPS)
        self.collector.publish(weights_for(self.shape), 0)

    async def play(self, episodes: int) -> Trajectories:
        """Play episodes 0, 1, …, each again if it is lost, until all have ended."""
        async with asyncio.timeout(WITHIN_S):
            todo, ended = list(range(episodes)), 0
            parts = []
            while ended < episodes:
                self.collector.submit_unfinished()
                while room := self.collector.room(len(todo)):
                    self.launched.update(todo[:room])
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

    def assert_every_launched_episode_has_one_fate(self) -> None:
        for outcome in self.outcomes:
            played = [] if outcome.trajectories is None else set(outcome.trajectories.headers["episode"].tolist())
            fates = [*played, *outcome.unused, *(lost.episode for lost in outcome.lost)]
            assert sorted(fates) == sorted(outcome.launch.episodes), "a launched episode has no fate, or two"
        assert Counter(episode for each in self.outcomes for episode in each.launch.episodes) == self.launched


async def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        await asyncio.sleep(0.01)


def assert_same_play(a: Trajectories, b: Trajectories) -> None:
    fields = ["episode", "fragment", "length", "seed", "ended", "terminated", "episode_return", "version"]
    for name in Trajectories.__dataclass_fields__:
        left, right = getattr(a, name), getattr(b, name)
        if name == "headers":
            left, right = left[fields], right[fields]
        np.testing.assert_array_equal(left, right, err_msg=name)


@pytest.fixture(scope="module")
def expected() -> Trajectories:
    """Thirty episodes as workers play them that share memory, some in several fragments."""

    async def play() -> Trajectories:
        factory, config = EnvFactory.of(Toy), Config(env=Toy, workflow="none", seed=SEED, workers=1)
        collector = make_collector(config, factory, print)
        try:
            shape = PolicyShape.of(await collector.start(), (8,))
            await collector.open(shape, SLOT_STEPS)
            collector.publish(weights_for(shape), 0)
            todo, parts = list(range(30)), []
            while todo or sum(int(part.headers["ended"].sum()) for part in parts) < 30:
                collector.submit_unfinished()
                while room := collector.room(len(todo)):
                    collector.submit(Launch(0, tuple(todo[:room])))
                    del todo[:room]
                for outcome in await collector.outcomes():
                    todo += outcome.unused
                    parts += [] if outcome.trajectories is None else [outcome.trajectories]
        finally:
            await collector.close()
        return Trajectories.join(parts)

    return asyncio.run(play())


@pytest.mark.asyncio
@pytest.mark.parametrize("address", [LOCAL, CLUSTER])
async def test_episodes_are_those_of_workers_that_share_memory(
    cluster: Cluster, expected: Trajectories, address: str
) -> None:
    async with Play(address, envs_per_worker=2) as one:
        await one.open()
        await until(lambda: len(one.collector._actors) == 2, "both actors are there")
        got = await one.play(30)
        assert_same_play(got, expected)
        one.assert_every_launched_episode_has_one_fate()
        status = one.collector.describe()
        assert sum(each.episodes for each in status.workers) == 30
        assert len(status.workers) == (2 if address == LOCAL else 4)
        assert status.busy_s > 0
    assert {each.state for each in one.collector.describe().workers} == {WorkerState.ENDED}
    assert one.lost == []
    assert one.warnings == []


@pytest.mark.asyncio
async def test_versions_that_a_node_never_saw(cluster: Cluster) -> None:
    async with Play(CLUSTER) as one:
        await one.open()
        for version in (0, 1, 4, 6):
            if version:
                one.collector.publish(weights_for(one.shape, version), version)
            got = await one.play(4)
            assert set(got.headers["version"]) == {version}


# -------------------------------------------------------------------- disasters


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("address", "trouble", "words"),
    [
        (LOCAL, "os._exit", "process was lost"),
        (LOCAL, "hang", "hung for 1 s and was killed"),
        (CLUSTER, "os._exit", "exit code 3"),
    ],
)
async def test_trouble_costs_its_episode_and_nothing_else(
    cluster: Cluster, expected: Trajectories, tmp_path: Path, address: str, trouble: Trouble, words: str
) -> None:
    env = functools.partial(Troubled, trouble, (seed_of(4),), str(tmp_path))
    async with Play(address, env, episode_timeout_s=1.0 if trouble == "hang" else 60.0) as one:
        await one.open()
        assert_same_play(await one.play(30), expected)
        status = one.collector.describe()
    assert one.lost == [4]
    (reason,) = (lost.reason for outcome in one.outcomes for lost in outcome.lost)
    assert words in reason
    assert address == LOCAL or reason.startswith("node ")
    assert any(words in warning for warning in one.warnings)
    assert sum(each.restarts for each in status.workers) == 1
    one.assert_every_launched_episode_has_one_fate()


@pytest.mark.asyncio
@pytest.mark.parametrize("address", [LOCAL, CLUSTER])
async def test_invalid_steps_end_the_run_by_name(cluster: Cluster, address: str) -> None:
    async with Play(address, functools.partial(Troubled, "nan reward", (seed_of(4),))) as one:
        await one.open()
        with pytest.raises(InvalidStepError, match=rf"worker \d, episode 4, seed {seed_of(4)}, step 2.*reward of nan"):
            await one.play(30)


@pytest.mark.asyncio
async def test_nodes_join_and_are_lost(cluster: Cluster, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with Play(CLUSTER, functools.partial(Waiting, str(gate))) as one:
        await one.open()
        await until(lambda: len(one.collector._actors) == 2, "both nodes are there")
        node = cluster.add_node()
        await until(lambda: len(one.collector._actors) == 3, "the third node is there")
        playing = asyncio.create_task(one.play(60))
        await until(lambda: len(list(tmp_path.iterdir())) == 6, "two workers play on each of three nodes")
        doomed = [each.pid for each in psutil.Process(node.all_processes["raylet"][0].process.pid).children(True)]
        assert {int(path.suffix[1:]) for path in tmp_path.iterdir()} & set(doomed), "the third node plays"
        cluster.remove_node(node, allow_graceful=False)
        await until(lambda: one.lost, "the loss is told")
        gate.touch()
        got = await playing
        assert got.headers["episode"][got.headers["ended"]].tolist() == list(range(60)), "each is delivered once"
        await until(lambda: len(one.collector.describe().workers) == 4, "the lost node is shown no more")
    one.assert_every_launched_episode_has_one_fate()
    assert len(set(one.lost)) == len(one.lost), "an episode is lost once"
    reasons = {lost.reason.split(": ", 1)[1] for outcome in one.outcomes for lost in outcome.lost}
    assert len(reasons) == 1
    assert reasons.pop().startswith(f"node {node.node_ip_address}:")
    await until(lambda: not any(psutil.pid_exists(pid) for pid in doomed), "the lost node's processes are gone")
    segments = [path.name for path in Path("/dev/shm").glob("aiotrain-*")]
    assert not [name for name in segments if int(name.split("-")[1]) in doomed]


@pytest.mark.asyncio
async def test_run_fails_when_no_node_is_left(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "nodes", list)
    async with Play(CLUSTER) as one:
        await one.open()
        one.collector._settings = dataclasses.replace(one.collector._settings, start_timeout_s=0.5)
        with pytest.raises(WorkerError, match=r"no node of the Ray cluster \(auto\) has been ready for 0.5 s"):
            await one.play(1)


@pytest.mark.asyncio
@pytest.mark.parametrize("moment", ["unstarted", "started", "opened", "playing", "aborted"])
@pytest.mark.parametrize("address", [LOCAL, CLUSTER])
async def test_closing_at_any_time_leaves_nothing(cluster: Cluster, tmp_path: Path, address: str, moment: str) -> None:
    """What is left, the fixture finds."""
    gate = tmp_path / "gate"
    one = Play(address, functools.partial(Waiting, str(gate)))
    if moment == "started":
        await one.collector.start()
    elif moment != "unstarted":
        await one.open()
    pids = []
    if moment in ("playing", "aborted"):
        playing = asyncio.create_task(one.play(20))
        await until(lambda: list(tmp_path.iterdir()), "a worker plays")
        pids = [int(path.suffix[1:]) for path in tmp_path.iterdir()]
        playing.cancel()
        await asyncio.wait([playing])
    if moment == "aborted":
        one.collector.abort()
        await until(lambda: not any(psutil.pid_exists(pid) for pid in pids), "the workers are dead")
    gate.touch()
    async with asyncio.timeout(WITHIN_S):
        await one.collector.close()
        await one.collector.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


OWN = """
import asyncio, logging, os, sys, psutil, signal, threading
sys.path.insert(0, {tests!r})
from test_ray import Play, Toy
import ray
def held():
    return dict(os.environ), signal.getsignal(signal.SIGTERM), threading.enumerate(), logging.getLogger("ray").level
async def main():
    terminated = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    before = held()
    for address in ("local", "127.0.0.1:1"):
        async with Play(address) as one:
            try:
                await one.open()
                await one.play(5)
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.wait_for(terminated.wait(), 10)
                print(ray.is_initialized(), len(one.collector.describe().workers))
            except ValueError as error:
                print(error)
    assert not ray.is_initialized()
    assert held()[:2] + held()[3:] == before[:2] + before[3:]
asyncio.run(main())
lines = [" ".join(each.cmdline()) for each in psutil.Process().children(True)]
print([line for line in lines if "multiprocessing" not in line])
print([each.name for each in threading.enumerate()])
"""


def test_ray_of_ones_own_is_silent_and_leaves_nothing() -> None:
    others = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # the names of sockets must not be long
        done = subprocess.run(
            [sys.executable, "-c", OWN.format(tests=str(Path(__file__).parent))],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            env=others | {"RAY_TMPDIR": folder},
        )
        assert not os.listdir(folder)
    assert done.stderr == ""
    assert done.returncode == 0
    played, refused, processes, threads = done.stdout.splitlines()
    assert played == "True 2"
    assert refused.startswith("ray-address: Ray at 127.0.0.1:1 cannot be used: ")
    assert (processes, threads) == ("[]", "['MainThread']")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ray_address": "auto"}, "ray-address (auto) means nothing to collector shared_memory"),
        ({"collector": "ray", "ray_address": "head"}, "ray-address must be local, auto or HOST:PORT, not 'head'"),
        ({"collector": "ray", "ray_address": "ray://head:1"}, "ray-address must be local, auto or HOST:PORT"),
    ],
)
def test_addresses_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Config(env=Toy, workflow="none", **settings)


def test_without_ray_a_word_on_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("aiotrain.collect.ray", "aiotrain.collect.ray_cluster", "aiotrain.collect.ray_session"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'aiotrain\[ray\]'"):
        make_collector(Config(env=Toy, workflow="none", collector="ray"), EnvFactory.of(Toy), print)

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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from aiotrain.collect.choose_collector import make_collector
from aiotrain.collect.protocol import WorkerState
from aiotrain.config import Config
from aiotrain.errors import ConfigError, InvalidStepError, WorkerError
from aiotrain.play.env_factory import EnvFactory
from aiotrain.testing import faulty
from aiotrain.transport.trajectories import Trajectories
from collector_harness import SEED, WITHIN_S, Play, assert_same_play, seed_of
from envs import Toy, Waiting
from sample_data import weights_for

SLOT_STEPS = 5


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


def player(env: Callable[..., Any] = Toy, **settings: Any) -> Play:
    """On the nodes of the cluster, with two workers each."""
    return Play(env, "ray", **{"ray_address": "auto", "workers": 2, "max_episode_steps": 1000} | settings)


@pytest.fixture(scope="module")
def expected() -> Trajectories:
    """Thirty episodes as workers play them that share memory, some in several fragments."""

    async def play() -> Trajectories:
        async with Play(Toy) as one:
            await one.open(SLOT_STEPS)
            return await one.play(30)

    return asyncio.run(play())


@pytest.mark.asyncio
async def test_episodes_are_those_of_workers_that_share_memory(cluster: Cluster, expected: Trajectories) -> None:
    async with player(envs=2) as one:
        await one.open(SLOT_STEPS)
        await one.until(lambda: len(one.collector._actors) == 2, "both nodes are there")
        assert_same_play(await one.play(30), expected)
        one.assert_one_fate_each()
        status = one.collector.describe()
        assert sum(each.episodes for each in status.workers) == 30
        assert len(status.workers) == 4
        assert status.busy_s > 0
    assert {each.state for each in one.collector.describe().workers} == {WorkerState.ENDED}
    assert one.lost == []
    assert one.warnings == []


@pytest.mark.asyncio
async def test_versions_that_a_node_never_saw(cluster: Cluster) -> None:
    async with player() as one:
        await one.open()
        for version in (0, 1, 4, 6):
            if version:
                one.collector.publish(weights_for(one.shape, version), version)
            got = await one.play(4)
            assert set(got.headers["version"]) == {version}


# -------------------------------------------------------------------- disasters


@pytest.mark.asyncio
async def test_death_costs_its_episode_and_nothing_else(
    cluster: Cluster, expected: Trajectories, tmp_path: Path
) -> None:
    async with player(faulty(Toy, "os._exit", episodes=[4], run_seed=SEED, marks=tmp_path)) as one:
        await one.open(SLOT_STEPS)
        assert_same_play(await one.play(30), expected)
        status = one.collector.describe()
    assert one.lost == [4]
    (reason,) = (lost.reason for outcome in one.outcomes for lost in outcome.lost)
    assert reason.startswith("node ")
    assert "exit code 3" in reason
    assert any("exit code 3" in warning for warning in one.warnings)
    assert sum(each.restarts for each in status.workers) == 1
    one.assert_one_fate_each()


@pytest.mark.asyncio
async def test_invalid_steps_end_the_run_by_name(cluster: Cluster) -> None:
    async with player(faulty(Toy, "nan", episodes=[4], run_seed=SEED)) as one:
        await one.open()
        with pytest.raises(InvalidStepError, match=rf"worker \d, episode 4, seed {seed_of(4)}, step 2.*reward of nan"):
            await one.play(30)


@pytest.mark.asyncio
async def test_nodes_join_and_are_lost(cluster: Cluster, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with player(functools.partial(Waiting, str(gate))) as one:
        await one.open()
        await one.until(lambda: len(one.collector._actors) == 2, "both nodes are there")
        node = cluster.add_node()
        await one.until(lambda: len(one.collector._actors) == 3, "the third node is there")
        playing = asyncio.create_task(one.play(60))
        await one.until(lambda: len(list(tmp_path.iterdir())) == 6, "two workers play on each of three nodes")
        doomed = [each.pid for each in psutil.Process(node.all_processes["raylet"][0].process.pid).children(True)]
        assert {int(path.suffix[1:]) for path in tmp_path.iterdir()} & set(doomed), "the third node plays"
        cluster.remove_node(node, allow_graceful=False)
        await one.until(lambda: one.lost, "the loss is told")
        gate.touch()
        got = await playing
        assert got.headers["episode"][got.headers["ended"]].tolist() == list(range(60)), "each is delivered once"
        await one.until(lambda: len(one.collector.describe().workers) == 4, "the lost node is shown no more")
    one.assert_one_fate_each()
    assert len(set(one.lost)) == len(one.lost), "an episode is lost once"
    reasons = {lost.reason.split(": ", 1)[1] for outcome in one.outcomes for lost in outcome.lost}
    assert len(reasons) == 1
    assert reasons.pop().startswith(f"node {node.node_ip_address}:")
    await one.until(lambda: not any(psutil.pid_exists(pid) for pid in doomed), "the lost node's processes are gone")
    segments = [path.name for path in Path("/dev/shm").glob("aiotrain-*")]
    assert not [name for name in segments if int(name.split("-")[1]) in doomed]


@pytest.mark.asyncio
async def test_run_fails_when_no_node_is_left(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "nodes", list)
    async with player() as one:
        await one.open()
        one.collector._settings = dataclasses.replace(one.collector._settings, start_timeout_s=0.5)
        with pytest.raises(WorkerError, match=r"no node of the Ray cluster \(auto\) has been ready for 0.5 s"):
            await one.play(1)


@pytest.mark.asyncio
@pytest.mark.parametrize("moment", ["unstarted", "started", "opened", "playing", "aborted"])
async def test_closing_at_any_time_leaves_nothing(cluster: Cluster, tmp_path: Path, moment: str) -> None:
    """What is left, the fixture finds."""
    gate = tmp_path / "gate"
    one = player(functools.partial(Waiting, str(gate)))
    if moment == "started":
        await one.collector.start()
    elif moment != "unstarted":
        await one.open()
    pids = []
    if moment in ("playing", "aborted"):
        playing = asyncio.create_task(one.play(20))
        await one.until(lambda: list(tmp_path.iterdir()), "a worker plays")
        pids = [int(path.suffix[1:]) for path in tmp_path.iterdir()]
        playing.cancel()
        await asyncio.wait([playing])
    if moment == "aborted":
        one.collector.abort()
        await one.until(lambda: not any(psutil.pid_exists(pid) for pid in pids), "the workers are dead")
    gate.touch()
    async with asyncio.timeout(WITHIN_S):
        await one.collector.close()
        await one.collector.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


OWN = """
import asyncio, logging, os, sys, psutil, signal, threading
sys.path[:0] = {folders!r}
from test_ray import player
import ray
def held():
    return dict(os.environ), signal.getsignal(signal.SIGTERM), threading.enumerate(), logging.getLogger("ray").level
async def main():
    terminated = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    before = held()
    for address in ("local", "127.0.0.1:1"):
        async with player(ray_address=address) as one:
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
            [sys.executable, "-c", OWN.format(folders=[str(each) for each in Path(__file__).parents[:2]])],
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
        Config(env=Toy, **settings)


def test_without_ray_a_word_on_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("aiotrain.collect.ray_actors", "aiotrain.collect.ray_cluster", "aiotrain.collect.ray_session"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'aiotrain\[ray\]'"):
        make_collector(Config(env=Toy, collector="ray"), SEED, EnvFactory.of(Toy), print)

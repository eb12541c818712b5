"""What every collector promises: the same episodes whoever plays them, each delivered, lost or returned exactly once,
and nothing left behind. What is special to one of them is tested in a file of its own."""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray

from aiotrain.cage2 import CAGE2_ID
from aiotrain.collect.protocol import Launch, WorkerState
from aiotrain.config import Config
from aiotrain.errors import AiotrainError, ConfigError, EnvError, InvalidStepError
from aiotrain.play.policy import NumpyPolicy
from aiotrain.testing import Fault, Moment, cause, faulty
from aiotrain.training.trainer import Trainer
from aiotrain.transport.trajectories import Trajectories
from envs import (
    Action,
    Endless,
    Interrupted,
    Masked,
    Observation,
    Paid,
    Toy,
    Waiting,
    failing_later,
)
from making import weights_for
from playing import COLLECTORS, LIMITED, SEED, WITHIN_S, Play, assert_same_play, seed_of

SEPARATE = [name for name in COLLECTORS if name != "sequential"]  # whose environments are in other processes
LIMIT = 1_000  # steps, for the collectors that cannot do without


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    """One for all tests here: it takes seconds to start."""
    handler = signal.getsignal(signal.SIGTERM)
    ray.init("local", include_dashboard=False, object_store_memory=2**27, configure_logging=False, log_to_driver=False)
    yield
    ray.shutdown()
    signal.signal(signal.SIGTERM, handler)


every = pytest.mark.parametrize("collector", COLLECTORS)
every_separate = pytest.mark.parametrize("collector", SEPARATE)


def player(env: Callable[..., Any] | str, collector: str, **settings: Any) -> Play:
    return Play(env, collector, **({"max_episode_steps": LIMIT} | settings))


async def expected(
    env: Callable[..., Any] | str, episodes: int, options: Sequence[dict[str, Any]] = (), **settings: Any
) -> Trajectories:
    """The episodes as they are played in this process, one after the other."""
    async with player(env, "sequential", **settings) as one:
        await one.open()
        return await one.play(episodes, options)


# ------------------------------------------------------------ the same episodes


@every
@pytest.mark.parametrize(
    ("observation", "action", "workers", "envs"),
    [("box", "discrete", 1, 1), ("bits", "shifted", 2, 3), ("one_hot", "gaussian", 3, 2)],
)
@pytest.mark.asyncio
async def test_episodes_are_the_same_whoever_plays_them(
    collector: str, observation: Observation, action: Action, workers: int, envs: int
) -> None:
    env = functools.partial(Toy, observation, action)
    async with player(env, collector, workers=workers, envs=envs) as one:
        await one.open()
        got = await one.play(14)
        status = one.collector.describe()
    assert got.headers["episode"].tolist() == list(range(14))
    assert_same_play(got, await expected(env, 14))
    one.assert_one_fate_each()
    assert one.lost == []
    assert sum(each.episodes for each in status.workers) == 14
    counted = np.bincount(got.headers["worker"][got.headers["ended"]], minlength=len(status.workers))
    assert counted.tolist() == [each.episodes for each in status.workers]
    assert one.warnings == []


@every
@pytest.mark.asyncio
async def test_action_masks_are_kept_by_all(collector: str) -> None:
    async with player(Masked, collector, workers=2, envs=2) as one:
        await one.open()
        got = await one.play(6)
    assert_same_play(got, await expected(Masked, 6))
    assert got.masks.shape == (got.steps, 5)
    assert (got.masks[np.arange(got.steps), got.actions] == 1).all()
    assert not got.masks.all()


@every
@pytest.mark.asyncio
async def test_each_episode_has_its_own_options(collector: str) -> None:
    async with player(Paid, collector, workers=2, envs=2) as one:
        await one.open()
        got = await one.play(8, [{"worth": float(episode)} for episode in range(8)])
    assert np.unique(got.rewards).tolist() == list(range(8))
    assert (got.headers["episode_return"] == got.headers["episode"] * got.headers["episode_steps"]).all()


@every
@pytest.mark.parametrize("simulator", ["compiled", "cyborg"])
@pytest.mark.asyncio
async def test_cage_2_is_the_same_whoever_plays_it(collector: str, simulator: str) -> None:
    """It tells an alignment, which becomes a bonus, and its compiled engine is played by compiled code where it can."""
    settings = {"simulator": simulator, "workflow": "critical_first", "max_episode_steps": 60}
    async with player(CAGE2_ID, collector, workers=1, envs=3, **settings) as one:
        await one.open()
        got = await one.play(3)
    within = 1e-5 if simulator == "compiled" else 0.0
    assert_same_play(got, await expected(CAGE2_ID, 3, **settings), log_prob_within=within)
    assert np.isfinite(got.headers["compliance"]).any()
    assert got.bonuses.any()


@every
@pytest.mark.asyncio
async def test_a_training_comes_to_the_same_weights_whoever_plays(collector: str) -> None:
    """Without lag: with it, timing decides which version plays what."""
    here = await trained("sequential", envs_per_worker=1)
    there = await trained(collector, envs_per_worker=2)
    np.testing.assert_array_equal(here, there)


async def trained(collector: str, **settings: Any) -> Any:
    async with Trainer(training(Toy, collector, total_episodes=18, **settings)) as trainer:
        async with asyncio.timeout(WITHIN_S):
            updates = [update async for update in trainer]
        assert len(updates) == 3
        return trainer.result().weights


def training(env: Callable[..., Any], collector: str, **settings: Any) -> Config:
    defaults = {"episodes_per_update": 6, "max_policy_lag": 0, "workers": 2, "max_episode_steps": LIMIT}
    return Config(env=env, collector=collector, seed=4, device="cpu", **(defaults | settings))  # type: ignore[arg-type]


@every
@pytest.mark.asyncio
async def test_each_trajectory_has_the_version_that_played_it(collector: str) -> None:
    """Versions are published while it plays; the log-probabilities tell which one it was."""
    versions = itertools.count(1)
    async with player(functools.partial(Toy, shortest=20, longest=30), collector, workers=2) as one:
        await one.open(slot_steps=8)

        def publish() -> None:
            version = next(versions)
            one.collector.publish(weights_for(one.shape, version), version)

        got = await one.play(10, after=publish)
    policy = NumpyPolicy(one.shape)
    ends = np.cumsum(got.headers["length"])
    for header, end in zip(got.headers, ends, strict=True):
        rows = slice(end - header["length"], end)
        policy.parameters[:] = weights_for(one.shape, int(header["version"]))
        policy.refresh()
        head = policy.head(got.observations[rows])
        log_probs = head - np.log(np.exp(head).sum(axis=1, keepdims=True))
        chosen = log_probs[np.arange(len(head)), got.actions[rows]]
        np.testing.assert_allclose(chosen, got.log_probs[rows], atol=1e-5)
    assert len(np.unique(got.headers["version"])) > 1


# ----------------------------------------------------------------- long episodes


@every
@pytest.mark.asyncio
async def test_long_episodes_come_as_fragments_in_their_order(collector: str) -> None:
    env = functools.partial(Toy, shortest=30, longest=60)
    async with player(env, collector, workers=2, envs=2) as one:
        await one.open(slot_steps=7)
        got = await one.play(8)
    ended = got.headers[got.headers["ended"]]
    assert ended["episode"].tolist() == list(range(8))
    for episode, steps in zip(ended["episode"], ended["episode_steps"], strict=True):
        own = got.headers[got.headers["episode"] == episode]
        assert own["fragment"].tolist() == list(range(len(own)))
        assert own["length"].sum() == steps
    whole = await expected(env, 8)
    np.testing.assert_array_equal(got.rewards, whole.rewards)
    np.testing.assert_array_equal(got.observations, whole.observations)


@every
@pytest.mark.asyncio
async def test_endless_environments_are_cut_or_refused(collector: str) -> None:
    async with Play(Endless, collector, envs=2) as one:
        if collector in LIMITED:
            with pytest.raises(ConfigError, match=r"Endless tells no time limit.*--max-episode-steps"):
                await one.open()
            return
        await one.open(slot_steps=5)
        fragments: list[tuple[int, int]] = []
        async with asyncio.timeout(WITHIN_S):
            while one.collector.room(2) < 2:
                await one.collector.outcomes()
            one.collector.submit(Launch(0, (0, 1)))
            while len(fragments) < 6:
                one.collector.submit_unfinished()
                for outcome in await one.collector.outcomes():
                    assert outcome.trajectories is not None
                    fragments += outcome.trajectories.headers[["episode", "fragment"]].tolist()
    assert sorted(fragments) == [(episode, fragment) for episode in (0, 1) for fragment in (0, 1, 2)]


# -------------------------------------------------------------------- disasters

TROUBLES: dict[Fault, str] = {
    "raise": "RuntimeError: a fault that was injected",
    "sys.exit": "SystemExit: a fault that was injected",
    "os._exit": "exit code 3",
    "kill": "SIGKILL",
    "hang": "hung for",
}
RAYS_WORDS = "the actor's process was lost"  # it does not tell how


def words_for(collector: str, trouble: Fault) -> str:
    return RAYS_WORDS if collector == "ray" and trouble in ("os._exit", "kill") else TROUBLES[trouble]


SHORT = {"episode_timeout_s": 0.4, "start_timeout_s": 3.0}


def each_in(*troubles: Fault) -> Any:
    """Every collector in each of these troubles; what ends or hangs its process, only where that is not this one."""
    survived = dict.fromkeys(SEPARATE, troubles)
    survived["sequential"] = tuple(each for each in troubles if each in ("raise", "sys.exit"))
    return pytest.mark.parametrize(("collector", "trouble"), [(c, t) for c in COLLECTORS for t in survived[c]])


@each_in("raise", "sys.exit", "os._exit", "kill", "hang")
@pytest.mark.asyncio
async def test_trouble_costs_its_episode_and_nothing_else(collector: str, trouble: Fault, tmp_path: Path) -> None:
    await play_through_trouble(collector, trouble, "step", tmp_path)


@each_in("raise", "os._exit")
@pytest.mark.asyncio
async def test_trouble_in_a_reset_costs_no_more(collector: str, trouble: Fault, tmp_path: Path) -> None:
    await play_through_trouble(collector, trouble, "reset", tmp_path)


async def play_through_trouble(collector: str, trouble: Fault, at: Moment, tmp_path: Path) -> None:
    env = faulty(Toy, trouble, at=at, episodes=[4], run_seed=SEED, marks=tmp_path)
    async with player(env, collector, workers=2, **(SHORT if trouble == "hang" else {})) as one:
        await one.open()
        got = await one.play(8)
        status = one.collector.describe()
    assert_same_play(got, await expected(Toy, 8))
    one.assert_one_fate_each()
    (victim,) = one.lost
    # With its process, Ray may lose the answer before, which then is the one to be blamed.
    assert victim == 4 or (collector == "ray" and victim < 4)
    assert words_for(collector, trouble) in "\n".join(one.warnings)
    (lost,) = (lost for outcome in one.outcomes for lost in outcome.lost)
    assert (lost.episode, lost.seed, lost.worker in (0, 1)) == (victim, seed_of(victim), True)
    for part in (f"worker {lost.worker}", f"episode {victim}", f"seed {lost.seed}", words_for(collector, trouble)):
        assert part in lost.reason
    if trouble not in ("raise", "sys.exit"):
        assert sum(each.restarts for each in status.workers) >= 1


@pytest.mark.parametrize(
    ("collector", "lost"), [("shared_memory", []), ("process_per_episode", [4]), ("executor", [4])]
)
@pytest.mark.asyncio
async def test_death_in_the_middle_of_an_answer_costs_its_task(collector: str, lost: list[int], tmp_path: Path) -> None:
    """Nobody waits for the other half for ever. Where episodes do not travel in the answer, they count."""
    env = functools.partial(Interrupted, seed_of(4), str(tmp_path / "mark"))
    async with player(env, collector, workers=2, **SHORT) as one:
        await one.open()
        got = await one.play(8)
    assert_same_play(got, await expected(Toy, 8))
    assert one.lost == lost


@every
@pytest.mark.parametrize(("trouble", "at", "words"), [("nan", "reset", "NaN"), ("shape", "step", "shape")])
@pytest.mark.asyncio
async def test_invalid_steps_end_the_run_by_name(collector: str, trouble: Fault, at: Moment, words: str) -> None:
    env = faulty(Toy, trouble, at=at, episodes=[4], run_seed=SEED)
    async with player(env, collector, workers=2) as one:
        await one.open()
        with pytest.raises(InvalidStepError, match=words) as caught:
            await one.play(8)
    for part in ("worker ", "episode 4", f"seed {seed_of(4)}", f"step {0 if at == 'reset' else 2}"):
        assert part in str(caught.value)
    error = caught.value
    assert (error.episode, error.seed, error.step) == (4, seed_of(4), 0 if at == "reset" else 2)
    assert f"worker {error.worker}" in str(error)


@every
@pytest.mark.asyncio
async def test_info_that_cannot_travel_costs_nothing(collector: str) -> None:
    async with player(faulty(Toy, "unpicklable"), collector) as one:
        await one.open()
        got = await one.play(4)
    assert_same_play(got, await expected(Toy, 4))
    assert one.lost == []


@every
@pytest.mark.asyncio
async def test_factory_that_fails_later_costs_a_task(collector: str, tmp_path: Path) -> None:
    async with player(failing_later(4, SEED, tmp_path), collector, workers=2) as one:
        await one.open()
        got = await one.play(8)
    assert_same_play(got, await expected(Toy, 8))
    one.assert_one_fate_each()
    assert (tmp_path / "refused").exists()
    assert 4 in one.lost
    assert len(one.lost) <= 2
    assert "no licence" in "\n".join(one.warnings)


@each_in("raise", "os._exit")
@pytest.mark.asyncio
async def test_environment_that_cannot_be_played_ends_the_run(collector: str, trouble: Fault) -> None:
    env = faulty(Toy, trouble)
    async with Trainer(training(env, collector, total_episodes=60, workers=2)) as trainer:
        with pytest.raises(AiotrainError) as caught:
            async with asyncio.timeout(WITHIN_S):
                await anext(trainer)
    said = str(caught.value)
    assert "worker " in said
    assert words_for(collector, trouble) in said
    assert f"worker {caught.value.worker}" in said
    if isinstance(caught.value, EnvError):
        assert f"episode {caught.value.episode}" in said
        assert f"seed {caught.value.seed}" in said


@every_separate
@pytest.mark.asyncio
async def test_episode_that_always_kills_its_worker_is_given_up_alone(collector: str) -> None:
    env = faulty(Toy, "kill", episodes=[4], run_seed=4)
    async with Trainer(training(env, collector, total_episodes=12)) as trainer:
        async with asyncio.timeout(WITHIN_S):
            updates = [update.episodes async for update in trainer]
        status = trainer.status()
    assert updates == [5, 11]
    assert status.episodes_finished == 11
    assert "episode 4 is given up" in "\n".join(status.warnings)


@each_in("raise", "kill")
@pytest.mark.asyncio
async def test_environment_that_cannot_start_is_told_at_once(collector: str, trouble: Fault) -> None:
    async with player(faulty(Toy, trouble, at="make"), collector) as one:
        with pytest.raises(EnvError, match=TROUBLES[trouble]):
            await asyncio.wait_for(one.collector.start(), WITHIN_S)


@pytest.mark.parametrize("collector", ["shared_memory", "ray"])
@pytest.mark.asyncio
async def test_worker_that_is_not_ready_in_time_is_told_with_the_setting(collector: str, tmp_path: Path) -> None:
    """Where workers are brought up before they are given a task."""

    class Single(Toy):
        def __init__(self) -> None:
            super().__init__()
            try:
                (tmp_path / "made").touch(exist_ok=False)
            except FileExistsError:
                cause("hang")

    async with player(Single, collector, workers=2, start_timeout_s=3.0) as one:
        await one.open()
        words = "1: did not start: not ready within 3 s. Raise --start-timeout-s if it is slow"
        await one.until(lambda: any(words in each for each in one.warnings), "it is told")


@every_separate
@pytest.mark.asyncio
async def test_restarts_leak_nothing(collector: str, tmp_path: Path) -> None:
    fatal = range(1, 12, 2)
    env = faulty(Toy, "os._exit", episodes=fatal, run_seed=SEED, marks=tmp_path)
    held: list[int] = []

    def count() -> None:
        if len(held) == 2:  # that is early, and its processes are there
            gc.collect()
        held.append(psutil.Process().num_fds())

    async with player(env, collector) as one:
        await one.open()
        await one.play(12, after=count)
        restarts = one.collector.describe().workers[0].restarts
        gc.collect()
        # What one process needs, for it may not have been there then; six that leak hold six times as much.
        await one.until(lambda: psutil.Process().num_fds() <= held[2] + 12, "what the lost ones held is given back")
    assert len(one.lost) == len(fatal)
    if collector != "ray":  # see above
        assert sorted(one.lost) == list(fatal)
    assert restarts == len(fatal)


# ------------------------------------------------------------------------ the end


@every
@pytest.mark.parametrize("moment", ["unstarted", "starting", "started", "opened", "playing", "aborted"])
@pytest.mark.asyncio
async def test_closing_at_any_time_leaves_nothing(collector: str, moment: str, tmp_path: Path) -> None:
    """What is left, the fixture finds."""
    gate = tmp_path / "gate"
    if collector == "sequential":  # which would wait for it
        gate.touch()
    one = player(functools.partial(Waiting, str(gate)), collector, workers=2)
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
        playing = asyncio.create_task(one.play(200))
        await one.until(lambda: list(tmp_path.iterdir()), "a worker plays")
        playing.cancel()
        await asyncio.wait([playing])
    if moment == "aborted":
        one.collector.abort()
    gate.touch()
    async with asyncio.timeout(WITHIN_S):
        await one.collector.close()
        await one.collector.close()
    status = one.collector.describe()
    assert {each.state for each in status.workers} == {WorkerState.ENDED}


@every
@pytest.mark.asyncio
async def test_cancelled_training_leaves_nothing(collector: str) -> None:
    trainer = Trainer(training(Toy, collector, total_episodes=10**6))
    updates = 0

    async def train() -> None:
        nonlocal updates
        async with trainer:
            async for _ in trainer:
                updates += 1

    training_on = asyncio.create_task(train())
    async with asyncio.timeout(WITHIN_S):
        while not updates:
            await asyncio.sleep(0.005)
        training_on.cancel()
        await asyncio.wait([training_on])
    assert training_on.cancelled()
    assert trainer.status().phase == "interrupted"


@every
@pytest.mark.asyncio
async def test_environments_are_closed(collector: str, tmp_path: Path) -> None:
    class Closing(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.name = f"{os.getpid()}-{id(self)}"
            (tmp_path / f"made-{self.name}").touch()

        def close(self) -> None:
            (tmp_path / f"closed-{self.name}").touch()

    async with player(Closing, collector, workers=2, envs=2) as one:
        await one.open()
        await one.play(6)
        up = (WorkerState.WAITING, WorkerState.PLAYING)
        await one.until(lambda: all(each.state in up for each in one.collector.describe().workers), "all are there")
    made, closed = (
        sorted(path.name.split("-", 1)[1] for path in tmp_path.glob(f"{what}-*")) for what in ("made", "closed")
    )
    assert len(made) > 1
    assert closed == made


@every
@pytest.mark.asyncio
async def test_a_collector_tells_what_it_looks_like(collector: str) -> None:
    workers = 1 if collector == "sequential" else 3
    async with player(Toy, collector, workers=3) as one:
        before = one.collector.describe()
        assert [each.state for each in before.workers] == [WorkerState.STARTING] * workers
        await one.open()
        await one.play(9)
        status = one.collector.describe()
        assert len(status.workers) == workers
        assert sum(each.episodes for each in status.workers) == 9
        assert {each.state for each in status.workers} <= {WorkerState.WAITING, WorkerState.STARTING}
        assert status.slots_in_use == 0
        assert status.busy_s > 0
    after = one.collector.describe()
    assert [each.state for each in after.workers] == [WorkerState.ENDED] * workers
    assert [each.episodes for each in after.workers] == [each.episodes for each in status.workers]

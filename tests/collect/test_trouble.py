"""What trouble costs with each collector: its episode, a restart, and nothing that is left behind."""

from __future__ import annotations

import asyncio
import functools
import gc
from pathlib import Path

import psutil
import pytest
from contract import TROUBLES, each_in, every, every_separate, expected, player, training, words_for

from aiotrain.errors import AiotrainError, EnvError, InvalidStepError
from aiotrain.testing import Fault, Moment, cause, faulty
from aiotrain.training.trainer import Trainer
from collector_harness import SEED, WITHIN_S, assert_same_play, seed_of
from envs import Interrupted, Toy, failing_later

pytestmark = pytest.mark.usefixtures("one_ray")

SHORT = {"episode_timeout_s": 0.4, "start_timeout_s": 3.0}


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

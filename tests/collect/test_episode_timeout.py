"""What ``episode_timeout_s`` means, which is the same with every collector: see CollectorSettings."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import pytest
from contract import every, every_separate, expected, player

from aiotrain.testing import faulty
from collector_harness import SEED, assert_same_play, seed_of
from envs import Toy

LIMIT_S = 1.2
TIMED = {"episode_timeout_s": LIMIT_S, "start_timeout_s": 90.0}

pytestmark = pytest.mark.usefixtures("one_ray")


class Steady(Toy):
    """Each episode takes half a second at least."""

    def __init__(self, steps: int = 5) -> None:
        super().__init__(shortest=steps, longest=steps)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        time.sleep(0.1)
        return super().step(action)


class SlowToMake(Toy):
    """Takes longer to be made than an episode may take."""

    def __init__(self) -> None:
        super().__init__()
        time.sleep(1.25 * LIMIT_S)


class OneSlowStep(Toy):
    """The second step of an episode takes too long, once, but returns."""

    def __init__(self, seed: int, mark: str) -> None:
        super().__init__()
        self.seed, self.mark = seed, Path(mark)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if self.steps == 1 and self.episode_seed == self.seed and not self.mark.exists():
            self.mark.touch()
            time.sleep(1.5 * LIMIT_S)
        return super().step(action)


@every_separate
@pytest.mark.asyncio
async def test_a_step_that_hangs_is_ended_after_the_time_and_the_others_arrive(collector: str, tmp_path: Path) -> None:
    env = faulty(Toy, "hang", episodes=[4], run_seed=SEED, marks=tmp_path)
    async with player(env, collector, workers=2, **TIMED) as one:
        await one.open()
        began_s = time.monotonic()
        got = await one.play(8)
        took_s = time.monotonic() - began_s
    assert_same_play(got, await expected(Toy, 8))
    assert one.lost == [4]
    assert f"hung for {LIMIT_S:g} s and was killed; raise --episode-timeout-s" in "\n".join(one.warnings)
    assert took_s > LIMIT_S, "it was ended before its time"
    assert took_s < 0.5 * TIMED["start_timeout_s"], "it was given the time of a start"


@every
@pytest.mark.asyncio
async def test_an_episode_that_takes_too_long_is_lost_though_its_step_returns(collector: str, tmp_path: Path) -> None:
    env = functools.partial(OneSlowStep, seed_of(4), str(tmp_path / "mark"))
    async with player(env, collector, workers=2, **TIMED) as one:
        await one.open()
        got = await one.play(8)
    assert_same_play(got, await expected(Toy, 8))
    assert one.lost == [4]
    (lost,) = (lost for outcome in one.outcomes for lost in outcome.lost)
    assert lost.seed == seed_of(4)
    assert "--episode-timeout-s" in lost.reason


@every
@pytest.mark.asyncio
async def test_making_an_environment_does_not_count(collector: str, tmp_path: Path) -> None:
    """Neither at the start nor when a broken one is replaced, while another is in the middle of its episode."""
    env = faulty(SlowToMake, "raise", episodes=[1], run_seed=SEED, marks=tmp_path)
    async with player(env, collector, workers=1, envs=2, **TIMED) as one:
        await one.open()
        got = await one.play(4)
    assert_same_play(got, await expected(Toy, 4))
    assert one.lost == [1], "\n".join(one.warnings)


@every
@pytest.mark.asyncio
async def test_waiting_for_its_turn_does_not_count(collector: str) -> None:
    """Of three episodes in a row, each takes its time from its own beginning."""
    async with player(Steady, collector, workers=1, **TIMED) as one:
        await one.open()
        await one.play(3)
    assert one.lost == [], "\n".join(one.warnings)


@every
@pytest.mark.asyncio
async def test_each_slot_of_a_long_episode_has_its_own_time(collector: str) -> None:
    async with player(functools.partial(Steady, 16), collector, workers=2, **TIMED) as one:
        await one.open(slot_steps=4)
        got = await one.play(2)
    assert one.lost == [], "\n".join(one.warnings)
    assert got.headers["fragment"].tolist() == [0, 1, 2, 3] * 2

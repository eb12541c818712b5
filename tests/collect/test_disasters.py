"""Disasters in a whole training: what they cost, what is said of them, that nothing is left and the end comes soon.

The table of them is in bench/disasters.py. What a collector has to make of them is tested for all collectors in
test_collectors.py. What is left (processes, threads, descriptors, shared memory) is found by the fixture of all tests.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from aiotrain import Config, Trainer
from aiotrain.errors import EnvError, WorkerError
from aiotrain.play.player import episode_streams
from aiotrain.testing import Fault, faulty
from aiotrain.training.status import Status
from bench.disasters import (
    DISASTERS,
    EPISODES,
    HANG_S,
    HANGS,
    IN_A_START,
    RAISES,
    STRIKE_THE_VICTIM,
    VICTIM,
    WITHIN_S,
    Disaster,
    endure,
    least_cost,
    strike_idle,
)
from envs import Toy

WORDS = {
    "raise": "RuntimeError: a fault that was injected",
    "sys.exit": "SystemExit: a fault that was injected",
    "memory": "MemoryError: a fault that was injected",
    "os._exit": "exit code 3",
    "segfault": "SIGSEGV",
    "kill": "SIGKILL",
    "hang": f"hung for {HANG_S:g} s and was killed",
    "ignore sigterm": f"hung for {HANG_S:g} s and was killed",
    "nan": "NaN",
    "shape": "observation of shape",
}


def words_for(disaster: Disaster) -> str:
    """What is said of it at least; nothing of what costs nothing."""
    fault, at = disaster
    if at == "closing" or fault == "unpicklable":
        return ""
    if at in IN_A_START and fault in HANGS:
        return "not ready within"
    if at == "idle" and fault in RAISES:  # outside any task, so that the process ends by it
        return "exit code 1"
    if at == "weights" and fault in RAISES:
        return "a fault that was injected"
    if (fault, at) == ("nan", "step"):
        return "a reward of nan"
    return WORDS[fault]


@pytest.mark.asyncio
@pytest.mark.parametrize("disaster", DISASTERS, ids=str)
async def test_a_disaster_costs_what_it_must_and_no_more(disaster: Disaster, tmp_path: Path) -> None:
    end = await endure(disaster, tmp_path)
    status = end.status
    told = "\n".join([*status.warnings, status.first_error or ""])
    assert end.cost == least_cost(*disaster), told
    assert status.adds_up
    assert sum(worker.episodes for worker in status.workers) == status.episodes_finished, "as the workers count them"
    assert words_for(disaster) in told
    if disaster.at in STRIKE_THE_VICTIM and disaster.fault in (*RAISES, "nan", "shape"):  # the process is there to tell
        assert f"episode {VICTIM}, seed {episode_streams(0, VICTIM)[0]}" in told
    if end.cost.given_up:
        assert f"episode {VICTIM} is given up" in told
    if end.error is None:
        assert status.episodes_learned + status.episodes_given_up == EPISODES
        assert (status.episodes_waiting, status.episodes_in_flight) == (0, 0)
    else:
        assert str(end.error) in (status.first_error or "")


def test_no_disaster_is_forgotten() -> None:
    assert {disaster.fault for disaster in DISASTERS} == set(get_args(Fault))


async def to_the_end(trainer: Trainer) -> Status:
    async with asyncio.timeout(WITHIN_S), trainer:
        async for _ in trainer:
            pass
    return trainer.status()


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", ["raise", "kill", "hang"])
async def test_in_every_episode_it_ends_the_run_with_the_reason(fault: Fault) -> None:
    patience = HANG_S if fault in HANGS else Config.episode_timeout_s
    env = faulty(Toy, fault)
    config = Config(env=env, workers=2, total_episodes=EPISODES, episodes_per_update=6, episode_timeout_s=patience)
    trainer = Trainer(config)
    # Which of the two comes first, episodes that are given up or workers that die, is a matter of time.
    with pytest.raises((EnvError, WorkerError)) as caught:
        await to_the_end(trainer)
    status = trainer.status()
    assert WORDS[fault] in str(caught.value)
    assert status.episodes_learned == 0
    assert status.episodes_played == status.episodes_lost > 0
    assert status.adds_up


@pytest.mark.asyncio
async def test_sigterm_while_there_is_nothing_to_do() -> None:
    config = Config(env=Toy, workers=2, total_episodes=EPISODES, episodes_per_update=6, max_policy_lag=0)
    trainer = Trainer(config)
    async with trainer:
        await strike_idle(trainer, signal.SIGTERM)
        async for _ in trainer:
            pass
    status = trainer.status()
    assert (status.episodes_learned, status.episodes_lost) == (EPISODES, 0)
    assert sum(worker.restarts for worker in status.workers) == 2
    assert status.adds_up


def test_faults_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="something that reset or step returns"):
        faulty(Toy, "nan", at="close")
    with pytest.raises(ValueError, match="choose from"):
        faulty(Toy, "flood")  # type: ignore[arg-type]


def test_a_faulty_environment_is_the_environment_but_for_its_fault() -> None:
    plain, other = Toy(), faulty(Toy, "raise", episodes=[1])()
    seed = episode_streams(0, 0)[0]
    np.testing.assert_array_equal(plain.reset(seed=seed)[0], other.reset(seed=seed)[0])
    for _ in range(3):
        for a, b in zip(plain.step(1), other.step(1), strict=True):
            np.testing.assert_array_equal(a, b)

"""Disasters in a whole training: what they cost, what is said of them, that nothing is left and the end comes soon.

Every fault once, and one of each kind (it raises, it ends the process, it hangs) at every moment. What a collector has
to make of them is tested for all collectors in test_collectors.py. What is left (processes, threads, descriptors,
segments), the fixture in conftest.py finds after each test.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import psutil
import pytest

from aiotrain import Config, Result, Trainer
from aiotrain.errors import AiotrainError, EnvError, InvalidStepError, WorkerError
from aiotrain.status import Status, WorkerState
from aiotrain.testing import Fault, Moment, faulty
from aiotrain.weights import Weights
from aiotrain.worker import episode_streams
from envs import Toy, make_trouble

EPISODES = 24
WITHIN_S = 30.0
HANG_S = 0.5

RAISES = ("raise", "sys.exit", "memory")
"""Cost the episode."""
ENDS = ("os._exit", "segfault", "kill")
"""Cost the process."""
HANGS = ("hang", "ignore sigterm")
"""Cost the process, after its deadline."""
KINDS = ("raise", "kill", "hang")
"""One of each."""
WORDS = {
    "raise": "RuntimeError: a fault that was injected",
    "sys.exit": "SystemExit: a fault that was injected",
    "memory": "MemoryError: a fault that was injected",
    "os._exit": "exit code 3",
    "segfault": "SIGSEGV",
    "kill": "SIGKILL",
    "hang": "hung for 0.5 s and was killed",
    "ignore sigterm": "hung for 0.5 s and was killed",
}


async def train(env: Callable[..., Any], fault: str = "", **settings: Any) -> tuple[Result | AiotrainError, Status]:
    """What came of a whole training, within the time."""
    if fault in HANGS:
        settings |= {"episode_timeout_s": HANG_S}
    config = Config(env=env, workers=2, total_episodes=EPISODES, episodes_per_update=6, **settings)
    trainer = Trainer(config)
    outcome: Result | AiotrainError
    async with asyncio.timeout(WITHIN_S):
        try:
            async with trainer:
                async for _ in trainer:
                    pass
                outcome = trainer.result()
        except AiotrainError as error:
            outcome = error
    return outcome, trainer.status()


def exact(status: Status) -> None:
    """Everything that was played is learned, or waits in a batch that is not whole; nothing is under way."""
    assert status.episodes_in_flight == 0
    assert status.episodes_learned == status.episodes_finished


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("fault", "at"),
    [
        *((fault, "step") for fault in (*RAISES, *ENDS, *HANGS)),
        *((fault, at) for fault in KINDS for at in ("reset", "write")),
    ],
)
async def test_once_costs_a_try_and_the_run_recovers(fault: Fault, at: Moment, tmp_path: Path) -> None:
    env = faulty(Toy, fault, at=at, episodes=[4], marks=tmp_path)  # type: ignore[arg-type]
    result, status = await train(env, fault)
    assert isinstance(result, Result), f"the run ended: {result}"
    assert result.episodes == EPISODES, "the episode was tried again"
    assert result.lost == 1, status.warnings
    assert sum(worker.restarts for worker in status.workers) == (0 if fault in RAISES else 1)
    told = "\n".join(status.warnings)
    assert WORDS[fault] in told
    assert "worker" in told
    exact(status)


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", KINDS)
async def test_each_time_is_given_up_after_three_tries_and_named(fault: Fault) -> None:
    result, status = await train(faulty(Toy, fault, episodes=[4]), fault)
    assert isinstance(result, Result), f"the run ended: {result}"
    assert result.episodes == EPISODES - 1
    assert result.lost == 3, status.warnings
    (given_up,) = [warning for warning in status.warnings if "given up" in warning]
    assert "episode 4 is given up" in given_up
    assert WORDS[fault] in given_up
    exact(status)


@pytest.mark.asyncio
@pytest.mark.parametrize("at", ["make", "reset", "step"])
@pytest.mark.parametrize("fault", KINDS)
async def test_in_every_episode_ends_the_run_with_the_reason(fault: Fault, at: Moment) -> None:
    settings = {"start_timeout_s": 2.0} if fault in HANGS else {}
    error, status = await train(faulty(Toy, fault, at=at), fault, **settings)
    # Which of the two comes first, episodes that are given up or workers that die, is a matter of time.
    assert isinstance(error, EnvError | WorkerError), f"the run ended with {error!r}"
    words = "not ready within 2 s" if fault in HANGS and at in ("make", "reset") else WORDS[fault]
    assert words in str(error)
    assert status.episodes_learned == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", ["raise", "sys.exit", "os._exit", "kill", *HANGS])
async def test_in_close_costs_nothing(fault: Fault) -> None:
    began = time.monotonic()
    result, status = await train(faulty(Toy, fault, at="close"), fault)
    assert isinstance(result, Result), f"the run ended: {result}"
    assert (result.episodes, result.lost) == (EPISODES, 0)
    assert time.monotonic() - began < 10
    exact(status)


@pytest.mark.asyncio
@pytest.mark.parametrize(("fault", "at"), [("nan", "step"), ("shape", "reset")])
async def test_what_cannot_be_learned_from_ends_the_run_by_name(fault: Fault, at: Moment) -> None:
    error, status = await train(faulty(Toy, fault, at=at, episodes=[4]))
    assert isinstance(error, InvalidStepError), f"the run ended with {error!r}"
    for part in ("worker ", "episode 4", f"seed {episode_streams(0, 4)[0]}", fault):
        assert part in str(error)
    assert status.first_error is not None
    assert str(error) in status.first_error


@pytest.mark.asyncio
async def test_an_info_that_cannot_travel_does_not_have_to() -> None:
    result, status = await train(faulty(Toy, "unpicklable"))
    assert isinstance(result, Result), f"the run ended: {result}"
    assert (result.episodes, result.lost) == (EPISODES, 0)
    exact(status)


# ----------------------------------------------------- moments that no environment sees


@pytest.mark.asyncio
@pytest.mark.parametrize("trouble", KINDS)
async def test_while_reading_weights(trouble: str, tmp_path: Path) -> None:
    """In the one worker that comes to its second version first."""
    folder = str(tmp_path)

    def make() -> Toy:
        pull = Weights.pull

        def troubled(weights: Weights, into: Any, held: int, timeout_s: float = 10.0) -> int:
            version = pull(weights, into, held, timeout_s)
            if version == 1 and not os.path.exists(f"{folder}/done"):
                open(f"{folder}/done", "x").close()
                make_trouble(trouble)
            return version

        Weights.pull = troubled  # type: ignore[method-assign]
        return Toy()

    result, status = await train(make, trouble, max_policy_lag=0)
    assert isinstance(result, Result), f"the run ended: {result}"
    assert (result.episodes, result.lost) == (EPISODES, 0), "nothing was begun, so nothing is lost"
    assert sum(worker.restarts for worker in status.workers) == 1
    exact(status)


def idle(status: Status) -> bool:
    """Whether the first batch is played, and every worker waits."""
    return status.episodes_finished >= 6 and {worker.state for worker in status.workers} == {WorkerState.WAITING}


@pytest.mark.asyncio
@pytest.mark.parametrize("which", [signal.SIGKILL, signal.SIGTERM])
async def test_while_there_is_nothing_to_do(which: signal.Signals) -> None:
    """At lag 0, workers wait until the batch is learned, which is when the caller asks for it."""
    config = Config(env=Toy, workers=2, total_episodes=EPISODES, episodes_per_update=6, max_policy_lag=0)
    async with asyncio.timeout(WITHIN_S), Trainer(config) as trainer:
        while not idle(trainer.status()):
            await asyncio.sleep(0.005)
        workers = [psutil.Process(child.pid) for child in multiprocessing.active_children()]
        for worker in workers:
            worker.send_signal(which)
        psutil.wait_procs(workers, WITHIN_S)
        async for _ in trainer:
            pass
        result, status = trainer.result(), trainer.status()
    assert (result.episodes, result.lost) == (EPISODES, 0)
    assert sum(worker.restarts for worker in status.workers) == len(workers) == 2
    exact(status)


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
    assert set(get_args(Fault)) >= {*RAISES, *ENDS, *HANGS}

"""Runs that are interrupted and go on: nothing is lost, counted twice or learned otherwise."""

from __future__ import annotations

import asyncio
import csv
import functools
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from aiotrain import PPOConfig, Result, train
from aiotrain.runs.checkpoints import load_checkpoint
from envs import Counted, Endless
from resuming import (
    RUN,
    WITHIN_S,
    assert_all_learned_with_lag,
    assert_same_in_parts,
    config,
    events,
    resume,
    rows,
    run,
    some,
)

# ---------------------------------------------------------------------- to the bit

KINDS: dict[str, dict[str, Any]] = {
    "CartPole": {"env": "CartPole-v1", "max_episode_steps": None},
    "counting steps": {"steps_per_update": 80, "total_steps": 500, "total_episodes": 10**6},
    "continuous actions": {"env": "Pendulum-v1", "total_episodes": 6, "episodes_per_update": 1},
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_is_the_same_to_the_bit_as_one_in_one_go(kind: str, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert_same_in_parts(KINDS[kind], whole, parts)


@pytest.mark.parametrize("turns", [*range(40, 400, 60), *range(400, 4000, 600)])
def test_cancelled_anywhere_it_is_the_same_to_the_bit(turns: int, tmp_path: Path) -> None:
    async def cancelled() -> None:
        training = asyncio.create_task(train(config(tmp_path / "run")))
        while not (tmp_path / "run" / "updates.csv").exists():
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        training.cancel()
        await asyncio.wait([training])

    asyncio.run(asyncio.wait_for(cancelled(), WITHIN_S))
    result = resume(tmp_path / "run").result()
    np.testing.assert_array_equal(result.weights, expected_toy().weights)
    assert [row["update"] for row in rows(tmp_path / "run")] == [str(number) for number in range(1, 7)]


@functools.cache
def expected_toy() -> Result:
    """What comes of a run in one go."""
    return run(config(None))


FLAGS = ("--env", "CartPole-v1", "--workers", "2", "--episodes-per-update", "10", "--deterministic", "--device", "cpu")
CONSTANT = ("--learning-rate", "0.001", "--final-learning-rate", "0.001")  # for it falls along the budget


def command(folder: Path, *flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(RUN), *flags], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_with_a_new_process_for_the_second_half(tmp_path: Path) -> None:
    """Twice as many updates in one go, or half of them, a new process that is told a larger budget, and the others."""
    for name, flags in {
        "half": [*FLAGS, *CONSTANT, "--total-episodes", "40", "--run-dir", "half"],
        "other half": ["--resume", "half", "--total-episodes", "80"],
    }.items():
        process = command(tmp_path, *flags)
        _, err = process.communicate(timeout=WITHIN_S)
        assert (process.returncode, err) == (0, ""), name
    ppo = PPOConfig(learning_rate=0.001, final_learning_rate=0.001)
    run(config(tmp_path / "whole", "CartPole-v1", max_episode_steps=None, ppo=ppo, total_episodes=80))
    np.testing.assert_equal(*(load_file(tmp_path / name / "weights.safetensors") for name in ("half", "whole")))
    assert rows(tmp_path / "half") == rows(tmp_path / "whole")


def test_killed_and_resumed(tmp_path: Path) -> None:
    process = command(tmp_path, *FLAGS, "--total-episodes", "200", "--run-dir", "run", "--checkpoint-every", "3")
    folder = tmp_path / "run"
    while not (folder / "updates.csv").exists() or (folder / "updates.csv").read_text().count("\n") < 6:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    with (folder / "updates.csv").open("a") as file:
        file.write("7,0.5,to")  # torn
    assert load_checkpoint(folder).update % 3 == 0
    resume(folder, workers=1)
    run(config(tmp_path / "whole", "CartPole-v1", max_episode_steps=None, ppo=PPOConfig(), total_episodes=200))
    assert rows(folder) == rows(tmp_path / "whole")


def test_what_a_killed_process_left_half_written_goes_when_the_run_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    half = [run / f".{name}.4711" for name in ("weights.safetensors", "weights-user-op.safetensors", "config.json")]
    mine = [run / name for name in (".notes.4711", ".weights.safetensors", ".evaluation.json.4711")]
    for path in (*half, *mine):
        path.write_text("half a fi")
    some(config(run), 2)
    assert not any(path.exists() for path in half), "left by a start"
    for path in half:
        path.write_text("half a fi")
    (run / "checkpoints" / ".update-000002.safetensors.4711").write_text("half a checkpoi")
    resume(run)
    assert [path.name for path in run.rglob(".*") if path not in mine] == []
    assert all(path.exists() for path in mine), "what is not the run's own"


def test_interrupted_by_a_signal_the_way_on_is_told(tmp_path: Path) -> None:
    process = command(tmp_path, *FLAGS, "--total-episodes", "100000", "--run-dir", "my run")
    while not (tmp_path / "my run" / "updates.csv").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=WITHIN_S)
    assert (process.returncode, err) == (143, "")
    assert out.endswith("resume      by --resume 'my run'\n")
    assert load_checkpoint(tmp_path / "my run").update == len(rows(tmp_path / "my run"))


# ------------------------------------------------------------------- with policy lag


@pytest.mark.parametrize("kind", ["CartPole", "counting steps"])
def test_with_policy_lag_nothing_is_lost_or_counted_twice(kind: str, tmp_path: Path) -> None:
    assert_all_learned_with_lag(KINDS[kind], tmp_path / "run")


def test_the_account_goes_on_over_a_resume_in_all_files(tmp_path: Path) -> None:
    """Counted besides by the environments themselves, which leave a mark for every episode that comes to its end."""
    folder, marks = tmp_path / "run", tmp_path / "marks"
    marks.mkdir()
    settings: dict[str, Any] = {"deterministic": False, "max_policy_lag": 2, "total_episodes": 100}

    def env() -> Counted:
        return Counted(str(marks), breaks_every=7)

    begun = some(config(folder, env, **settings), 2).status()
    assert begun.episodes_waiting + begun.episodes_in_flight > 0, "it was left in the middle"
    resumed = resume(folder, env=env).status()
    assert resumed.episodes_discarded == begun.episodes_waiting
    assert resumed.episodes_learned + resumed.episodes_given_up == 100
    assert resumed.episodes_lost > begun.episodes_lost > 0
    assert resumed.adds_up
    ends = Counter(path.name.split("-")[0] for path in marks.iterdir())
    known = resumed.episodes_learned + resumed.episodes_discarded, resumed.episodes_lost
    # What was played to its end while the run was left may not have come back any more.
    unknown = (ends["ended"] - known[0], ends["broken"] - known[1])
    assert all(0 <= each <= begun.episodes_in_flight for each in unknown), f"{unknown} of {begun.episodes_in_flight}"

    with (folder / "updates.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            terms = [int(row[name]) for name in ("episodes", "waiting", "discarded", "lost")]
            assert int(row["played"]) == sum(terms), row
    (end,) = [event for event in events(folder) if event["event"] == "end"]
    told = {name: end[name] for name in ("played", "waiting", "discarded", "lost", "given_up")}
    assert told == {name: getattr(resumed, f"episodes_{name}") for name in told}
    assert end["episodes"] == resumed.episodes_learned


def test_episodes_longer_than_a_slot(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "slot_steps": 16,
        "steps_per_update": 100,
        "total_steps": 500,
        "max_episode_steps": None,
    }
    some(config(tmp_path / "run", Endless, total_episodes=10**6, **settings), 2)
    trainer = resume(tmp_path / "run", env=Endless)
    assert trainer.result().steps >= 500
    assert len(rows(tmp_path / "run")) == trainer.result().updates >= 3

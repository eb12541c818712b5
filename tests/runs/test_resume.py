"""Runs that are interrupted and go on: nothing is lost, counted twice or learned otherwise."""

from __future__ import annotations

import asyncio
import csv
import errno
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from aiotrain import CheckpointError, Config, ConfigError, DivergenceError, PPOConfig, Result, Trainer, train
from aiotrain.app.main import main
from aiotrain.config import MAY_CHANGE, SearchConfig
from aiotrain.learn.ppo import Learner
from aiotrain.runs.checkpoints import load_checkpoint
from envs import Counted, Endless, Toy

RUN = Path(__file__).parents[2] / "run.py"
WITHIN_S = 90
SMALL = PPOConfig(hidden_sizes=(8,), epochs=2, minibatch_size=64)
TIMES = ("elapsed_s", "collect_s", "learn_s", "episodes_per_s")
CHANCE = (*TIMES, "played", "discarded")
"""Columns that differ from run to run: these two by what workers had played when the run was interrupted."""


def config(folder: Path | None, env: Any = "envs:toy", **changes: Any) -> Config:
    settings: dict[str, Any] = {
        "workers": 2,
        "total_episodes": 60,
        "episodes_per_update": 10,
        "max_episode_steps": 20,  # more than Toy plays: it leaves the run nothing to warn of
        "deterministic": True,
        "checkpoint_every": 2,
        "ppo": SMALL,
        "device": "cpu",
    }
    return Config(env=env, run_dir=None if folder is None else str(folder), **(settings | changes))


def rows(folder: Path, name: str = "updates.csv") -> list[dict[str, str]]:
    """The rows of a file but for what chance decides."""
    with (folder / name).open(newline="") as file:
        return [{key: value for key, value in row.items() if key not in CHANCE} for row in csv.DictReader(file)]


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def run(settings: Config) -> Result:
    result: Result = asyncio.run(asyncio.wait_for(train(settings), WITHIN_S))
    return result


async def _some(trainer: Trainer, updates: int | None) -> Trainer:
    async with asyncio.timeout(WITHIN_S), trainer:
        done = 0
        async for _ in trainer:
            done += 1
            assert trainer.status().adds_up
            if done == updates:
                break
    assert trainer.status().adds_up
    return trainer


def some(settings: Config, updates: int) -> Trainer:
    """Train for so many updates, and leave."""
    return asyncio.run(_some(Trainer(settings), updates))


def resume(folder: Path, updates: int | None = None, override: bool = False, **changes: Any) -> Trainer:
    return asyncio.run(_some(Trainer.resume(folder, override=override, **changes), updates))


# ---------------------------------------------------------------------- to the bit

SEARCHED = {"total_episodes": 56, "episodes_per_update": 8, "max_episode_steps": None, "env": Config.env}
KINDS: dict[str, dict[str, Any]] = {
    "CartPole": {"env": "CartPole-v1", "max_episode_steps": None},
    "counting steps": {"steps_per_update": 80, "total_steps": 500, "total_episodes": 10**6},
    "continuous actions": {"env": "Pendulum-v1", "total_episodes": 6, "episodes_per_update": 1},
    "search, orders together": {
        **SEARCHED,
        "workflow_search": SearchConfig(parallel_workflows=4, max_episodes_per_workflow=6),
    },
    "search, each order from the nearest": {
        **SEARCHED,
        "workflow_search": SearchConfig(parallel_workflows=1, inherit="nearest", max_episodes_per_workflow=8),
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_is_the_same_to_the_bit_as_one_in_one_go(kind: str, tmp_path: Path) -> None:
    settings = KINDS[kind]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = run(config(whole, **settings))
    assert some(config(parts, **settings), 3).status().updates == 3
    assert resume(parts, 1, workers=3).status().updates == 4, "it goes on where it was"
    result = resume(parts, workers=1, envs_per_worker=4).result()
    np.testing.assert_array_equal(result.weights, expected.weights)
    assert (result.episodes, result.steps, result.updates) == (expected.episodes, expected.steps, expected.updates)
    assert rows(parts) == rows(whole)
    for path in whole.glob("weights*.safetensors"):
        np.testing.assert_equal(load_file(parts / path.name), load_file(path))
    if "workflow_search" in settings:
        assert (parts / "workflows.csv").read_bytes() == (whole / "workflows.csv").read_bytes()
        assert len(rows(parts, "workflows.csv")) >= 4
        chosen = [[e for e in events(each) if e["event"] == "workflow"] for each in (parts, whole)]
        assert [e["order"] for e in chosen[0]] == [e["order"] for e in chosen[1]]


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


@pytest.mark.parametrize("kind", ["CartPole", "counting steps", *[kind for kind in KINDS if "search" in kind]])
def test_with_policy_lag_nothing_is_lost_or_counted_twice(kind: str, tmp_path: Path) -> None:
    settings = {**KINDS[kind], "deterministic": False, "max_policy_lag": 2}
    some(config(tmp_path / "run", **settings), 2)
    trainer = resume(tmp_path / "run")
    status = trainer.status()
    assert status.phase == "finished"
    assert status.episodes_waiting == 0
    assert status.steps_finished == trainer.result().steps
    found = rows(tmp_path / "run")
    assert [int(row["update"]) for row in found] == list(range(1, len(found) + 1))
    assert sum(int(row["batch_episodes"]) for row in found) == status.episodes_learned
    assert max(int(row["max_policy_lag"]) for row in found) <= 2
    if "steps_per_update" not in settings:
        assert status.episodes_learned == settings.get("total_episodes", 60)


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


# ------------------------------------------------------------------------- settings


def test_settings_that_decide_what_is_learned_are_refused_by_name(tmp_path: Path) -> None:
    some(config(tmp_path / "run"), 1)
    with pytest.raises(ConfigError) as caught:
        Trainer.resume(tmp_path / "run", seed=5, ppo=PPOConfig(hidden_sizes=(8,), epochs=2, minibatch_size=32))
    lines = str(caught.value).splitlines()
    assert lines[1:3] == ["  - seed was 0, and is now 5", "  - minibatch-size was 64, and is now 32"]
    assert "--override" in lines[-1]


def test_override_goes_on_with_other_settings_and_writes_that_down(tmp_path: Path) -> None:
    some(config(tmp_path / "run"), 1)
    trainer = resume(tmp_path / "run", override=True, episodes_per_update=20, total_episodes=70)
    assert [row["batch_episodes"] for row in rows(tmp_path / "run")] == ["10", "20", "20", "20"]
    assert trainer.result().episodes == 70
    assert [e["changes"] for e in events(tmp_path / "run") if e["event"] == "resume"] == [
        ["episodes-per-update was 10, and is now 20"]
    ]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["episodes_per_update"] == 20
    assert load_checkpoint(tmp_path / "run").config.episodes_per_update == 20


def test_settings_that_may_change_exist() -> None:
    assert config(None).resolved().keys() >= MAY_CHANGE


def test_environment_that_was_a_callable_is_given_again(tmp_path: Path) -> None:
    env = functools.partial(Toy, observation="bits")
    some(config(tmp_path / "run", env), 1)
    assert resume(tmp_path / "run", env=env).result().episodes == 60
    with pytest.raises(ConfigError, match=r"env was functools:.*bits.* and is now envs:Toy"):
        Trainer.resume(tmp_path / "run", env=Toy)
    with pytest.raises(ConfigError, match=r"a Python callable, .* as in Trainer.resume\(run, env=callable\)"):
        Trainer.resume(tmp_path / "run", total_episodes=90)


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--resume", "nothing"], 2, "aiotrain: there is no nothing"),
        (["--resume", "run", "--gamma", "0.5"], 2, "  - gamma was 0.98, and is now 0.5"),
        (["--resume", "run", "--run-dir", "other"], 2, "stays in its folder, run"),
        (["--resume", "run/weights.safetensors"], 2, "in the folder checkpoints of its run"),
    ],
)
def test_what_the_command_line_refuses(
    flags: list[str],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    some(config(Path("run")), 1)
    assert main(flags) == code
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""


def test_deterministic_contradicts_policy_lag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--deterministic", "--max-policy-lag", "1"]) == 2
    assert "max-policy-lag (1)" in capsys.readouterr().err
    assert Config(deterministic=True, max_policy_lag=0).policy_lag == Config(deterministic=True).policy_lag == 0
    assert Config().policy_lag == 1


# ---------------------------------------------------------------------- the folder


def test_a_run_that_still_goes_on_is_not_resumed(tmp_path: Path) -> None:
    async def both() -> None:
        async with Trainer(config(tmp_path / "run", checkpoint_every=1)) as trainer:
            await anext(trainer)
            with pytest.raises(ConfigError, match="holds a run that still goes on"):
                async with Trainer.resume(tmp_path / "run"):
                    pytest.fail("two at once")
            async for _ in trainer:
                pass
        assert trainer.result().episodes == 60

    asyncio.run(asyncio.wait_for(both(), WITHIN_S))


def test_lost_lines_are_told(tmp_path: Path) -> None:
    some(config(tmp_path / "run"), 2)
    os.truncate(tmp_path / "run" / "updates.csv", 100)
    trainer = resume(tmp_path / "run")
    (warning,) = trainer.status().warnings
    assert warning == "updates.csv has 0 lines, where 3 were written: some are lost"
    assert [e["message"] for e in events(tmp_path / "run") if e["event"] == "warning"] == [warning]
    assert [row["update"] for row in rows(tmp_path / "run")] == ["3", "4", "5", "6"], "below a header"


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    first = run(config(tmp_path / "run"))
    result = resume(tmp_path / "run").result()
    assert result.updates == first.updates
    np.testing.assert_array_equal(result.weights, first.weights)


def test_tensorboard_goes_on(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    some(config(tmp_path / "run", tensorboard=True, checkpoint_every=2), 3)
    (tmp_path / "run" / "checkpoints" / "update-000003.safetensors").unlink()
    resume(tmp_path / "run")
    found = accumulator.EventAccumulator(str(tmp_path / "run"))
    found.Reload()
    assert [point.step for point in found.Scalars("return/mean_return")] == [10, 20, 30, 40, 50, 60]


def test_time_goes_on(tmp_path: Path) -> None:
    first = some(config(tmp_path / "run"), 3)
    second = resume(tmp_path / "run")
    assert second.status().elapsed_s > first.status().elapsed_s
    with (tmp_path / "run" / "updates.csv").open(newline="") as file:
        elapsed = [float(row["elapsed_s"]) for row in csv.DictReader(file)]
    assert elapsed == sorted(elapsed)
    assert 0 <= second.status().collect_share <= 1


def test_an_update_that_fails_half_way_is_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run(config(None))

    async def diverge() -> None:
        async with Trainer(config(tmp_path / "run", checkpoint_every=1)) as trainer:
            await anext(trainer)
            with monkeypatch.context() as patch:
                patch.setattr(Learner, "parameters", lambda _: np.full(3, np.nan, np.float32))
                await anext(trainer)

    with pytest.raises(DivergenceError):
        asyncio.run(asyncio.wait_for(diverge(), WITHIN_S))
    assert load_checkpoint(tmp_path / "run").update == 1
    assert not (tmp_path / "run" / "weights.safetensors").exists(), "no policy's, and written over those of before"
    np.testing.assert_array_equal(resume(tmp_path / "run").result().weights, expected.weights)


# ---------------------------------------------------------------------- a full disk


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, bool], None]:
    """Makes the disk full for files in a folder, or gives it room again."""
    fsync, write = os.fsync, os.write

    def set_full(folder: Path, is_full: bool) -> None:
        def refuse(descriptor: int) -> None:
            if is_full and str(folder) in os.readlink(f"/proc/self/fd/{descriptor}"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def full_fsync(descriptor: int) -> None:
            refuse(descriptor)
            fsync(descriptor)

        def full_write(descriptor: int, data: bytes) -> int:
            refuse(descriptor)
            return write(descriptor, data)

        monkeypatch.setattr("os.fsync", full_fsync)
        monkeypatch.setattr("os.write", full_write)

    return set_full


def test_a_run_goes_on_while_the_disk_is_full(tmp_path: Path, full: Callable[[Path, bool], None]) -> None:
    """Rows that could not be written come later."""
    folder = tmp_path / "run"

    async def fill_up() -> Trainer:
        async with Trainer(config(folder, checkpoint_every=1)) as trainer:
            await anext(trainer)
            full(folder, True)
            await anext(trainer)
            await anext(trainer)
            assert load_checkpoint(folder).update == 1
            assert len(rows(folder)) == 1
            full(folder, False)
            async for _ in trainer:
                pass
        return trainer

    status = asyncio.run(asyncio.wait_for(fill_up(), WITHIN_S)).status()
    assert status.phase == "finished"
    row, checkpoint, *others = status.warnings
    assert row.startswith(f"{folder / 'updates.csv'} cannot be written to now")
    assert checkpoint.startswith(f"update 2 could not be saved in {folder}: No space left on device. The last")
    assert all("could not be saved" in each for each in others)
    assert load_checkpoint(folder).update == 6
    assert [row["update"] for row in rows(folder)] == ["1", "2", "3", "4", "5", "6"]
    assert [e["event"] for e in events(folder)].count("warning") == len(status.warnings)


def test_what_cannot_be_saved_at_the_end_is_an_error(tmp_path: Path, full: Callable[[Path, bool], None]) -> None:
    async def fill_up() -> None:
        async with Trainer(config(tmp_path / "run", checkpoint_every=1)) as trainer:
            trainers.append(trainer)
            await anext(trainer)
            full(tmp_path / "run", True)

    trainers: list[Trainer] = []
    with pytest.raises(CheckpointError, match=r"No space left on device. The last checkpoint is .*000001"):
        asyncio.run(asyncio.wait_for(fill_up(), WITHIN_S))
    status = trainers[0].status()
    assert status.phase == "failed"
    assert "No space left on device" in (status.first_error or "")


SMALL_DISK = """
set -e
mount -t tmpfs -o size=600k none disk
{python} {run} --env CartPole-v1 --workers 1 --episodes-per-update 5 --total-episodes 30 --checkpoint-every 1 \\
    --keep-checkpoints 9 --deterministic --device cpu --run-dir disk/run >said.txt 2>&1 || echo $? >code.txt
cp -r disk/run .
"""


@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode != 0,
    reason="no namespaces to mount a small disk in",
)
def test_a_small_disk(tmp_path: Path) -> None:
    """The run goes on to its end, says what is missing, and can be resumed where there is room."""
    (tmp_path / "disk").mkdir()
    script = SMALL_DISK.format(python=sys.executable, run=RUN)
    subprocess.run(["unshare", "-rm", "sh", "-c", script], cwd=tmp_path, timeout=WITHIN_S, check=True)
    said = (tmp_path / "said.txt").read_text()
    assert (tmp_path / "code.txt").read_text() == "1\n", said
    assert "could not be saved in disk/run: No space left on device. The last checkpoint is disk/run" in said
    assert "learned=30" in said
    assert "Traceback" not in said
    assert 1 <= load_checkpoint(tmp_path / "run").update < 6
    resume(tmp_path / "run")
    assert [int(row["episodes"]) for row in rows(tmp_path / "run")] == [5, 10, 15, 20, 25, 30]

"""With which settings a run goes on, and what stands in its folder then."""

from __future__ import annotations

import asyncio
import csv
import functools
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from aiotrain import ConfigError, DivergenceError, PPOConfig, Trainer
from aiotrain.app.main import main
from aiotrain.config import MAY_CHANGE
from aiotrain.learn.ppo import Learner
from aiotrain.runs.checkpoints import load_checkpoint
from envs import Toy
from resuming import WITHIN_S, config, events, resume, rows, run, some

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
    assert config(None, max_policy_lag=0).policy_lag == config(None).policy_lag == 0
    assert config(None, deterministic=False).policy_lag == 1


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

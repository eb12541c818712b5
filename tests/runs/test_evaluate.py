"""Evaluating a run: it plays what was trained, on what it was trained on, and says what it cannot play."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from aiotrain import Config, ConfigError, EnvError, InvalidStepError, evaluate
from aiotrain.app.evaluate_command import evaluate as command
from aiotrain.play.player import episode_streams
from aiotrain.testing import Fault, faulty
from aiotrain.training.reports import columns_of
from envs import Action, Judged, Masked, Observation, Toy
from finished_runs import ROOT, Counting, write_run


class FiveActions(Toy):
    """Masked without masks."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.Discrete(5)


class Interrupted(Counting):
    """Ctrl-C arrives in the middle of an episode."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if self.left == self.length // 2:
            signal.raise_signal(signal.SIGINT)
        return super().step(action)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", bias=lambda output: [0.0, 1.0, 2.0][output])


# ------------------------------------------------------------------- what is played


def test_greedy_and_sampled_actions_earn_what_they_should(run: Path) -> None:
    greedy = evaluate(run, episodes=50, greedy=True)
    assert (greedy.returns == 2 * greedy.lengths).all(), "not always the most probable action"
    assert (greedy.lengths.min(), greedy.lengths.max()) > (0, 128), "no episode outgrows what is kept at a time"
    sampled = evaluate(run, episodes=50)
    assert (sampled.lengths == greedy.lengths).all(), "other episodes"
    probabilities = np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()
    mean = probabilities @ [0, 1, 2]
    variance = probabilities @ [0, 1, 4] - mean**2
    steps = sampled.lengths.sum()
    assert abs(sampled.returns.sum() - steps * mean) < 4 * math.sqrt(steps * variance)
    numbers = sampled.summary()
    assert numbers["mean_return"] == pytest.approx(sampled.returns.mean())
    assert numbers["standard_error"] == pytest.approx(np.std(sampled.returns, ddof=1) / math.sqrt(50))
    assert numbers["mean_length"] == pytest.approx(steps / 50)
    assert sampled.metrics == {}


def test_episodes_are_a_function_of_their_number_and_the_seed(run: Path) -> None:
    told: list[tuple[int, int]] = []
    many = evaluate(run, episodes=40, seed=5, progress=lambda count, of: told.append((count, of)))
    few = evaluate(run, episodes=3, seed=5)
    assert (many.returns[:3] == few.returns).all()
    assert (evaluate(run, episodes=3, seed=6).returns != few.returns).any()
    assert told == sorted(told)
    assert told[-1] == (40, 40)


def test_no_episode_is_one_that_was_trained_on(run: Path) -> None:
    Counting.seeds.clear()
    evaluate(run, episodes=100, seed=0)
    trained = {episode_streams(Config.seed, episode)[0] for episode in range(10_000)}
    _, *played = Counting.seeds  # the first reset is for a look at what the environment tells
    assert len(set(played)) == 100
    assert not trained & set(played)


@pytest.mark.parametrize("action", ["discrete", "shifted", "gaussian"])
@pytest.mark.parametrize("observation", ["box", "bits", "one_hot"])
def test_every_kind_of_space_is_played(observation: Observation, action: Action, tmp_path: Path) -> None:
    def make() -> Toy:  # refuses actions that its space does not have
        return Toy(observation, action)

    run = write_run(tmp_path / "run", make, bias=lambda output: 0.25)
    greedy = evaluate(run, env=make, episodes=400, greedy=True)
    if action == "gaussian":  # the reward is the sum of both, and normal noise
        mean = greedy.returns.sum() / greedy.lengths.sum()
        assert mean == pytest.approx(0.5, abs=4 / math.sqrt(greedy.lengths.sum()))
    assert np.isfinite(evaluate(run, env=make, episodes=10).returns).all()


def test_masks_bind_a_finished_policy_too(tmp_path: Path) -> None:
    """The environment refuses what its mask bars, and bars what this policy likes best."""
    run = write_run(tmp_path / "run", Masked, bias=lambda output: float(output))
    for greedy in (True, False):
        assert np.isfinite(evaluate(run, env=Masked, episodes=30, greedy=greedy).returns).all()
    with pytest.raises(ConfigError, match=r"other spaces .* has action mask True, now False"):
        evaluate(run, env=lambda: FiveActions(), episodes=2)


def test_the_environment_is_made_as_in_training(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "envs:toy", max_episode_steps=5)
    evaluation = evaluate(run, episodes=30)
    assert evaluation.lengths.max() == 5, "the training's limit is forgotten"
    assert evaluate(run, episodes=30, max_episode_steps=4).lengths.max() == 4
    assert evaluation.settings["environment"] == "envs:toy"


def test_metrics_are_those_that_the_episodes_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Judged, metrics=("compliance", "wit"))
    evaluation = evaluate(run, env=Judged, episodes=20)
    assert evaluation.metrics.keys() == {"compliance", "wit"}
    told = evaluation.metrics["compliance"]
    assert ((told >= 0) & (told <= 1)).all()
    summary = evaluation.summary()
    assert (summary["compliance"], summary["compliance_count"]) == (pytest.approx(told.mean()), 20)
    assert np.isnan(evaluation.metrics["wit"]).all()
    assert not summary.keys() & {"wit", "wit_count"}, "a metric that no episode told has no mean"


def test_no_metric_takes_the_place_of_another_number_of_an_evaluation(run: Path) -> None:
    evaluation = evaluate(run, episodes=2)
    for name in (*evaluation.settings, *evaluation.summary()):
        with pytest.raises(ConfigError, match=r"^metrics: .*; rename it$"):
            columns_of((name,))


# ------------------------------------------------------------------ what cannot be


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (lambda: Counting(), r"<lambda> is an environment that a program gave .* module:factory \(--env\)"),
        ("no_such_module:make", "no module 'no_such_module'"),
        ("CartPole-v11", "unknown Gymnasium id"),
    ],
)
def test_an_environment_that_cannot_be_found_again_is_asked_for(env: Any, message: str, run: Path) -> None:
    values = Config(env=env).resolved()
    (run / "config.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=message):
        evaluate(run)
    assert len(evaluate(run, env=Counting, episodes=2).returns) == 2


def test_for_weights_the_folder_of_their_run_is_asked_for(run: Path) -> None:
    with pytest.raises(ConfigError, match=f"holds weights alone: name the folder of their run, {run}"):
        evaluate(run / "weights.safetensors")


def test_an_environment_with_other_spaces_is_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"other spaces .* in training, .*observation shape \(2,\), now \(3,\)"):
        evaluate(run, env=Toy)


def change_config(run: Path, **changes: Any) -> None:
    path = run / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "config.json").unlink(), "holds no run: there is no config.json"),
        (lambda run: (run / "config.json").write_text("{"), "config.json is damaged"),
        (lambda run: (run / "config.json").write_text("[]"), "config.json is damaged"),
        (lambda run: (run / "config.json").write_bytes(b"\xff"), "config.json is damaged"),
        (lambda run: change_config(run, wrokers=1), "of another version .*wrokers"),
        (lambda run: change_config(run, workers=0), "workers must be at least 1"),
        (lambda run: change_config(run, env=None), "env must be"),
        (lambda run: change_config(run, env={"domain": ["maze"]}), r"unknown domain \['maze'\]"),
        (lambda run: change_config(run, format=1), "aiotrain 0.1 wrote them: go on with that version"),
        (lambda run: change_config(run, format=3), "A newer version wrote them"),
        (lambda run: (run / "config.json").write_text('{"workers": 1}'), "aiotrain 0.1 wrote them"),
        (lambda run: (run / "config.json").write_text('{"format": 2}'), "the setting env is missing"),
        (lambda run: (run / "weights.safetensors").unlink(), "a run writes its weights when it ends"),
    ],
)
def test_a_folder_that_holds_no_finished_run_is_refused(damage: Any, message: str, run: Path) -> None:
    damage(run)
    with pytest.raises(ConfigError, match=message):
        evaluate(run)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"episodes": 1}, "at least 2"),
        ({"seed": -1}, "negative"),
        ({"max_episode_steps": 0}, "at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "envs:toy")
    with pytest.raises(ConfigError, match=message):
        evaluate(run, **settings)


@pytest.mark.parametrize(("fault", "error"), [("raise", EnvError), ("nan", InvalidStepError)])
def test_an_episode_that_breaks_off_names_itself(fault: Fault, error: type[Exception], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "envs:toy")
    with pytest.raises(error, match=r"episode \d+, seed \d+, step \d+"):
        evaluate(run, env=faulty(Toy, fault), episodes=5)


def test_ctrl_c_leaves_nothing_behind(run: Path) -> None:
    """What is left, the fixture of all tests finds."""
    with pytest.raises(KeyboardInterrupt):
        evaluate(run, env=Interrupted)


# ------------------------------------------------------------------ command line


def test_the_command_line_shows_it_and_writes_it_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run[" / "red]:smile:", "envs:toy")  # which Rich would take for markup
    assert command([str(run), "--episodes", "20", "--greedy", "--seed", "3"]) == 0
    out, err = capsys.readouterr()
    expected = evaluate(run, episodes=20, greedy=True, seed=3)
    written = json.loads((run / "evaluation.json").read_text())
    assert written == {**expected.settings, **expected.summary()}
    assert "mean return" in out
    assert "standard error" in out
    assert f"written to {run / 'evaluation.json'}" in out
    assert err == ""


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["nothing"], "there is no nothing: name the folder of a run, or a checkpoint in it"),
        (["nothing", "--json", "nowhere/x.json"], "json: nowhere/x.json cannot be written: name a file in a folder"),
        (["nothing", "--json", "/"], "json: / cannot be written"),
    ],
)
def test_what_cannot_work_is_refused(flags: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        command(flags)


ENDLESS = """
from pathlib import Path
import gymnasium, numpy as np

class Endless(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.MultiBinary(2), gymnasium.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.int8), {}

    def step(self, action):
        Path("stepping").touch()
        return np.zeros(2, np.int8), 0.0, False, False, {}

    def close(self):
        print("closed", flush=True)
"""


@pytest.mark.parametrize(("which", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_in_order(which: signal.Signals, code: int, run: Path, tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text(ENDLESS)
    process = subprocess.Popen(
        [sys.executable, "-m", "aiotrain", "evaluate", "run", "--env", "endless:Endless", "--episodes", "2"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "stepping").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no step within a minute"
        time.sleep(0.01)
    process.send_signal(which)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (code, "closed\nclosed\n", "")
    assert not (run / "evaluation.json").exists()

"""An episode to be watched: it is the first one of an evaluation, and is told step by step."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path
from typing import Any

import pytest

from aiotrain import Config, ConfigError, EnvError, InvalidStepError, evaluate, train
from aiotrain.app.evaluate_command import evaluate as evaluate_command
from aiotrain.app.replay_command import replay
from aiotrain.runs.load_run import load_run
from aiotrain.runs.playback import PlayedStep, Setting, play_back
from aiotrain.testing import Fault, faulty
from envs import Action, Judged, Masked, Observation, Toy
from finished_runs import Counting, write_run

FAULTS = [
    ("raise", EnvError),
    ("sys.exit", EnvError),
    ("shape", InvalidStepError),
    ("nan", InvalidStepError),
]


def play(run: Path, env: Any = None, *, greedy: bool = False, seed: int = 0) -> tuple[Setting, list[PlayedStep]]:
    with contextlib.closing(play_back(load_run(run, env), greedy=greedy, seed=seed)) as playback:
        return playback.setting, list(playback.play())


@pytest.mark.parametrize("action", ["discrete", "shifted", "gaussian"])
@pytest.mark.parametrize("observation", ["box", "bits", "one_hot"])
def test_every_kind_of_space_is_played_as_in_an_evaluation(
    observation: Observation, action: Action, tmp_path: Path
) -> None:
    def make() -> Toy:
        return Toy(observation, action)

    run = write_run(tmp_path / "run", make, bias=lambda output: 0.25 * output)
    for seed in range(3):
        evaluated = evaluate(run, env=make, episodes=2, seed=seed)
        _, steps = play(run, env=make, seed=seed)
        assert steps[-1].episode_return == pytest.approx(evaluated.returns[0])
        assert len(steps) == evaluated.lengths[0]


def test_an_episode_may_be_longer_than_what_a_worker_draws_at_a_time(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Counting, bias=lambda output: [0.0, 1.0, 2.0][output])
    lengths = set()
    for seed in range(6):
        evaluated = evaluate(run, env=Counting, episodes=2, seed=seed)
        _, steps = play(run, env=Counting, seed=seed)
        assert (len(steps), steps[-1].episode_return) == (evaluated.lengths[0], evaluated.returns[0])
        lengths.add(len(steps))
    assert max(lengths) > 128


def test_odds_are_those_by_which_the_policy_acts(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Masked, bias=lambda output: float(output))
    for greedy in (False, True):
        _, steps = play(run, env=Masked, greedy=greedy)
        for step in steps:
            chances = [chance for _, chance in step.odds]
            assert chances == sorted(chances, reverse=True)
            assert sum(chances) <= 1 + 1e-6
            if greedy:
                assert step.odds[0][0] == step.action, "not the most probable of those allowed"


def test_metrics_are_told_as_they_stand_after_each_step(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Judged, metrics=("compliance",))
    _, steps = play(run, Judged)
    assert steps[0].metrics == {}, "the first step tells none"
    assert steps[-1].metrics == {"compliance": evaluate(run, env=Judged, episodes=2).metrics["compliance"][0]}


def test_a_checkpoint_is_a_run_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings: dict[str, Any] = {"collector": "sequential", "checkpoint_every": 1}
    config = Config(env="envs:toy", run_dir=str(folder), total_episodes=40, episodes_per_update=20, **settings)
    asyncio.run(train(config))
    first, last = sorted((folder / "checkpoints").glob("update-*"))
    now, before, run = (play(path)[1] for path in (last, first, folder))
    assert [step.odds for step in now] == [step.odds for step in run]
    assert [step.odds for step in before] != [step.odds for step in run]
    assert play(last)[0].player == "run, update-000002"
    assert evaluate(last, episodes=5).returns.tolist() == evaluate(folder, episodes=5).returns.tolist()
    assert evaluate_command([str(last), "--episodes", "5"]) == 0
    assert not list(folder.rglob("evaluation.json")), "of which checkpoint would it tell?"


@pytest.mark.parametrize(("fault", "error"), FAULTS)
def test_an_episode_that_breaks_off_says_where(fault: Fault, error: type[Exception], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "envs:toy")
    steps = 1 if error is EnvError else 2  # where it raises, the second one was not made
    with pytest.raises(error, match=rf"seed \d+, step {steps}: the environment r"):
        play(run, env=faulty(Toy, fault))


def test_an_observation_outside_its_space_is_refused(tmp_path: Path) -> None:
    class Odd(Toy):
        def observe(self) -> Any:
            return 5 if self.steps == 2 else super().observe()

    run = write_run(tmp_path / "run", lambda: Toy("one_hot"))
    fault = r"step 2: .* observation 5, which the Discrete space does not have"
    with pytest.raises(InvalidStepError, match=fault):
        play(run, lambda: Odd("one_hot"))


def test_a_line_tells_each_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run[red]\x1b[2J", "envs:toy")  # which Rich would take for markup
    assert replay([str(run), "--steps", "2", "--seed", "5", "--greedy"]) == 0
    out, err = capsys.readouterr()
    heading, *lines = out.splitlines()
    assert heading == "envs:toy, run[red]\ufffd[2J, greedy, seed 5"
    assert err == ""
    with contextlib.closing(play_back(load_run(run).limited_to(2), greedy=True, seed=5)) as playback:
        steps = list(playback.play())
    for line, step in zip(lines, steps, strict=True):
        expected = rf"step {step.step}: action {step.action} \| reward {step.reward:.6g}, return .* \| \[.*\]"
        assert re.match(expected, line), line
    assert lines[-1].endswith(" | truncated")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["nothing"], "there is no nothing: name the folder of a run"),
        (["run/weights.safetensors"], "holds weights alone: name the folder of their run, run"),
        (["run", "--seed", "-1"], r"seed cannot be negative \(-1\)"),
        (["run", "--steps", "0"], "at least 1"),
        (["run", "--env", "CartPole-v1"], "was trained on an environment with other spaces"),
    ],
)
def test_what_cannot_be_replayed_is_refused(
    flags: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run", "envs:toy")
    with pytest.raises(ConfigError, match=expected):
        replay(flags)

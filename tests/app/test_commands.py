"""Which command is carried out: the general one, or that of the run's domain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aiotrain.app.main import main
from aiotrain.config import Config


def run_of(env: str, folder: str) -> None:
    """Make the folder of a run on this environment, which has not learned anything."""
    Path(folder).mkdir()
    Path(folder, "config.json").write_text(json.dumps(Config(env=env).resolved()))


@pytest.mark.parametrize("arguments", [["run"], ["run", "--seed", "3"], ["no-run", "run"]])
def test_the_command_of_the_runs_domain_takes_the_general_ones_place(
    arguments: list[str], maze: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_of(maze, "run")
    assert main(["replay", *arguments]) == 3
    assert capsys.readouterr().out == f"a walk of {arguments[0]}\n"


def test_runs_of_other_environments_have_the_general_commands(maze: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_of("CartPole-v1", "run")
    run_of(maze, "other")
    assert main(["replay", "run"]) == 2
    assert "there is no file run/weights.safetensors" in capsys.readouterr().err
    assert main(["export", "other"]) == 2, "the domain has no such command"
    assert "there is no file other/weights.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("{}", "config.json is damaged, or of another version"),
        ('{"env": "CartPole-v1"}', "aiotrain 0.1 wrote them"),
        ('{"format": 2, "env": {"domain": "tests/Raft-v0"}}', "unknown domain 'tests/Raft-v0'"),
    ],
)
@pytest.mark.parametrize("command", ["replay", "export"])
def test_a_run_that_cannot_be_read_is_refused_with_the_reason(
    command: str, config: str, expected: str, maze: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run").mkdir()
    Path("run", "config.json").write_text(config)
    assert main([command, "run"]) == 2
    assert expected in capsys.readouterr().err


def test_a_domain_may_have_commands_of_its_own(maze: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_of(maze, "run")
    assert main(["corridor", "run"]) == 0
    assert capsys.readouterr().out == "G·······\n"


def test_unknown_commands_are_refused_with_the_nearest(maze: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["corider"]) == 2
    err = capsys.readouterr().err
    assert "unknown command 'corider'; did you mean corridor" in err
    assert "Training has flags alone." in err


def test_without_a_run_the_help_is_that_of_the_default_environment(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "--help"])
    assert ended.value.code == 0
    assert "--protocol" in capsys.readouterr().out

"""From flags to settings."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from aiotrain.app.parse_flags import parse_flags
from aiotrain.cage2 import Cage2
from aiotrain.config import Config, PPOConfig
from aiotrain.domains import domains
from aiotrain.errors import ConfigError


def test_without_flags_the_program_trains_its_default_environment() -> None:
    flags = parse_flags([])
    assert flags.config == dataclasses.replace(Config(env=Cage2()), run_dir=str(flags.run_dir))
    assert re.fullmatch(r"runs/Cage2-v0-\d{8}-\d{6}-\d+", str(flags.run_dir)), flags.run_dir
    assert (flags.checkpoint, flags.override, flags.plain) == (None, False, False)


def test_flags_reach_the_settings_of_every_group() -> None:
    flags = parse_flags(
        [
            *("--workers", "3", "--seed=7", "--metrics", "success", "score", "--curriculum", "module:Class"),
            *("--hidden-sizes", "8", "4", "--gamma", "0.5", "--red-agent", "mixed", "--patience", "5"),
            *("--run-dir", "run", "--plain", "--override", "--workflow", "reverse"),
        ]
    )
    config = flags.config
    assert (config.workers, config.seed, config.metrics) == (3, 7, ("success", "score"))
    assert (config.curriculum, config.run_dir, flags.run_dir) == ("module:Class", "run", Path("run"))
    assert (config.ppo.hidden_sizes, config.ppo.gamma) == ((8, 4), 0.5)
    assert isinstance(config.env, Cage2)
    assert (config.env.red_agent, config.env.search.patience) == ("mixed", 5)
    assert (flags.plain, flags.override) == (True, True)


def test_of_a_flag_that_is_there_twice_the_last_one_counts(maze: str) -> None:
    twice = ["--workers", "3", "--env", "CartPole-v1", "--env", maze, "--n-workers", "4", "--length", "5"]
    config = parse_flags(twice).config
    assert (config.workers, config.env) == (4, made(maze, length=5))


def test_a_domain_brings_its_flags_and_its_defaults(maze: str) -> None:
    domain = made(maze)
    assert parse_flags(["--env", maze]).config.ppo == domain.ppo != PPOConfig()
    config = parse_flags(["--env", maze, "--gamma", "0.5", "--enough", "0.25"]).config
    assert config.env == made(maze, lessons=dataclasses.replace(domain.lessons, enough=0.25))
    assert config.ppo == dataclasses.replace(domain.ppo, gamma=0.5)
    with pytest.raises(ConfigError, match="length must be at least 2, not 1"):
        parse_flags(["--env", maze, "--length", "1"])


def test_an_environment_without_a_domain_has_the_general_defaults() -> None:
    config = parse_flags(["--env", "CartPole-v1"]).config
    assert config == Config(env="CartPole-v1", run_dir=config.run_dir)
    assert config.ppo == PPOConfig()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--env", "CartPole-v1", "--lamp", "on"], "--lamp is a setting of maze/Corridor-v0 .* nothing to CartPole-v1"),
        (["--env", "maze/Corridor-v0", "--red-agent=mixed"], "--red-agent .* aiotrain/Cage2-v0 .* to maze/Corridor-v0"),
        (["--env", "maze/Corridor-v0", "--gp-beta", "1"], "--gp-beta is a setting of aiotrain/Cage2-v0"),
        (["--enough=1"], "nothing to aiotrain/Cage2-v0; leave it out, or choose --env maze/Corridor-v0"),
        (["--env", "maze/Corridor-v0", "--red_agent", "x"], "--red-agent is a setting of aiotrain/Cage2-v0"),
    ],
)
def test_flags_of_another_domain_are_refused(flags: list[str], expected: str, maze: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse_flags(flags)


def made(env_id: str, **settings: Any) -> Any:
    """Return the settings of an installed domain."""
    return domains()[env_id](**settings)


@pytest.mark.parametrize("flags", [["--env"], ["--resume"], ["--env", "--seed", "3"], ["--workers", "many"], ["x"]])
def test_what_is_no_flag_or_no_value_is_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_flags(flags)
    assert ended.value.code == 2
    assert flags[0] in capsys.readouterr().err

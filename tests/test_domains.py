"""A domain of another distribution: how it is found, and that each of its parts is where it belongs.

The package is tests/other_domain/maze_domain. What announces it is written by the tests, as an installer would.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from aiotrain import Config, ConfigError, PPOConfig, Result, Trainer, Update, load_policy, train
from aiotrain.domains import DEFAULT_ENV, GROUP, DomainLeftOut, domain_of, domains
from aiotrain.runs.checkpoints import library_versions
from aiotrain.runs.export.agent_file import parts_of
from aiotrain.runs.load_run import load_run
from collector_harness import COLLECTORS

if TYPE_CHECKING:
    from maze_domain.domain import Maze

ROOT = Path(__file__).parents[1]
PACKAGES = Path(__file__).parent / "other_domain"
MAZE = "maze/Corridor-v0"
ENTRY = {"maze": "maze_domain.domain:Maze"}
WITHIN_S = 90


def announce(folder: Path, entries: Mapping[str, str], distribution: str = "maze_domain") -> Path:
    """Write into ``folder`` what an installer leaves of a distribution with these entry points."""
    about = folder / f"{distribution}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{GROUP}]\n" + "".join(f"{a} = {b}\n" for a, b in entries.items()))
    return folder


@pytest.fixture
def maze(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Maze]]:
    """The domain, installed in this process."""
    for folder in (PACKAGES, announce(tmp_path / "site", ENTRY)):
        monkeypatch.syspath_prepend(folder)
    domains.cache_clear()
    yield domains()[MAZE]  # type: ignore[misc]
    domains.cache_clear()


def python(site: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, (ROOT, PACKAGES, site)))
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )


SMALL = ("--workers", "2", "--total-episodes", "40", "--episodes-per-update", "10", "--device", "cpu", "--plain")


# --------------------------------------------------------------------- being found


def test_it_is_found_by_its_entry_point(tmp_path: Path) -> None:
    code = (
        "from aiotrain import Config\n"
        f"config = Config(env={MAZE!r})\n"
        "print(type(config.env).__module__, config.env.length, config.ppo.hidden_sizes, *config.env_factory().metrics)"
    )
    done = python(announce(tmp_path / "site", ENTRY), "-c", code)
    assert (done.stdout, done.stderr) == ("maze_domain.domain 8 (8,) success\n", "")


def test_domains_that_cannot_be_used_are_warned_of_and_left_out(tmp_path: Path) -> None:
    site = announce(tmp_path / "site", ENTRY)
    (tmp_path / "site" / "other_maze.py").write_text(
        "from maze_domain.domain import Maze\nclass Same(Maze):\n    pass\nclass Nothing:\n    pass\n"
    )
    broken = {
        "gone": "no_such_module:Domain",
        "lacking": "other_maze:NoSuchName",
        "strange": "other_maze:Nothing",
        "second": "other_maze:Same",
        "settings": "other_maze:Maze.faults",
    }
    announce(tmp_path / "site", broken, "zz_broken")
    done = python(site, "-W", "always", "-c", "from aiotrain.domains import domains; print(*sorted(domains()))")
    assert done.stdout == f"aiotrain/Cage2-v0 {MAZE}\n", done.stderr
    for name, words in {
        "gone": "No module named 'no_such_module'",
        "lacking": "NoSuchName",
        "strange": "other_maze:Nothing does not derive from aiotrain.Domain",
        "second": f"{MAZE} is the env_id of Maze already",
        "settings": "left out",
    }.items():
        (line,) = (line for line in done.stderr.splitlines() if f"the domain {name} of zz_broken" in line)
        assert words in line, line


BROKEN = """
import dataclasses
from aiotrain import EnvFactory
from maze_domain.domain import Maze
def made(name, default=0, **members):
    field = (name, int, dataclasses.field(**({} if default is None else {"default": default})))
    made = dataclasses.make_dataclass("Made", [field], bases=(Maze,), frozen=True, kw_only=True)
    return type("Made", (made,), {"env_id": f"broken/{name}", **members})
NoDefault = made("size", None)
Workers, Env, Plain, NWorkers, Rate, NoPlain, Enough = (
    made(name) for name in ("workers", "env", "plain", "n_workers", "learning_rate", "no_plain", "enough")
)
Verbs = made("size", verbs=None)
Number = made("size", env_id=7)
Unknown = made("size", __annotations__={"weight": "Ton"})
"""


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("broken_maze:NoDefault", "size"),
        ("broken_maze:Workers", "--workers is a flag already"),
        ("broken_maze:Env", "--env is a flag already"),
        ("broken_maze:Plain", "--plain is a flag already"),
        ("broken_maze:NWorkers", "--n-workers is a flag already"),
        ("broken_maze:Rate", "--learning-rate is a flag already"),
        ("broken_maze:NoPlain", "--no-plain is a flag already"),
        ("broken_maze:Enough", "--enough is a flag already"),
        ("broken_maze:Verbs", "verbs must be of type"),
        ("broken_maze:Number", "env_id must be of type"),
        ("broken_maze:Unknown", "name 'Ton' is not defined"),
        ("leaving_maze:Domain", "SystemExit(3)"),
    ],
)
def test_a_domain_that_would_break_other_trainings_is_left_out(
    target: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (PACKAGES, announce(tmp_path, {"broken": target}, "zz_broken")):
        monkeypatch.syspath_prepend(folder)
    (tmp_path / "broken_maze.py").write_text(BROKEN)
    (tmp_path / "leaving_maze.py").write_text("raise SystemExit(3)\n")
    sys.modules.pop("broken_maze", None)
    domains.cache_clear()
    with pytest.warns(DomainLeftOut, match="the domain broken of zz_broken is left out") as caught:
        found = domains()
    domains.cache_clear()
    assert not [env_id for env_id in found if env_id != DEFAULT_ENV]
    assert words in str(caught[0].message)


def test_its_id_is_its_defaults(maze: type[Maze]) -> None:
    assert domain_of(MAZE) == maze()
    assert domain_of("CartPole-v1") is None
    assert Config(env=MAZE) == Config(env=maze())


# ------------------------------------------------------------------------ settings


def test_its_own_ppo_settings_are_the_defaults(maze: type[Maze]) -> None:
    assert Config(env=MAZE).ppo == maze.ppo != PPOConfig()
    assert Config(env=MAZE, ppo=PPOConfig(gamma=0.5)).ppo == PPOConfig(gamma=0.5)
    assert Config(env="CartPole-v1").ppo == PPOConfig()


def test_its_faults_come_with_all_others(maze: type[Maze]) -> None:
    from maze_domain.domain import Lessons

    with pytest.raises(ConfigError) as caught:
        Config(env=maze(length=1, lessons=Lessons(enough=2)), workers=0)
    assert str(caught.value).splitlines() == [
        "3 settings cannot work:",
        "  - workers must be at least 1, not 0",
        "  - length must be at least 2, not 1",
        "  - enough must lie between 0 and 1, not at 2",
    ]
    with pytest.raises(ConfigError, match=r"max-episode-steps \(3\) is too few for a corridor of 6 cells"):
        Config(env=maze(length=6), max_episode_steps=3)
    with pytest.raises(ConfigError, match="lamp must be one of on, off, not 'dim'"):
        Config(env=maze(lamp="dim"))  # type: ignore[arg-type]


def test_another_class_with_its_id_is_refused(maze: type[Maze], monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(maze):  # type: ignore[misc, valid-type]
        pass

    with pytest.raises(ConfigError, match=rf"Mine has the env_id {MAZE}, which is that of maze_domain.domain.Maze"):
        Config(env=Mine())
    monkeypatch.setattr(Mine, "env_id", "maze/Mine-v0")
    assert Config(env=Mine()).env == Mine(), "a domain need not be installed"


def test_its_settings_survive_a_file(maze: type[Maze]) -> None:
    from maze_domain.domain import Lessons

    config = Config(env=maze(length=5, lamp="off", lessons=Lessons(enough=0.5)))
    values = json.loads(json.dumps(config.resolved()))
    assert values["env"] == {"domain": MAZE, "length": 5, "lamp": "off", "lessons": {"enough": 0.5}}
    assert Config.of(values) == config


def test_settings_of_a_domain_that_is_not_installed_say_so(maze: type[Maze], monkeypatch: pytest.MonkeyPatch) -> None:
    values = Config(env=maze()).resolved()
    monkeypatch.undo()
    domains.cache_clear()
    with pytest.raises(ConfigError, match=rf"unknown domain '{MAZE}'.* Is its distribution installed\?"):
        Config.of(values)


# ---------------------------------------------------------------------- the program


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The folder with the distribution, that of a run by command line, and what it printed."""
    folder = tmp_path_factory.mktemp("maze")
    site = announce(folder / "site", ENTRY)
    flags = ("--env", MAZE, "--length", "6", "--lamp", "off", "--enough", "0.6", "--run-dir", str(folder / "run"))
    done = python(site, "-m", "aiotrain", *flags, *SMALL)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return site, folder / "run", done.stdout


def test_its_flags_are_taken(ran: tuple[Path, Path, str]) -> None:
    _, run, _ = ran
    config = json.loads((run / "config.json").read_text())
    assert config["env"] == {"domain": MAZE, "length": 6, "lamp": "off", "lessons": {"enough": 0.6}}
    assert config["ppo"]["hidden_sizes"] == [8]


def test_the_log_shows_title_details_metric_and_panel(ran: tuple[Path, Path, str]) -> None:
    *_, printed = ran
    lines = printed.splitlines()
    assert lines[0] == "environment corridor of 6 cells: 6 inputs (int64), 2 actions"
    assert lines[1] == "lamp        is off"
    last = next(line for line in reversed(lines) if line.startswith("update="))
    assert " success=" in last
    assert " lesson=" in last
    assert "_of_5 " in last
    (told,) = (line for line in lines if line.startswith("lessons "))
    assert "walks begin at cell" in told


def test_updates_have_metric_label_and_bonus(ran: tuple[Path, Path, str]) -> None:
    _, run, _ = ran
    with (run / "updates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["curriculum"] == "from 1"
    assert [row["success_count"] for row in rows] == ["10"] * 4
    assert all(0 <= float(row["success"]) <= 1 for row in rows)
    assert {float(row["mean_bonus"]) for row in rows} == {0.0}, "the lamp is off"


def test_a_number_that_it_does_not_name_is_said_once(ran: tuple[Path, Path, str]) -> None:
    _, run, _ = ran
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    (message,) = (each["message"] for each in events if each["event"] == "warning")
    assert "--metrics bumps" in message


@pytest.mark.parametrize(("command", "code", "told"), [("corridor", 0, "G·····"), ("replay", 3, "a walk of run")])
def test_it_has_a_command_of_its_own_and_one_in_place_of_a_general_one(
    ran: tuple[Path, Path, str], command: str, code: int, told: str
) -> None:
    site, run, _ = ran
    done = python(site, "-m", "aiotrain", command, str(run))
    assert (done.returncode, done.stdout.strip(), done.stderr) == (code, told, "")


def test_its_picture_is_drawn(ran: tuple[Path, Path, str]) -> None:
    site, run, _ = ran
    done = python(site, "-m", "aiotrain", "plot", str(run))
    assert (done.returncode, done.stderr) == (0, "")
    assert (run / "lessons.png").exists()
    assert (run / "return.png").exists()


def test_its_exported_agent_says_what_it_walks_along(ran: tuple[Path, Path, str], tmp_path: Path) -> None:
    site, run, _ = ran
    done = python(site, "-m", "aiotrain", "export", str(run), "--folder", str(tmp_path / "agent"), "--formats", "numpy")
    assert (done.returncode, done.stderr) == (0, "")
    source = (tmp_path / "agent" / "agent.py").read_text()
    assert "It walks along corridor of 6 cells." in source
    assert "'cells': 6" in source


@pytest.mark.parametrize(("agent", "cause"), [("PASSED", "not callable"), ("Path", "not of type AgentParts|PathLike")])
def test_an_agent_that_cannot_be_written_is_refused(
    agent: str, cause: str, ran: tuple[Path, Path, str], maze: type[Maze], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run, _ = ran
    monkeypatch.setattr(maze, "agent", f"maze_domain.domain:{agent}")
    with pytest.raises(ConfigError, match=f"the part agent of the domain {MAZE} cannot be used: TypeError: .*{cause}"):
        parts_of(load_run(run))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--env", "CartPole-v1", "--length", "5"],
            f"--length is a setting of {MAZE} and means nothing to CartPole-v1",
        ),
        (["--lamp=off"], f"--lamp is a setting of {MAZE} and means nothing to aiotrain/Cage2-v0"),
        (["--env", MAZE, "--red-agent", "mixed"], "--red-agent is a setting of aiotrain/Cage2-v0"),
        (["--env", MAZE, "--length", "1"], "length must be at least 2, not 1"),
    ],
)
def test_flags_that_cannot_be_are_refused(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = python(announce(tmp_path / "site", ENTRY), "-m", "aiotrain", *arguments, *SMALL, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr, done.stderr


def test_help_of_its_environment_has_its_flags(tmp_path: Path) -> None:
    done = python(announce(tmp_path / "site", ENTRY), "-m", "aiotrain", "--env", MAZE, "--help")
    assert done.returncode == 0, done.stderr
    for words in ("--length", "Cells of the corridor", "--enough", "aiotrain corridor"):
        assert words in done.stdout
    assert "--red-agent" not in done.stdout


# --------------------------------------------------------------------------- Python


def small(env: Any, **changes: Any) -> Config:
    settings = {"workers": 2, "total_episodes": 60, "episodes_per_update": 10, "max_policy_lag": 0, "device": "cpu"}
    return Config(env=env, **(settings | changes))


def run(settings: Config) -> Result:
    result: Result = asyncio.run(asyncio.wait_for(train(settings), WITHIN_S))
    return result


def test_a_resumed_run_has_its_curriculum_and_is_the_same_to_the_bit(maze: type[Maze], tmp_path: Path) -> None:
    async def first() -> int:
        async with asyncio.timeout(WITHIN_S), Trainer(small(maze(length=5), run_dir=str(tmp_path / "run"))) as trainer:
            for _ in range(3):
                await anext(trainer)
            return trainer.status().curriculum.start

    async def second() -> tuple[int, Result]:
        async with asyncio.timeout(WITHIN_S), Trainer.resume(tmp_path / "run") as trainer:
            start = trainer.status().curriculum.start
            async for _ in trainer:
                pass
            return start, trainer.result()

    start = asyncio.run(first())
    again, result = asyncio.run(second())
    assert again == start > 1
    np.testing.assert_array_equal(result.weights, run(small(maze(length=5))).weights)


def test_its_run_is_played_as_it_says(maze: type[Maze], tmp_path: Path) -> None:
    """By the policy that passed the last lesson, with the lamp off."""
    run(small(maze(length=3), run_dir=str(tmp_path / "run")))
    passed, _ = load_policy(tmp_path / "run" / "weights-passed.safetensors")
    trained = load_run(tmp_path / "run")
    assert trained.config.env == maze(length=3, lamp="off")
    np.testing.assert_array_equal(trained.policy.parameters, passed.parameters)


def test_another_version_of_its_library_is_told_on_resume(
    maze: type[Maze], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def begin() -> None:
        async with Trainer(small(maze(), run_dir=str(tmp_path / "run"))) as trainer:
            await anext(trainer)

    async def go_on() -> tuple[str, ...]:
        async with Trainer.resume(tmp_path / "run") as trainer:
            return trainer.status().warnings

    asyncio.run(asyncio.wait_for(begin(), WITHIN_S))
    library_versions.cache_clear()
    (about,) = (tmp_path / "site").glob("*.dist-info")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: maze_domain\nVersion: 2.0\n")
    told = asyncio.run(asyncio.wait_for(go_on(), WITHIN_S))
    library_versions.cache_clear()
    assert any("made with maze_domain 1.0: the run goes on, but not to the bit" in each for each in told), told


def test_bonus_and_success_reach_the_update(maze: type[Maze]) -> None:
    """In a corridor of two cells, the bonus is had by arriving."""

    async def update() -> Update:
        async with asyncio.timeout(WITHIN_S), Trainer(small(maze(length=2), max_episode_steps=2)) as trainer:
            return await anext(trainer)

    told = asyncio.run(update())
    success = told.metrics["success"]
    assert success.count == 10
    assert told.mean_bonus == 0.5 * success.mean > 0
    assert told.mean_return == -told.mean_length


@pytest.mark.parametrize("collector", COLLECTORS)
@pytest.mark.usefixtures("one_ray")
def test_the_domain_itself_never_travels(collector: str, maze: type[Maze]) -> None:
    class Heavy(maze):  # type: ignore[misc, valid-type]
        env_id = "maze/Heavy-v0"

        def __reduce__(self) -> Any:
            raise AssertionError("the domain is sent to a worker")

    with pytest.raises(AssertionError):
        pickle.dumps(Heavy())
    assert run(small(Heavy(), collector=collector, total_episodes=10)).episodes == 10

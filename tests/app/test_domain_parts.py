"""A part of a domain that raises, is missing or is of a wrong type is told with the domain's and the part's name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from program import SMALL, Start

from aiotrain.app.main import main
from aiotrain.config import Config
from aiotrain.domains import domains


def raising(*_: object) -> Any:
    raise KeyError("lost")


def answering(answer: object) -> Callable[..., Any]:
    return lambda *_: answer


def panel_without_title() -> object:
    return object()


pictures: Any = {}
"""What the domain's plots are, in a test."""


def plots(run: Path) -> Any:
    return pictures


def change(maze: str, monkeypatch: pytest.MonkeyPatch, **members: object) -> None:
    for name, member in members.items():
        monkeypatch.setattr(domains()[maze], name, member)


def refused(arguments: list[str], part: str, maze: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the message with which the program refuses, which names the part and the domain."""
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert f"the part {part} of the domain {maze}" in told.err
    return told.err


@pytest.mark.parametrize(
    ("part", "member", "cause"),
    [
        ("faults", raising, "KeyError: 'lost'"),
        ("faults", answering("too dark"), "it is 'too dark', which is not of type list[str]"),
        ("faults", answering(None), "it is None"),
        ("faults", answering([1]), "it is [1]"),
        ("factory", raising, "KeyError: 'lost'"),
        ("factory", answering(None), "it is None, which is not of type EnvFactory"),
        ("title", property(raising), "KeyError: 'lost'"),
        ("title", property(answering(7)), "it is 7, which is not of type str"),
        ("details", property(raising), "KeyError: 'lost'"),
        ("details", property(answering({"lamp": 7})), "it is {'lamp': 7}"),
        ("panel", "maze_domain.panel:NoSuch", "NoSuch"),
        ("panel", "no_such_module:Panel", "No module named 'no_such_module'"),
        ("panel", f"{__name__}:raising", "KeyError: 'lost'"),
        ("panel", f"{__name__}:panel_without_title", "no attribute 'title'"),
    ],
)
def test_a_training_does_not_start_with_a_broken_part(
    part: str,
    member: object,
    cause: str,
    maze: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(maze, monkeypatch, **{part: member})
    flags = ["--env", maze, *SMALL, "--plain", "--run-dir", "run"]
    assert cause in refused(flags, part, maze, capsys)
    assert not Path("run").exists(), "the run was begun"


def learned_once(maze: str) -> Path:
    """Return the folder of a run that has one update."""
    run = Path("run")
    run.mkdir()
    (run / "config.json").write_text(json.dumps(Config(env=maze).resolved()))
    (run / "updates.csv").write_text("episodes,mean_return,min_return,max_return\n10,1,0,2\n")
    return run


@pytest.mark.parametrize(
    ("found", "part", "cause"),
    [
        (None, "plots", "it is None"),
        ({"lessons": 7}, "plots", "it is {'lessons': 7}"),
        ({"return": raising}, "plots (return)", "KeyError: 'lost'"),
        *(({name: print}, "plots", repr(name)) for name in ("../outside", "/outside", "..", "", "a/b", "a\nb")),
    ],
)
def test_pictures_that_cannot_be_drawn_are_refused(
    found: Any,
    part: str,
    cause: str,
    maze: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = learned_once(maze)
    change(maze, monkeypatch, plots=f"{__name__}:plots")
    monkeypatch.setattr(f"{__name__}.pictures", found)
    assert cause in refused(["plot", str(run)], part, maze, capsys)
    assert [*Path().rglob("*.png")] == []


@pytest.mark.parametrize(
    ("command", "members", "part", "cause"),
    [
        ("plot", {"plots": "maze_domain.plots:no_such"}, "plots", "no_such"),
        ("corridor", {"verbs": {"corridor": "no_such_module:run"}}, "verbs (corridor)", "'no_such_module'"),
        ("corridor", {"verbs": {"corridor": "maze_domain.domain:PASSED"}}, "verbs (corridor)", "not of type Callable"),
        ("replay", {"verbs": {"replay": "maze_domain.commands:no_such"}}, "verbs (replay)", "no_such"),
        ("export", {"to_play": raising}, "to_play", "KeyError: 'lost'"),
        ("export", {"to_play": answering(None)}, "to_play", "it is None"),
    ],
)
def test_a_command_says_which_part_it_cannot_use(
    command: str,
    members: dict[str, object],
    part: str,
    cause: str,
    maze: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = learned_once(maze)
    change(maze, monkeypatch, **members)
    assert cause in refused([command, str(run)], part, maze, capsys)


def test_a_domain_that_is_left_out_is_told_in_one_line(tmp_path: Path, maze: str, start: Start) -> None:
    about = tmp_path / "site" / "zz_broken-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: zz_broken\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[aiotrain.domains]\nbroken = no_such_module:Domain\n")
    _, err = start("nothing").communicate(timeout=60)
    warned, refusal = err.splitlines()
    assert warned.startswith("aiotrain: the domain broken of zz_broken is left out: ModuleNotFoundError"), err
    assert refusal.startswith("aiotrain: unknown command 'nothing'"), err

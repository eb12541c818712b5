"""Watching an episode: it is the one that is evaluated, it is drawn for any terminal, told to any log and kept."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console
from test_evaluate import ROOT, Counting, write_run

from aiotrain import Config, ConfigError, EnvError, InvalidStepError, SearchConfig, evaluate, train
from aiotrain.app.console.episode_viewer import Key, watch
from aiotrain.app.console.svg_animation import film
from aiotrain.app.main import main
from aiotrain.cage2.official.baselines import greedy_actions
from aiotrain.cage2.playback.ground_truth import Deed, Host, Scene
from aiotrain.cage2.playback.screen import heading, plain_moment, render_moment
from aiotrain.cage2.scenario import HOSTS, action_name
from aiotrain.cage2.workflows import NAMED_ORDERS, order_text
from aiotrain.runs.playback import Moment, Replay, Setting
from aiotrain.testing import Fault, faulty
from envs import Action, Masked, Observation, Toy

CAGE2 = Config.env
FAULTS = [
    ("raise", EnvError),
    ("sys.exit", EnvError),
    ("shape", InvalidStepError),
    ("nan", InvalidStepError),
]
SETTING = Setting(CAGE2, "quiet-river", "sampled", 3, "compiled", "main", "", 30)


def play(*args: Any, **settings: Any) -> tuple[Setting, list[Moment]]:
    with contextlib.closing(Replay(*args, **settings)) as replay:
        return replay.setting, list(replay.play())


# ------------------------------------------------------------------ what is played


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("simulator", ["compiled", "cyborg"])
@pytest.mark.parametrize(
    "settings",
    [
        {"workflow": "none"},
        {"workflow": "reverse", "red_agent": "RedMeanderAgent"},
        {"workflow": "none", "observation": "memory", "actions": "compact"},
    ],
)
def test_it_is_the_first_episode_of_an_evaluation(
    settings: dict[str, Any], simulator: Literal["compiled", "cyborg"], greedy: bool, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", CAGE2, bias=lambda output: math.sin(7 * output), **settings)
    how: dict[str, Any] = {"simulator": simulator, "greedy": greedy, "max_episode_steps": 40}
    for seed in range(3):
        evaluated = evaluate(run, episodes=2, seed=seed, **how)
        setting, moments = play(run, seed=seed, **how)
        assert [moment.step for moment in moments] == list(range(1, 41))
        assert moments[-1].episode_return == pytest.approx(evaluated.returns[0])
        assert moments[-1].episode_return == pytest.approx(sum(moment.reward for moment in moments))
        np.testing.assert_equal(moments[-1].compliance, evaluated.compliance[0])
        assert [moment.ending for moment in moments] == [""] * 39 + ["truncated"]
        assert setting.how == ("greedy" if greedy else "sampled")
        assert setting.order == (order_text(NAMED_ORDERS["reverse"]) if "red_agent" in settings else "")
        for moment in moments:
            assert moment.scene is not None
            assert moment.scene.red_agent == settings.get("red_agent", "B_lineAgent")
            assert moment.action == " ".join(filter(None, moment.scene.blue[:2])), (
                "the action told is not the one played"
            )


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
        _, moments = play(run, env=make, seed=seed)
        assert moments[-1].episode_return == pytest.approx(evaluated.returns[0])
        assert len(moments) == evaluated.lengths[0]
        assert all(moment.scene is None for moment in moments)


def test_an_episode_may_be_longer_than_what_a_worker_draws_at_a_time(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Counting, bias=lambda output: [0.0, 1.0, 2.0][output])
    lengths = set()
    for seed in range(6):
        evaluated = evaluate(run, env=Counting, episodes=2, seed=seed)
        _, moments = play(run, env=Counting, seed=seed)
        assert (len(moments), moments[-1].episode_return) == (evaluated.lengths[0], evaluated.returns[0])
        lengths.add(len(moments))
    assert max(lengths) > 128


def test_odds_are_those_by_which_the_policy_acts(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Masked, bias=lambda output: float(output))
    for greedy in (False, True):
        _, moments = play(run, env=Masked, greedy=greedy)
        for moment in moments:
            chances = [chance for _, chance in moment.odds]
            assert chances == sorted(chances, reverse=True)
            assert sum(chances) <= 1 + 1e-6
            if greedy:
                assert moment.odds[0][0] == moment.action, "not the most probable of those allowed"


@pytest.mark.parametrize("simulator", ["compiled", "cyborg"])
def test_agents_without_learning(simulator: Literal["compiled", "cyborg"]) -> None:
    how: dict[str, Any] = {"simulator": simulator, "max_episode_steps": 60, "red_agent": "RedMeanderAgent"}
    setting, moments = play(agent="sleep", **how)
    assert {moment.action for moment in moments} == {"Sleep"}
    assert (setting.player, setting.how, setting.order, moments[0].odds) == ("sleep", "", "", ())
    _, moments = play(agent="random", **how)
    assert len({moment.action for moment in moments}) > 40
    setting, moments = play(agent="greedy-heuristic", **how)
    actions = greedy_actions(NAMED_ORDERS["critical_first"])
    held = 1 << HOSTS.index("User0")
    for moment in moments:
        assert moment.scene is not None
        assert moment.action == action_name(actions[held]), "not what the heuristic does where red holds this"
        held = sum(1 << host for host, each in enumerate(moment.scene.hosts) if each.access != "none")
    assert setting.order == order_text(NAMED_ORDERS["critical_first"])
    assert moments[-1].compliance == 1


def test_a_checkpoint_is_a_run_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings: dict[str, Any] = {"collector": "sequential", "workflow": "none", "checkpoint_every": 1}
    config = Config("envs:toy", run_dir=str(folder), total_episodes=40, episodes_per_update=20, **settings)
    asyncio.run(train(config))
    first, last = sorted((folder / "checkpoints").glob("update-*"))
    now, before, run = (play(path)[1] for path in (last, first, folder))
    assert [moment.odds for moment in now] == [moment.odds for moment in run]
    assert [moment.odds for moment in before] != [moment.odds for moment in run]
    assert play(last)[0].player == "run, update-000002"
    assert evaluate(last, episodes=5).returns.tolist() == evaluate(folder, episodes=5).returns.tolist()
    assert main(["evaluate", str(last), "--episodes", "5"]) == 0
    assert not list(folder.rglob("evaluation.json")), "of which checkpoint would it tell?"


def test_a_checkpoint_of_a_search_has_a_policy_for_any_order_or_says_that_it_has_not(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"collector": "sequential", "max_episode_steps": 5, "total_episodes": 40}
    for inherit in ("latest", "nearest"):
        folder = tmp_path / inherit
        search = SearchConfig(inherit=inherit, fixed_episodes=20, parallel_workflows=1)  # type: ignore[arg-type]
        config = Config(run_dir=str(folder), episodes_per_update=20, workflow_search=search, **settings)
        asyncio.run(train(config))
        (last,) = (folder / "checkpoints").glob("update-*")
        if inherit == "latest":
            assert play(last, workflow="reverse")[0].order == order_text(NAMED_ORDERS["reverse"])
            assert play(last)[0].order == play(folder)[0].order
        else:
            with pytest.raises(ConfigError, match="has a policy for each order"):
                play(last)


@pytest.mark.parametrize(("fault", "error"), FAULTS)
def test_an_episode_that_breaks_off_says_where(fault: Fault, error: type[Exception], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "envs:toy")
    steps = 1 if error is EnvError else 2  # where it raises, the second one was not made
    with pytest.raises(error, match=rf"seed \d+, step {steps}: the environment r"):
        play(run, env=faulty(Toy, fault))


# ----------------------------------------------------------------------- how it is drawn


def scene(blue: Deed, red: Deed, gate_open: bool = False, service_down: bool = False, **hosts: Host) -> Scene:
    quiet = [hosts.get(name, Host(name, "none", (), "none", "no")) for name in HOSTS]
    return Scene(
        "B_lineAgent", tuple(quiet), gate_open, service_down, blue, red, (("Enterprise1", 1.0), ("User1", 0.1))
    )


def moment(step: int, told: Scene, odds: tuple[tuple[str, float], ...] = (), compliance: float = math.nan) -> Moment:
    return Moment(step, "Restore User1", odds, -1.1, -1.1 * step, np.zeros(52, np.int8), "", compliance, told)


EVENTFUL = scene(
    Deed("Restore", "User1", True, "red loses it"),
    Deed("ExploitRemoteService", "Enterprise1", False, "HTTPSRFI meets DecoyTomcat"),
    gate_open=True,
    User0=Host("User0", "privileged", (), "none", "no"),
    User1=Host("User1", "none", ("DecoyApache", "DecoySmss", "DecoySvchost", "DecoyTomcat"), "none", "user"),
    User2=Host("User2", "user", (), "none", "no"),
    Enterprise1=Host("Enterprise1", "user", ("DecoyTomcat",), "exploit", "user"),
    Enterprise2=Host("Enterprise2", "privileged", ("DecoyFemitter",), "scan", "unknown"),
)
MOMENTS = [moment(step, EVENTFUL, (("Restore User1", 0.62), ("Sleep", 0.2)), 0.5) for step in range(1, 13)]


def drawn(
    width: int, height: int, setting: Setting = SETTING, moments: list[Moment] = MOMENTS, **how: Any
) -> list[str]:
    console = Console(file=StringIO(), width=width, height=height, color_system=None)
    console.print(render_moment(setting, moments, width, height, **how), end="", crop=False)
    return cast(StringIO, console.file).getvalue().splitlines()


@pytest.mark.parametrize("order", ["", order_text(NAMED_ORDERS["reverse"])])
@pytest.mark.parametrize("size", [(80, 24), (76, 23), (120, 40), (250, 70), (79, 22), (40, 24), (20, 8), (1, 1)])
def test_a_frame_fills_any_terminal(size: tuple[int, int], order: str) -> None:
    width, height = size
    lines = drawn(width, height, dataclasses.replace(SETTING, order=order), keys=True)
    assert {cell_len(line) for line in lines} == {width}
    assert len(lines) <= height


def row_of(lines: list[str], name: str) -> str:
    (row,) = (line for line in lines if re.search(rf"[○◐●] {name}\b", line))
    return row


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_a_frame_tells_truth_view_and_deeds(size: tuple[int, int]) -> None:
    lines = drawn(*size, dataclasses.replace(SETTING, order=order_text(NAMED_ORDERS["reverse"])), keys=True)
    text = "\n".join(lines)
    for name in HOSTS:
        row_of(lines, name)
    assert "● User0  privileged" in text
    assert re.search(r"○ User1 +B✓ │", text), "blue acted there, and succeeded"
    assert re.search(r"◐ Enterprise1( +user)? +R✗ │", text), "red acted there, and failed"
    below = lines[lines.index(row_of(lines, "Enterprise1")) + 1 :]
    assert "◇ tomcat" in below[0]
    assert "sees exploit user" in below[1]
    assert re.search(r"◇ (apac smss svch tomc|apache smss svchost tomcat) ", text)
    assert re.search(r"sees user +≠ ", text), "blue takes a free host for red's"
    assert re.search(r"sees nothing +≠ ", text), "blue does not see that red holds it"
    assert "sees scan unknown" in text
    assert re.search(r"blue +Restore User1 ✓  red loses it", text)
    assert re.search(r"red +ExploitRemoteService Enterprise1 ✗  HTTPSRFI meets DecoyTomcat", text)
    assert re.search(r"reward -1\.1: Enterprise1 -1, User1 -0\.1 .*return -13\.2", text)
    assert re.search(r"policy 62% Restore User1 · 20% Sleep", text)
    assert re.search(r"order  user > op_host > .*complies 50%", text)
    assert "step 12 / 30" in text
    assert text.count("─▶") == 2, "an enterprise server opens the way"
    assert "q quit" in text
    closed = dataclasses.replace(EVENTFUL, gate_open=False, service_down=True)
    text = "\n".join(drawn(*size, moments=[moment(1, closed)]))
    assert (text.count("─▶"), text.count("╌✕")) == (1, 1)
    assert "OTService is down" in text
    assert "q quit" not in text


@pytest.mark.parametrize("width", [80, 120])
def test_other_rules_than_main_are_named(width: int) -> None:
    setting, told = dataclasses.replace(SETTING, rules="leaderboard"), "against B_lineAgent by leaderboard rules"
    assert told in drawn(width, 24, setting)[0]
    assert told in heading(setting, EVENTFUL)
    assert "rules" not in drawn(width, 24)[0] + heading(SETTING, EVENTFUL)


def test_a_sweep_is_marked_on_its_subnet() -> None:
    swept = scene(Deed("Sleep", "", None, ""), Deed("DiscoverRemoteSystems", "Operational", False, "the way is closed"))
    assert any(re.search(r"─ Operational ─+ R✗ ─╮", line) for line in drawn(80, 24, moments=[moment(1, swept)]))


def test_a_large_terminal_lists_the_last_steps() -> None:
    lines = drawn(120, 40)
    told = [line for line in lines if re.search(r"│ +\d+ │ ✓ Restore User1", line)]
    assert [int(line.split()[1]) for line in told][:3] == [12, 11, 10], "the newest first"


def test_a_narrow_terminal_lists_the_hosts() -> None:
    lines = drawn(50, 30)
    assert all(row_of(lines, name) for name in HOSTS)
    assert re.search(r"◐ Enterprise1 +R✗ +exploit user ◇1", row_of(lines, "Enterprise1"))
    assert re.search(r"○ User1 +B✓ +≠ user ◇4", row_of(lines, "User1"))
    closed = dataclasses.replace(EVENTFUL, gate_open=False, service_down=True)
    assert any("Operational  closed  OTService is down" in line for line in drawn(50, 30, moments=[moment(1, closed)]))


def test_colour_tells_nothing_that_characters_do_not() -> None:
    """Each of these differs from the others in what it says, not only in how it looks."""
    texts = set()
    accesses: list[Any] = ["none", "user", "privileged"]
    for access in accesses:
        for success in (True, False):
            told = scene(
                Deed("Sleep", "", None, ""),
                Deed("PrivilegeEscalate", "User1", success, ""),
                User1=Host("User1", access, (), "none", "no"),
            )
            texts |= {"\n".join(drawn(*size, moments=[moment(1, told)])) for size in ((80, 24), (40, 24))}
    assert len(texts) == 12


# ------------------------------------------------------------------------- as lines


def test_a_line_tells_the_step_and_nothing_of_it_is_markup() -> None:
    assert plain_moment(MOMENTS[0]) == (
        "step 1: blue Restore User1 succeeds: red loses it"
        " | red ExploitRemoteService Enterprise1 fails: HTTPSRFI meets DecoyTomcat"
        " | reward -1.1, return -1.1"
        " | red holds Enterprise1 Enterprise2* User0* User2"
        " | blue sees Enterprise1 exploit user, Enterprise2 scan unknown, User1 user"
    )
    other = dataclasses.replace(MOMENTS[0], scene=None, action="\x1b[2J", ending="terminated")
    told = plain_moment(other)
    assert "\x1b" not in told
    assert told.endswith(" | terminated")
    assert "[0 0 0" in told, "not what was observed"


def test_without_a_terminal_there_is_a_line_for_each_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    run = write_run(tmp_path / "run[red]\x1b[2J", CAGE2, workflow="none")  # which Rich would take for markup
    assert main(["replay", str(run), "--steps", "7", "--seed", "5", "--greedy"]) == 0
    out, err = capsys.readouterr()
    setting, moments = play(run, max_episode_steps=7, seed=5, greedy=True)
    assert out.splitlines() == [heading(setting, moments[0].scene), *map(plain_moment, moments)]
    assert "\x1b" not in out
    assert "run[red]" in out
    assert err == ""
    toy = write_run(tmp_path / "toy", "envs:toy")
    assert main(["replay", str(toy)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "envs:toy, toy, sampled, seed 0"
    assert re.match(r"step 1: action [0-2] \| reward ", lines[1])


def test_an_observation_outside_its_space_is_refused(tmp_path: Path) -> None:
    class Odd(Toy):
        def observe(self) -> Any:
            return 5 if self.steps == 2 else super().observe()

    run = write_run(tmp_path / "run", lambda: Toy("one_hot"))
    fault = r"step 2: .* observation 5, which the Discrete space does not have"
    with (
        contextlib.closing(Replay(run, env=lambda: Odd("one_hot"))) as played,
        pytest.raises(InvalidStepError, match=fault),
    ):
        list(played.play())


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "name the folder of a run, or else an agent: sleep, random, greedy-heuristic"),
        (["run", "--agent", "sleep"], "name the folder of a run, or else"),
        (["nothing"], "there is no nothing: name the folder of a run"),
        (["run/weights.safetensors"], "holds weights alone: name the folder of their run, run"),
        (["run", "--seed", "-1"], "seed cannot be negative (-1)"),
        (["run", "--steps", "0"], "at least 1"),
        (["run", "--workflow", "reverse"], "trained without any"),
        (["run", "--red-agent", "B_line"], "unknown red agent 'B_line'; did you mean B_lineAgent"),
        (["run", "--fps", "0"], "fps must be more than 0, not 0"),
        (["run", "--fps", "nan"], "fps must be more than 0, not nan"),
        (["run", "--paused"], "in a terminal"),
        (["run", "--paused", "--save", "film.svg"], "in a terminal"),
        (["run", "--save", "film.gif"], "film.gif does not end in .svg"),
        (["run", "--save", "nowhere/film.svg"], "save: nowhere/film.svg cannot be written: No such file"),
        (["toy", "--save", "film.svg"], "a picture is of CAGE 2's network"),
        (["toy", "--red-agent", "B_lineAgent"], "red-agent, simulator and rules are for aiotrain/Cage2-v0"),
        (["--agent", "sleep", "--greedy"], "aiotrain: greedy is for the policy of a run; the agent sleep"),
        (["--agent", "random", "--env", "CartPole-v1"], "aiotrain: env is for the policy of a run; the agent random"),
        (["--agent", "random", "--workflow", "reverse"], "workflow means nothing to the agent random"),
    ],
)
def test_what_cannot_work_ends_with_2_and_the_reason(
    flags: list[str],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run", CAGE2, workflow="none", simulator="cyborg", max_episode_steps=3)
    write_run(tmp_path / "toy", "envs:toy")
    assert main(["replay", *flags]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("aiotrain: ")
    assert expected in " ".join(err.split())
    assert out == ""
    assert not list(tmp_path.glob("*.svg"))


# ------------------------------------------------------------------------- as a film

SVG = "{http://www.w3.org/2000/svg}"


def test_a_film_is_xml_with_a_frame_for_each_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "film.svg"
    assert main(["replay", "--agent", "random", "--steps", "25", "--fps", "4", "--save", str(path)]) == 0
    assert capsys.readouterr().out == f"written to {path}\n"
    assert path.stat().st_size < 200_000
    root = ET.parse(path).getroot()
    rows = {row.attrib["id"]: "".join(row.itertext()) for row in root.iter(f"{SVG}g") if "id" in row.attrib}
    frames = [group for group in root.iter(f"{SVG}g") if group.get("class") == "frame"]
    _, moments = play(agent="random", max_episode_steps=25)
    assert len(frames) == len(moments) == 25
    for frame, each in zip(frames, moments, strict=True):
        text = "\n".join(rows[use.attrib["href"].removeprefix("#")] for use in frame.iter(f"{SVG}use"))
        assert f"{each.step} / 25" in text
        assert f"return{each.episode_return:.1f}" in text
    delays = [float(frame.attrib["style"].removeprefix("animation-delay:").removesuffix("s")) for frame in frames]
    assert np.diff(delays) == pytest.approx(1 / 4)
    assert delays[0] == pytest.approx(-(25 / 4 + 3)), "the first frame is not the first one shown"


def test_a_film_shows_text_as_it_is() -> None:
    frames = [render_moment(dataclasses.replace(SETTING, player="<&>"), MOMENTS, 100, 32)]
    root = ET.fromstring(film(frames, title="a < b & c\x07", width=100, height=32, frame_s=1.0))
    assert root.findtext(f"{SVG}title") == "a < b & c\ufffd"
    assert "<&>" in "".join(root.itertext())


# ----------------------------------------------------------------------- in a terminal


class Pressed:
    """Somebody who presses these keys at once, where there is "" waits in vain, and at the end for ever."""

    def __init__(self, *keys: Key) -> None:
        self._keys: Iterator[Key] = iter(keys)
        self.waited_s: list[float] = []

    def __call__(self, seconds: float) -> Key:
        self.waited_s.append(seconds)
        return next(self._keys, "")


def watched(pressed: Callable[[float], Key], fps: float = 2.0, paused: bool = False) -> tuple[list[int], str]:
    """The steps shown in this order, and what stays on the normal screen."""
    console = Console(file=StringIO(), force_terminal=True, color_system=None, width=80, height=24)
    watch(SETTING, MOMENTS, console, fps=fps, paused=paused, wait=pressed)
    screen, _, after = cast(StringIO, console.file).getvalue().rpartition("\x1b[?1049l")
    assert screen.endswith("\x1b[?7h\x1b[?25h"), "no cursor or no wrapping afterwards"
    return [int(step) for step in re.findall(r"step (\d+) / 30", screen)], after


def test_it_goes_on_by_itself() -> None:
    pressed = Pressed()
    steps, after = watched(pressed, fps=5)
    assert list(dict.fromkeys(steps)) == list(range(1, 13))
    assert sum(pressed.waited_s) == pytest.approx(12 / 5)
    assert "step 12 / 30" in after
    assert len(after.splitlines()) <= 23, "no line is left for the prompt"


def test_it_pauses_and_goes_by_keys() -> None:
    steps, after = watched(Pressed("on", "on", "back", "", "", "", "", "back", "back", "on", "quit"))
    assert list(dict.fromkeys(steps)) == [1, 2, 3], "it went on while it was paused"
    assert "step 2 / 30" in after
    steps, _ = watched(Pressed("pause", *[""] * 20, "pause", "", "", "quit"))
    assert steps[-1] == 2, "it does not go on again"
    steps, after = watched(Pressed(*["on"] * 12), paused=True)
    assert steps == list(range(1, 13))
    assert "step 12 / 30" in after


def in_terminal(*flags: str, then: Callable[[int, subprocess.Popen[bytes]], object]) -> tuple[int, str]:
    """Replay in a pseudo-terminal, and once it is drawn on, do ``then``. The exit code, and all that was shown."""
    terminal, its_end = pty.openpty()
    before = termios.tcgetattr(its_end)
    process = subprocess.Popen(
        [sys.executable, "-m", "aiotrain", "replay", "--agent", "sleep", "--simulator", "cyborg", *flags],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "PYTHONUTF8": "1"},
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
    )
    shown, deadline, is_done = b"", time.monotonic() + 60, False
    while True:
        ended = process.poll() is not None
        if select.select([terminal], [], [], 0 if ended else 0.05)[0]:
            shown += os.read(terminal, 65536)
        elif ended:
            break
        if not is_done and b"step " in shown:
            is_done = True
            then(terminal, process)
        if time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"it does not end: {shown!r}")
    assert termios.tcgetattr(its_end) == before, "the terminal is left in another mode"
    os.close(its_end)
    os.close(terminal)
    assert process.returncode is not None
    return process.returncode, shown.decode(errors="replace")  # a signal may cut a character in two


def test_keys_of_a_real_terminal() -> None:
    code, shown = in_terminal(
        *("--paused", "--steps", "9"), then=lambda terminal, _: os.write(terminal, b"x\x1b[C\n\x1b[D\x1bOCq")
    )
    assert code == 0
    screen, _, after = shown.rpartition("\x1b[?1049l")
    assert screen.endswith("\x1b[?7h\x1b[?25h")
    steps = re.findall(r"step.{0,20}?(\d+) / 9", screen)
    assert steps == ["1", "2", "3", "2", "3"]
    assert re.search(r"step.{0,20}?3 / 9", after)


@pytest.mark.parametrize(("which", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_and_leaves_the_terminal_usable(which: signal.Signals, code: int) -> None:
    ended, shown = in_terminal("--fps", "0.1", then=lambda _, process: process.send_signal(which))
    assert ended == code
    assert shown.endswith("\x1b[?7h\x1b[?25h\x1b[?1049l"), shown[-200:]
    assert "Traceback" not in shown


def test_a_closed_terminal_ends_it() -> None:
    """Without a signal, for it is not this terminal's session that it belongs to."""
    terminal, its_end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "aiotrain", "replay", "--agent", "sleep", "--simulator", "cyborg", "--fps", "20"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "PYTHONUTF8": "1"},
        stdin=subprocess.DEVNULL,
        stdout=its_end,
        stderr=subprocess.PIPE,
    )
    os.close(its_end)
    assert os.read(terminal, 10)
    os.close(terminal)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (129, b"")

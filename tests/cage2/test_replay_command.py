"""aiotrain replay on CAGE 2: lines for logs, a film as a file, and keys in a terminal."""

from __future__ import annotations

import contextlib
import dataclasses
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
from typing import Any, cast

import numpy as np
import pytest
from network_scenes import SETTING, STEPS
from rich.console import Console

from aiotrain import ConfigError
from aiotrain.app.console.episode_viewer import Key, watch
from aiotrain.app.console.lines import Frame
from aiotrain.app.console.svg_animation import film
from aiotrain.cage2 import CAGE2_ID, Cage2
from aiotrain.cage2.commands.replay import replay
from aiotrain.cage2.playback.episode import Cage2Playback, Cage2Setting, Cage2Step
from aiotrain.cage2.screen.network_map import heading, plain_step, render_step
from finished_runs import ROOT, write_run


def play(*args: Any, **settings: Any) -> tuple[Cage2Setting, list[Cage2Step]]:
    with contextlib.closing(Cage2Playback.open(*args, **settings)) as playback:
        return playback.setting, list(playback.play())


def test_without_a_terminal_there_is_a_line_for_each_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run[red]\x1b[2J", Cage2(workflow="none"))  # which Rich would take for markup
    assert replay([str(run), "--steps", "7", "--seed", "5", "--greedy"]) == 0
    out, err = capsys.readouterr()
    setting, steps = play(run, max_episode_steps=7, seed=5, greedy=True)
    assert out.splitlines() == [heading(setting, steps[0].scene), *map(plain_step, steps)]
    assert "\x1b" not in out
    assert "run[red]" in out
    assert err == ""


def test_in_another_environment_an_episode_is_told_as_any_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = f"aiotrain.cage2:{CAGE2_ID}"
    run = write_run(tmp_path / "run", Cage2(workflow="none", simulator="cyborg"))
    assert replay([str(run), "--env", env, "--steps", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{env}, run, sampled, seed 0"
    assert re.match(r"step 1: action \d+ \| reward ", lines[1])


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
        (["toy"], "trained on another environment than aiotrain/Cage2-v0"),
        (["--agent", "sleep", "--greedy"], "greedy is for the policy of a run; the agent sleep"),
        (["run", "--env", "envs:toy"], "trained on an environment with other spaces"),
        (["--agent", "random", "--workflow", "reverse"], "workflow means nothing to the agent random"),
    ],
)
def test_what_cannot_be_replayed_is_refused(
    flags: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run", Cage2(workflow="none", simulator="cyborg"), max_episode_steps=3)
    write_run(tmp_path / "toy", "envs:toy")
    with pytest.raises(ConfigError) as refused:
        replay(flags)
    assert expected in str(refused.value)
    assert capsys.readouterr().out == ""
    assert not list(tmp_path.glob("*.svg"))


# ------------------------------------------------------------------------- as a film

SVG = "{http://www.w3.org/2000/svg}"


def test_a_film_is_xml_with_a_frame_for_each_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "film.svg"
    assert replay(["--agent", "random", "--steps", "25", "--fps", "4", "--save", str(path)]) == 0
    assert capsys.readouterr().out == f"written to {path}\n"
    assert path.stat().st_size < 200_000
    root = ET.parse(path).getroot()
    rows = {row.attrib["id"]: "".join(row.itertext()) for row in root.iter(f"{SVG}g") if "id" in row.attrib}
    frames = [group for group in root.iter(f"{SVG}g") if group.get("class") == "frame"]
    _, steps = play(agent="random", max_episode_steps=25)
    assert len(frames) == len(steps) == 25
    for frame, each in zip(frames, steps, strict=True):
        text = "\n".join(rows[use.attrib["href"].removeprefix("#")] for use in frame.iter(f"{SVG}use"))
        assert f"{each.step} / 25" in text
        assert f"return{each.episode_return:.1f}" in text
    delays = [float(frame.attrib["style"].removeprefix("animation-delay:").removesuffix("s")) for frame in frames]
    assert np.diff(delays) == pytest.approx(1 / 4)
    assert delays[0] == pytest.approx(-(25 / 4 + 3)), "the first frame is not the first one shown"


def test_a_film_shows_text_as_it_is() -> None:
    frames = [render_step(dataclasses.replace(SETTING, player="<&>"), STEPS, 100, 32)]
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


def frame(place: int, width: int, height: int, keys: bool) -> Frame:
    return render_step(SETTING, STEPS[: place + 1], width, height, keys)


def watched(pressed: Callable[[float], Key], fps: float = 2.0, paused: bool = False) -> tuple[list[int], str]:
    """The steps shown in this order, and what stays on the normal screen."""
    console = Console(file=StringIO(), force_terminal=True, color_system=None, width=80, height=24)
    watch(frame, len(STEPS), console, fps=fps, paused=paused, wait=pressed)
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

"""What of bench.peers needs no other trainer: set-up, reports and figures, and the end of programs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench import peers
from bench.peers import Comparison, Layout, Learned, Program, Trainer, TrainerError, lead
from bench.tools.ceiling import Ceiling
from bench.tools.figures import Figures

FAKE = """
import multiprocessing, os, sys, time

def linger():
    time.sleep(60)

def main():
    multiprocessing.get_context("fork").Process(target=linger).start()
    print("a library says hello")
    for update in range(1, 100):
        print('{"steps": %d, "time": %f}' % (500 * update, 7 + update), flush=True)
    {end}
    linger()

main()
"""


def in_fake_package(monkeypatch: pytest.MonkeyPatch, folder: Path, end: str) -> None:
    """Let a Program run ``FAKE`` instead of a trainer's program."""
    package = folder / "bench" / "trainers"
    package.mkdir(parents=True)
    for regular in (package.parent, package):  # or the real one, further down the path, would be taken for it
        (regular / "__init__.py").touch()
    (package / "fake.py").write_text(FAKE.replace("{end}", end))
    monkeypatch.setattr(peers, "ROOT", folder)
    monkeypatch.setattr(peers, "GRACE_S", 0.2)


def program() -> Program:
    return Program(sys.executable, "fake", "CartPole-v1", peers.Layout(2, 1), 500)


@pytest.mark.parametrize("line", [b"", b"INFO: hello", b"[1]", b"17", b'{"loss": 3}', b'{"steps": 1', b"\xff"])
def test_lines_that_are_no_reports_are_passed_over(line: bytes) -> None:
    assert Learned.parse(line) is None


def test_a_report_is_read() -> None:
    assert Learned.parse(b'{"steps": 5000, "time": 1.5}\r') == Learned(5000, 1.5)


def test_the_rate_counts_from_the_warm_up_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An update a second, 500 steps each; the processes of the program, which ignore SIGINT, are gone afterwards."""
    in_fake_package(monkeypatch, tmp_path, "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)")
    with program() as running:
        figures = peers.train(running, 10.0)
    assert figures["steps_per_s"] == pytest.approx(500)
    assert figures["pss_mib"] > 0


def test_a_program_that_ends_tells_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    in_fake_package(monkeypatch, tmp_path, "os._exit(print('ValueError: no such space', file=sys.stderr) or 1)")
    with pytest.raises(TrainerError, match="exit code 1: ValueError: no such space"), program() as running:
        peers.train(running, 1e6)


def test_a_silent_program_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    in_fake_package(monkeypatch, tmp_path, "pass")
    monkeypatch.setattr(peers, "START_S", 0.5)
    with pytest.raises(TrainerError, match=r"no update within 0.5 s"), program() as running:
        peers.train(running, 1e6)


def test_a_set_up_that_fails_is_redone_and_one_that_is_done_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setitem(peers.TRAINERS, "fake", Trainer("Fake", "fake==1"))

    def fail_on(word: str) -> None:
        def run(command: list[str]) -> None:
            ran.append(command)
            (tmp_path / "fake").mkdir(exist_ok=True)
            if word in command:
                raise TrainerError("no network")

        monkeypatch.setattr(peers, "run_or_raise", run)

    fail_on("fake==1")
    with pytest.raises(TrainerError, match="no network"):
        peers.set_up("fake", tmp_path)
    fail_on("nothing")
    ran.clear()
    python = peers.set_up("fake", tmp_path)
    assert "--clear" in ran[0]
    assert any(part.startswith("torch==") for part in ran[1])
    assert "fake==1" in ran[2]
    ran.clear()
    assert peers.set_up("fake", tmp_path) == python
    assert ran == []


def test_the_reason_is_the_last_line_that_tells_of_an_error() -> None:
    assert (
        peers.last_words("ERROR: no matching distribution\n\nnotice: a new pip\n") == "ERROR: no matching distribution"
    )
    assert peers.last_words("Killed\n") == "Killed"
    assert peers.last_words("") == "it gave no reason"


def test_each_trainer_repeats_the_layout_that_was_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {("aiotrain", 1): 40.0, ("aiotrain", 8): 60.0, ("sb3", 1): 20.0}
    measured: list[tuple[str, int]] = []

    def measure(key: str, python: str, layout: Layout, *_: object) -> dict[str, float]:
        measured.append((key, layout.envs_per_worker))
        if key == "rllib":
            raise TrainerError("exit code 1: no such space")
        figures = {"cpu_efficiency": 0.5, "first_update_s": 3.0, "pss_mib": 400.0}
        speed = speeds[key, layout.envs_per_worker]
        return {"steps_per_s": speed, "ceiling_steps_per_s": 100.0, "ratio": speed / 100} | figures

    monkeypatch.setattr(peers, "measure", measure)
    comparison = Comparison("CartPole-v1", 500, 1.0, Ceiling.__new__(Ceiling))
    comparison.run(dict.fromkeys(("aiotrain", "sb3", "rllib"), "python"), [Layout(2, 1), Layout(2, 8)], repeats=2)
    trials = [("aiotrain", 1), ("aiotrain", 8), ("rllib", 1), ("rllib", 8)]  # workers of sb3 can have one only
    assert measured == trials + 2 * [("aiotrain", 8), ("sb3", 1)]
    figures = comparison.figures
    assert [figure.ratio for figure in figures.of("aiotrain", "speed")] == [0.6]
    assert figures.remarks["aiotrain"] == "2 x 8 environments"
    assert figures.remarks["RLlib"] == "exit code 1: no such space"
    assert lead(figures) == (pytest.approx(3.0), "stable-baselines3, SubprocVecEnv")


def test_without_another_trainer_nobody_leads() -> None:
    figures = Figures()
    figures.note("aiotrain", "speed", 50.0, "steps/s", ceiling=("ceiling", 100.0))
    assert lead(figures) is None

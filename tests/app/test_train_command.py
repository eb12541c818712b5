"""Runs from the command line: what they print, and what they leave behind."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from program import RUN, SMALL, Start, everything_from, wait_for_update
from safetensors.numpy import load_file

from aiotrain.app.main import main
from aiotrain.training.reports import columns_of


def test_a_run_that_fails_after_its_start_ends_with_1_and_its_summary(start: Start) -> None:
    process = start("--env", "tiny_envs:RaisingLater", "--run-dir", "run", *SMALL)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 1, err
    assert "RuntimeError: the simulator crashed" in out
    assert "\nfailed " in out


def test_a_python_without_the_packages_is_told_what_to_do() -> None:
    done = subprocess.run([sys.executable, "-I", "-S", str(RUN)], capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "is not installed" in done.stderr
    assert "make train" in done.stderr


def test_a_run_leaves_its_files_and_a_line_for_every_update(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as temporary:  # whose path is short enough for sockets
        monkeypatch.setenv("TMPDIR", temporary)
        process = start("--env", "tiny_envs:Tiny", "--run-dir", "out/run", *SMALL)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert err == ""
        assert not list(Path(temporary).glob("pymp-*")), "what multiprocessing removes at the end of a program"
    run = folder / "out" / "run"
    assert json.loads((run / "config.json").read_text())["env"] == "tiny_envs:Tiny"
    rows = updates_of(run)
    assert list(rows[0]) == [*columns_of(()), "curriculum"]
    assert [row["episodes"] for row in rows] == ["10", "20"]
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert events[0]["event"] == "start"
    assert events[-1]["event"] == "end"
    assert events[-1]["phase"] == "finished"
    assert all(tensor.size for tensor in load_file(run / "weights.safetensors").values())
    assert re.findall(r"^update=(\d+)", out, re.MULTILINE) == ["1", "2"]
    assert "20 played = 20 learned + 0 waiting + 0 discarded + 0 lost" in out
    assert re.search("^warning: .*--steps-per-update", out, re.MULTILINE), "Tiny tells no time limit"
    assert out.index("warning: ") < out.index("update=1"), "told too late for who waits for the first update"


def test_a_run_on_cage_2_tells_what_plays_it(start: Start) -> None:
    flags = ("--workers", "1", "--total-episodes", "2", "--episodes-per-update", "2", "--max-episode-steps", "5")
    process = start("--simulator", "cyborg", "--fixed-episodes", "1", "--run-dir", "run", *flags)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert re.search("^simulator   csle-cyborg itself$", out, re.MULTILINE), out


def test_a_run_of_a_domain_goes_on_with_its_settings(
    maze: str, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    process = start("--env", maze, "--length", "4", "--lamp", "off", "--run-dir", "run", *SMALL)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert main(["replay", "run/checkpoints/update-000002.safetensors"]) == 3, "it is not the domain's command"
    capsys.readouterr()
    assert main(["--resume", "run", "--length", "5"]) == 2
    assert "length was 4, and is now 5" in capsys.readouterr().err
    process = start("--resume", "run", "--env", maze, "--total-episodes", "30")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "\nresumed     after 2 updates\n" in out
    assert len(updates_of("run")) == 3


def test_curriculum_and_metrics_can_be_given_for_any_environment(start: Start) -> None:
    process = start(
        *("--env", "tiny_envs:Leveled", "--curriculum", "tiny_envs:Harder", "--metrics", "success", "level"), *SMALL
    )
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    (run,) = Path("runs").iterdir()
    first, second = updates_of(run)
    assert list(first) == [*columns_of(("success", "level")), "curriculum"]
    assert (first["curriculum"], first["level"], first["level_count"]) == ("level 1", "1.0", "10")
    assert (second["curriculum"], second["success"], second["success_count"]) == ("level 2", "1.0", "10")
    assert " success=1 level=2 policy_loss=" in out, out


def test_a_curriculum_of_ones_own_is_not_shown_by_the_domains_panel(maze: str, start: Start) -> None:
    process = start("--env", maze, "--curriculum", "tiny_envs:Harder", *SMALL, "--max-policy-lag", "0")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "update=2 " in out
    assert "lesson" not in out, "the panel shows lessons, and there are none"


def updates_of(run: str | Path) -> list[dict[str, str]]:
    with Path(run, "updates.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_plotting_needs_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plot"])
    assert ended.value.code == 2
    assert "Folder of the run" in capsys.readouterr().err
    assert main(("plot", "nothing")) == 2
    assert capsys.readouterr().err.startswith("aiotrain: plot: there is no folder nothing")


def test_without_a_name_the_run_gets_a_folder_of_its_own(start: Start, folder: Path) -> None:
    process = start("--env", "tiny_envs:Tiny", *SMALL)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    (run,) = (folder / "runs").iterdir()
    assert run.name.startswith("tiny-envs-Tiny-"), run.name
    assert str(run.relative_to(folder)) in out


@pytest.mark.parametrize(("command", "code"), [("c", 0), ("q", 130)])
def test_breakpoints_work_in_environments_of_this_process(command: str, code: int, start: Start) -> None:
    terminal, its_end = pty.openpty()
    flags = ("--env", "tiny_envs:Debugged", "--collector", "sequential", *SMALL)
    process = start(*flags, stdin=subprocess.PIPE, stdout=its_end, term="xterm")
    os.close(its_end)
    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(everything_from, terminal)
        _, err = process.communicate(f"p self.steps\n{command}\n", timeout=60)
        shown = reading.result()
    os.close(terminal)
    assert (process.returncode, err) == (code, "")
    assert "(Pdb) 0" in shown
    assert "\x1b[?1049h" not in shown, "a live console came between"
    assert "collector   sequential: 1 environment in this process" in shown
    assert re.findall("update=([0-9]+)", shown) == (["1", "2"] if command == "c" else [])


def test_what_a_killed_run_leaves_goes_when_the_next_one_starts(start: Start, folder: Path) -> None:
    flags = ("--workers", "2", "--total-episodes", "10000000", "--episodes-per-update", "50")
    killed = start("--env", "tiny_envs:Tiny", "--run-dir", "killed", *flags)
    wait_for_update(folder / "killed", killed)
    os.killpg(killed.pid, signal.SIGKILL)  # with those who would clean up after it
    killed.communicate(timeout=30)
    orphans = list(Path("/dev/shm").glob(f"aiotrain-{killed.pid}-*"))
    assert len(orphans) == 2, "the ring and the weights"
    process = start("--env", "tiny_envs:Tiny", "--run-dir", "next", *SMALL)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert not any(orphan.exists() for orphan in orphans)


@pytest.mark.parametrize(
    ("env", "code", "written"),
    [
        ("Tiny", 0, None),
        ("Printing", 0, "a word from the environment"),
        ("Crashing", 2, "Fatal Python error: Segmentation fault"),
    ],
)
def test_what_workers_write_is_kept_away_from_the_live_console(
    env: str, code: int, written: str | None, start: Start, folder: Path
) -> None:
    terminal, its_end = pty.openpty()
    process = start("--env", f"tiny_envs:{env}", "--run-dir", "run", *SMALL, stdout=its_end, term="xterm")
    os.close(its_end)
    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(everything_from, terminal)
        _, err = process.communicate(timeout=60)
        shown = reading.result()
    os.close(terminal)
    assert process.returncode == code, err
    log = folder / "run" / "workers.log"
    assert log.exists() == (written is not None)
    assert ("what workers printed is in run/workers.log" in shown) == (written is not None)
    if written is not None:
        assert written in log.read_text()
        assert written not in shown + err


def test_a_closed_pipe_ends_the_log_and_not_the_run(start: Start, folder: Path) -> None:
    reading, writing = os.pipe()
    process = start("--env", "tiny_envs:Tiny", "--run-dir", "run", *SMALL, stdout=writing)
    os.close(writing)
    os.close(reading)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert err == ""
    assert (folder / "run" / "updates.csv").read_text().count("\n") == 3

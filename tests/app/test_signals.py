"""What signals do, at any moment of a run, and their exit codes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from program import RUN, SMALL, Start, everything_from, wait_for_update, wait_until
from safetensors.numpy import load_file


@pytest.fixture
def hanging_forkserver(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that appears when the process that workers are forked from hangs before it forks any."""
    mark = folder / "hangs"
    script = f"""
        import sys
        if "forkserver" in sys.orig_argv[-1]:
            import time
            open({str(mark)!r}, "w").close()
            time.sleep(60)
    """
    (folder / "sitecustomize.py").write_text(textwrap.dedent(script))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH")))))
    return mark


def test_starting_has_a_deadline_before_there_is_a_worker(start: Start, hanging_forkserver: Path) -> None:
    process = start("--env", "tiny_envs:Tiny", "--start-timeout-s", "0.5", *SMALL)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, hanging_forkserver.exists()) == (2, True), err
    assert "the process that workers are forked from was not ready within 0.5 s" in err
    assert "--start-timeout-s" in err
    assert len(err.splitlines()) == 1, err


@pytest.mark.parametrize(("times", "within_s"), [(1, 20), (2, 5)])  # 5 and 1 where nobody else is at work
def test_ctrl_c_ends_what_hangs_before_there_is_a_worker(
    times: int, within_s: float, start: Start, hanging_forkserver: Path
) -> None:
    process = start("--env", "tiny_envs:Tiny", *SMALL)
    wait_until(hanging_forkserver.exists, process)
    for which in (signal.SIGINT, signal.SIGTERM)[:times]:  # two of one kind could arrive as one
        os.killpg(process.pid, which)
    _, err = process.communicate(timeout=within_s)
    assert process.returncode in (130, 143)
    assert err == ""


@pytest.mark.parametrize(("which", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("to_all", [False, True])
def test_a_signal_ends_the_run_in_order(
    which: signal.Signals, code: int, to_all: bool, start: Start, folder: Path
) -> None:
    flags = ("--workers", "2", "--total-episodes", "10000000", "--episodes-per-update", "50")
    process = start("--env", "tiny_envs:Tiny", "--run-dir", "run", *flags)
    wait_for_update(folder / "run", process)
    if to_all:  # as a terminal's Ctrl-C does
        os.killpg(process.pid, which)
    else:
        process.send_signal(which)
    out, err = process.communicate(timeout=5)
    assert process.returncode == code, err
    assert err == ""
    assert "\ninterrupted " in out
    last = json.loads((folder / "run" / "events.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["phase"]) == ("end", "interrupted")
    assert load_file(folder / "run" / "weights.safetensors")


def test_ctrl_c_while_workers_start_says_nothing(start: Start) -> None:
    """It reaches the process from which workers are forked while that one imports NumPy."""
    process = start("--env", "tiny_envs:Tiny", *SMALL)
    children = psutil.Process(process.pid).children
    wait_until(lambda: any(is_forkserver_with_numpy(child.pid) for child in children()), process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (130, "")


def is_forkserver_with_numpy(pid: int) -> bool:
    try:
        mapped, command = (Path(f"/proc/{pid}/{name}").read_text() for name in ("maps", "cmdline"))
    except OSError:  # it has ended
        return False
    return "numpy" in mapped and "forkserver" in command  # until it has that command, what is mapped is its parent's


def test_a_second_signal_ends_the_run_at_once_and_leaves_the_terminal_usable(start: Start, folder: Path) -> None:
    terminal, its_end = pty.openpty()
    flags = ("--workers", "2", "--total-episodes", "10000000", "--episodes-per-update", "50")
    process = start("--env", "tiny_envs:Tiny", "--run-dir", "run", *flags, stdout=its_end, term="xterm")
    os.close(its_end)
    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(everything_from, terminal)
        wait_for_update(folder / "run", process)
        # two of one kind could arrive as one
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=5)
        shown = reading.result()
    os.close(terminal)
    assert process.returncode in (130, 143), err
    assert "Traceback" not in err
    assert not (folder / "run" / "weights.safetensors").exists(), "it ended in order"
    assert "\x1b[?1049h" in shown, "no live console was there to be left"
    screen, _, after = shown.rpartition("\x1b[?1049l")
    assert screen.endswith("\x1b[?7h\x1b[?25h"), f"no cursor or no wrapping afterwards: {screen[-40:]!r}"
    assert "\x1b[?1049h" not in after


@pytest.mark.parametrize("env", ["Hanging", "Spinning"])
def test_a_second_signal_ends_also_what_hangs_in_the_main_process(env: str, start: Start, folder: Path) -> None:
    """The event loop does not come to its turn: it is an environment's."""
    process = start("--env", f"tiny_envs:{env}", "--collector", "sequential", "--run-dir", "run", *SMALL)
    wait_until((folder / "hangs").exists, process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=5)
    assert process.returncode in (130, 143), err
    assert err == ""


@pytest.mark.timeout(300)
def test_the_main_job_survives_interruptions_at_random_moments() -> None:
    command = [sys.executable, "-m", "bench.interrupts", "--runs", "7", "--workers", "2", "--within-s", "30"]
    done = subprocess.run(command, cwd=RUN.parent, capture_output=True, text=True, timeout=290, check=False)
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", [[str(RUN)], ["-m", "aiotrain"]], ids=["run.py", "aiotrain"])
def test_interrupted_imports_say_nothing(command: list[str], which: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, *command, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: catches_sigterm(process.pid), process)
    process.send_signal(which)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (128 + which, b"")


def catches_sigterm(pid: int) -> bool:
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1)

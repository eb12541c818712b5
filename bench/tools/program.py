"""The program ``aiotrain`` as a user starts it: trained to the end of its budget, or started in a terminal."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

from bench.tools.processes import cpu_s, family, memory
from bench.tools.script import ROOT

__all__ = ["command_of", "start_up", "train", "updates", "variables_of", "wait_for"]

_PR_SET_CHILD_SUBREAPER = 36
_PATIENCE_S = 120.0
_END_S = 30.0

T = TypeVar("T")


def command_of(flags: Sequence[str]) -> list[str]:
    """Return the command that trains with ``flags``; it is to be run in a checkout, with `variables_of` it."""
    return [sys.executable, "-m", "aiotrain", *flags]


def variables_of(checkout: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment variables with which Python imports from that checkout and from no other."""
    return {**os.environ, "PYTHONPATH": str(checkout), **(more or {})}


def updates(run: Path) -> list[dict[str, float]]:
    """Return the columns that are measured, of each update so far."""
    try:
        text = (run / "updates.csv").read_text()
    except FileNotFoundError:
        return []
    whole = text[: text.rfind("\n") + 1]  # the last line may be half written
    rows = csv.DictReader(whole.splitlines())
    return [{name: float(row[name]) for name in ("elapsed_s", "episodes", "steps")} for row in rows]


def wait_for(ready: Callable[[], T], program: subprocess.Popen[bytes], every_s: float = 0.02) -> T:
    """Return what ``ready`` returns once that is true. Ends the script if the program ends or takes too long."""
    deadline = time.monotonic() + _PATIENCE_S
    while not (value := ready()):
        if time.monotonic() > deadline or program.poll() is not None:
            raise SystemExit(f"the program did not get going within {_PATIENCE_S:g} s (exit code {program.poll()})")
        time.sleep(every_s)
    return value


def train(flags: Sequence[str], checkout: Path = ROOT) -> dict[str, float]:
    """Train to the end of the budget. Raises SystemExit if the program fails.

    Returns:
        ``episodes_per_s`` and ``steps_per_s`` from the first update to the last; ``wall_s`` and ``cpu_s`` of the whole
        program, all of its processes together.
    """
    _adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, tempfile.TemporaryFile("w+") as errors:
        began = time.perf_counter()
        program = subprocess.Popen(
            command_of([*flags, "--plain", "--run-dir", f"{folder}/run"]),
            cwd=checkout,
            env=variables_of(checkout),
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        with _ended(program):
            cpu_s = _wait(program)
        wall_s = time.perf_counter() - began
        if program.returncode:
            errors.seek(0)
            raise SystemExit(f"{checkout}: aiotrain {' '.join(flags)} failed ({program.returncode}): {errors.read()}")
        first, *_, last = updates(Path(folder, "run"))
    seconds = last["elapsed_s"] - first["elapsed_s"]
    return {
        "episodes_per_s": (last["episodes"] - first["episodes"]) / seconds,
        "steps_per_s": (last["steps"] - first["steps"]) / seconds,
        "wall_s": wall_s,
        "cpu_s": cpu_s,
    }


def start_up(flags: Sequence[str], workers: int, checkout: Path = ROOT, cache: Path | None = None) -> dict[str, float]:
    """Start a training in a terminal of 160x50 and end it once all workers have played.

    ``cache``: the folder of compiled code, instead of the usual one. Raises SystemExit if it does not get going.

    Returns:
        ``first_episode_s`` until an episode is finished; ``first_episode_cpu_s``, what all processes used until then;
        ``pss_mib``, the memory of all processes in full training;
        ``end_s`` from SIGINT until the program has ended.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        run = Path(folder) / "run"
        terminal = open_terminal()
        began = time.time()
        program = subprocess.Popen(
            command_of(["--workers", str(workers), "--run-dir", str(run), *flags]),
            cwd=checkout,
            env=variables_of(checkout, {"NUMBA_CACHE_DIR": str(cache)} if cache else None),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        with _ended(program):
            first_at = wait_for(lambda: _first_episode(run), program)
            used_s = cpu_s(family(program.pid))
            wait_for(lambda: len(family(program.pid)) > workers, program)
            done = len(updates(run))
            wait_for(lambda: len(updates(run)) > done + 2 * workers / 50, program)  # all have played
            pss = sum(memory(process) for process in family(program.pid))
            asked = time.monotonic()
            program.send_signal(signal.SIGINT)
            program.wait(_END_S)
            end_s = time.monotonic() - asked
        os.close(terminal)
    return {
        "first_episode_s": first_at - began,
        "first_episode_cpu_s": used_s,
        "pss_mib": pss / 2**20,
        "end_s": end_s,
    }


def open_terminal(width: int = 160, height: int = 50) -> int:
    """Return the far end of a pseudo-terminal whose output is read and discarded."""
    near, far = pty.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def drain() -> None:
        try:
            while os.read(near, 65536):
                pass
        except OSError:
            pass

    threading.Thread(target=drain, daemon=True).start()
    return far


def _first_episode(run: Path) -> float:
    """Return the wall-clock time of the first finished episode, from the run's events; 0 before it."""
    try:
        lines = (run / "events.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return 0.0
    events = map(json.loads, lines)
    return next((float(event["time"]) for event in events if event["event"] == "first_episode"), 0.0)


@contextlib.contextmanager
def _ended(program: subprocess.Popen[bytes]) -> Iterator[None]:
    """See to it that the program and all of its processes are gone, however the block ends."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()


def _adopt_orphans() -> None:
    """Have this process wait for what its children leave behind, so that their CPU time can be read."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _wait(program: subprocess.Popen[bytes]) -> float:
    """Wait for the program and for the processes of its session; the CPU seconds of all of them.

    The forkserver outlives the program by a moment, and has waited for the workers.
    """
    _, status, used = os.wait4(program.pid, 0)
    program.returncode = os.waitstatus_to_exitcode(status)
    cpu_s = used.ru_utime + used.ru_stime
    deadline = time.monotonic() + _END_S
    while left := [child.pid for child in psutil.Process().children() if os.getsid(child.pid) == program.pid]:
        for pid in left:
            ended, _, used = os.wait4(pid, os.WNOHANG)
            if ended:
                cpu_s += used.ru_utime + used.ru_stime
        if time.monotonic() > deadline:
            raise SystemExit(f"processes {left} outlive the program by {_END_S:g} s")
        time.sleep(0.01)
    return cpu_s
